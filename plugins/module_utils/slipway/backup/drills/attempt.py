# SPDX-License-Identifier: Apache-2.0
"""One backup brought back into a scratch cluster and checked: everything a drill does short of its verdict on the whole."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from ...commands import CommandError
from ...commands import run as run_program
from ...errors import SlipwayError
from ..argv import Server
from ..catalog import CatalogError
from ..compare import compare
from ..config import Config
from ..manifest import Manifest
from ..stores.store import MB, Store
from ..verdict import (
    FAILED,
    OPTIONAL,
    PASSED,
    REQUIRED,
    SKIPPED,
    Check,
    Judgement,
    Steps,
    clock_check,
    from_comparison,
    judge,
)
from . import checks as ask
from . import locks, scratch
from .assertions import Assertion
from .evidence import Tried, as_tried
from .fetch import BackupError, Fetcher, Times
from .find import Found, clocks, manifest
from .refill import Refill

Say = Callable[[str], None]
_NOT_REACHED = "not reached"


def silent(_text: str) -> None:
    """Say nothing."""


@dataclass(frozen=True)
class Means:
    """What a drill has to work with. ``identity``: path of age's identity; ``base``: folder of scratch clusters."""

    store: Store
    identity: str
    base: Path
    assertions: Sequence[Assertion] = ()
    jobs: int = field(default_factory=lambda: max(1, min(4, os.cpu_count() or 1)))
    say: Say = silent


@dataclass
class Attempt:
    """How one backup fared."""

    tried: Tried
    manifest: Manifest | None = None
    checks: list[Check] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    findings: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    steps: Steps | None = None

    def judge(self) -> Judgement:
        """Its verdict, with a line for each check that was not reached."""
        known = {each.name for each in self.checks}
        because = next((f"{each.name} {each.status}" for each in self.checks if each.status in (FAILED, SKIPPED)), "")
        for name in (*REQUIRED, *OPTIONAL):
            if name not in known:
                asks = {**REQUIRED, **OPTIONAL}[name]
                self.checks.append(Check(name, SKIPPED, asks, f"{_NOT_REACHED}: {because or 'the drill ended before'}"))
        found = judge(self.checks)
        reasons = [each for each in found.reasons if f": {_NOT_REACHED}" not in each]  # the checks themselves name them
        self.tried = as_tried(self.tried, found.verdict, reasons)
        return found


def attempt(config: Config, found: Found, drill_id: str, means: Means, now: datetime) -> Attempt:
    """Bring back one backup and check it. What goes wrong is in the checks; nothing is raised but what interrupts."""
    fetcher = Fetcher(means.store, means.identity, deadline=time.monotonic() + config.longest_s)
    result = Attempt(Tried(found.id, config.host, found.named, "0" * 64), notes=found.notes)
    try:
        taken, digest = manifest(means.store, found, config.host)
        result.manifest, result.tried = taken, Tried(taken.backup_id, taken.host, taken.taken, digest)
        wrong = clocks(taken, found.entry, now)
        result.checks += wrong or [clock_check(taken.taken, now)]
        result.notes += [f"database {name} is in no list and was backed up all the same" for name in taken.unlisted]
        result.notes += [f"{each.name}: {note}" for each in taken.contents.databases for note in each.unchecked]
        result.findings = locks.findings(config.place, means.store, found, taken, now)
        if not means.identity:
            raise BackupError(
                "decryption", "There is no age identity on this host", "the credential 'identity'",
                "drills run where the identity is: see docs/backups.md", unknown=True,
            )  # fmt: skip
        _bring_back(config, drill_id, taken, fetcher, means=means, result=result)
    except BackupError as error:
        result.checks.append(
            Check(error.check, SKIPPED if error.unknown else FAILED, REQUIRED[error.check], str(error))
        )
    except scratch.ScratchError as error:
        result.checks.append(Check("restore", SKIPPED, REQUIRED["restore"], str(error)))
    except CatalogError as error:
        result.checks.append(Check("catalog", SKIPPED, REQUIRED["catalog"], str(error)))
    except (OSError, SlipwayError) as error:
        result.checks.append(Check("restore", SKIPPED, REQUIRED["restore"], f"the drill itself failed: {error}"))
    result.tried = Tried(**{**vars(result.tried), "objects": dict(fetcher.seen)})
    return result


def _bring_back(
    config: Config, drill_id: str, taken: Manifest, fetcher: Fetcher, *, means: Means, result: Attempt
) -> None:
    times, say, size = Times(), means.say, sum(each.bytes for each in taken.contents.databases)
    say(
        f"{taken.backup_id}: {len(taken.contents.databases)} databases, {size // MB} MB, in {taken.stored_bytes // MB} MB"
    )
    # What can be found out without a cluster comes first: a bad object, a wrong key.
    fetcher.look(taken.objects)
    text = Refill(fetcher, Server(), {}, means.base, "", means.jobs, times).read_globals(taken)
    with scratch.cluster(means.base, drill_id, taken, memory_mb=config.scratch_mb, jobs=means.jobs) as cluster:
        result.versions = versions(cluster)
        fetcher.env = {"PATH": cluster.env["PATH"]}
        refill = Refill(fetcher, cluster.server, cluster.env, cluster.private, cluster.maintenance, means.jobs, times)
        refill.globals(text, scratch.bootstrap_of(taken))
        for each in taken.contents.databases:
            say(f"restoring {each.name} ({each.bytes // MB} MB)")
            refill.database(taken, each.name)
        result.notes += refill.notes
        result.checks += [
            Check(name, PASSED, REQUIRED[name], actual)
            for name, actual in (
                ("objects", f"{len(fetcher.seen)} objects"), ("decryption", ""), ("restore", f"by {means.jobs} jobs"),
            )
        ]  # fmt: skip
        if left := [each.key for each in taken.objects if each.key not in fetcher.seen]:
            raise BackupError("objects", f"{', '.join(left)} belongs to no database", "objects that are used")
        say("comparing with the manifest")
        begun = time.monotonic()
        _verify(cluster, taken, means, result)
        verified = time.monotonic() - begun
    spans = (times.fetch, times.decrypt, times.restore, verified)
    result.steps = Steps(*(int(each * 1000) for each in spans))


def _verify(cluster: scratch.Scratch, taken: Manifest, means: Means, result: Attempt) -> None:
    differences = compare(taken.contents, ask.observe(cluster, taken, jobs=means.jobs))
    stamped = any(each.sentinel for each in taken.contents.databases)
    result.checks += from_comparison(differences, sentinel_stamped=stamped)
    result.checks += ask.sentinel(taken)
    keys, notes = ask.foreign_keys(cluster, taken.contents.databases)
    result.checks += keys
    result.notes += notes
    result.checks += ask.assertions(cluster, taken, means.assertions)
    result.checks += ask.structure(cluster, jobs=means.jobs)


def versions(cluster: scratch.Scratch) -> dict[str, str]:
    """Versions of what took part, for the evidence."""
    from ... import __version__

    found = {"slipway": __version__, "postgresql": cluster.version}
    for name, argv in (("age", ["age", "--version"]), ("zstd", ["zstd", "-qV"])):
        try:
            found[name] = run_program(argv).stdout.strip().splitlines()[0].lstrip("v")
        except (CommandError, IndexError):
            found[name] = "unknown"
    return found
