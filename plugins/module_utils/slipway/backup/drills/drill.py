# SPDX-License-Identifier: Apache-2.0
"""A restore drill from its lock to its evidence: newest backup first, the next older one where that failed.

Whatever happens is recorded. A drill that was killed leaves a note that it had begun, and the next one turns that into a
record of its own: inconclusive, since nobody knows.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ... import lock
from ...errors import BusyError, SlipwayError
from ..codec import canonical, decode, parse_json
from ..config import Config
from ..stores.store import StoreError
from ..verdict import PASSED, REQUIRED, SKIPPED, Check, Recovery, recovery
from . import scratch
from .attempt import Attempt, Means, attempt
from .evidence import Drill, Head
from .find import Found, backups
from .proofs import Proofs, replace

TRIES = 3
GOOD, BUSY, FAILED, INCONCLUSIVE = 0, 3, 4, 5


@dataclass(frozen=True)
class Begun:
    """The note of a drill that has begun and not ended."""

    drill_id: str
    host: str
    started_by: str
    started: datetime


@dataclass(frozen=True)
class Outcome:
    """A drill that is over. ``head``: its record's place in the chain; ``warnings``: what did not work beside it."""

    drill: Drill
    head: Head
    warnings: tuple[str, ...] = ()

    @property
    def code(self) -> int:
        """The exit code. A proved older backup does not make up for a newest one that failed."""
        if self.drill.verdict == "inconclusive":
            return INCONCLUSIVE
        return FAILED if any(each.verdict == "failed" for each in self.drill.tried) else GOOD


def drill_id(at: datetime, random_hex: str = "") -> str:
    """Sorts by time: ``20260131T030000Z-1f0c9a``; short, since it becomes part of a socket's path."""
    return f"{at:%Y%m%dT%H%M%SZ}-{random_hex or os.urandom(3).hex()}"


def run(
    config: Config,
    means: Means,
    proofs: Proofs,
    *,
    state: Path,
    started_by: str,
    only: str = "",
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Outcome:
    """One drill. ``only``: a backup's id, instead of the newest. ``state``: folder of the lock and of what has begun.

    Raises BusyError when another one runs; for everything else there is an outcome, KeyboardInterrupt included.
    """
    # As root the scratch server runs as another user, who has to get through to its folder.
    state.mkdir(mode=0o751 if os.geteuid() == 0 else 0o750, parents=True, exist_ok=True)
    begun = Begun(drill_id(clock()), socket.gethostname(), started_by, clock())
    note = {"who": started_by, "since": f"{begun.started:%Y-%m-%d %H:%M:%S} UTC", "what": f"drill {begun.drill_id}"}
    try:
        with lock.held(state / "lock", "The restore drill", note):
            warnings = [*_sweep(means.base), *_close_dead(state, proofs, clock())]
            replace(state / "running.json", canonical(begun))
            drill = _drill(config, means, begun, only, clock)
            head, more = proofs.add(drill, clock())
            (state / "running.json").unlink(missing_ok=True)
    except lock.BusyError as error:
        holder = error.holder
        raise BusyError(
            f"A restore drill runs already: {holder.get('what', 'one')} by {holder.get('who', 'somebody')} since {holder.get('since', 'a moment ago')}",
            "one at a time", "wait for its end: 'slipway drill show' tells how it went",
        ) from error  # fmt: skip
    return Outcome(drill, head, (*warnings, *more))


def _sweep(base: Path) -> list[str]:
    return [f"removed what a drill that was killed left: {name}" for name in scratch.sweep(base)]


def _close_dead(state: Path, proofs: Proofs, now: datetime) -> list[str]:
    """A record for the drill that had begun and was killed."""
    path = state / "running.json"
    try:
        dead = decode(Begun, parse_json(path.read_bytes(), str(path)), str(path))
    except FileNotFoundError:
        return []
    except SlipwayError:  # cut off while it was written: nothing had begun yet
        path.unlink()
        return []
    _head, warnings = proofs.add(_unfinished(dead, now, "the drill was killed before its end"), now)
    path.unlink()
    return [f"drill {dead.drill_id} was killed: recorded as inconclusive", *warnings]


def _unfinished(begun: Begun, now: datetime, reason: str, attempts: tuple[Attempt, ...] = ()) -> Drill:
    checks = tuple(Check(name, SKIPPED, asks, reason) for name, asks in REQUIRED.items())
    return Drill(
        begun.drill_id, begun.host, begun.started_by, begun.started, max(now, begun.started), "inconclusive",
        tuple(each.tried for each in attempts), checks, {},
    )  # fmt: skip


def _drill(config: Config, means: Means, begun: Begun, only: str, clock: Callable[[], datetime]) -> Drill:
    attempts: list[Attempt] = []
    try:
        try:
            found = _choose(backups(means.store, config.host), only)
        except StoreError as error:
            return _unfinished(begun, clock(), f"the store could not be read: {error}")
        if not found:
            what = f"backup {only}" if only else f"any backup of {config.host}"
            return _unfinished(begun, clock(), f"there is not {what} in {config.place}")
        for each in found[:TRIES]:
            one = attempt(config, each, begun.drill_id, means, begun.started)
            attempts.append(one)
            verdict = one.judge()
            means.say(f"{each.id}: {verdict.verdict}")
            if verdict.verdict != "failed":
                break
    except KeyboardInterrupt:
        means.say("stopped")
        return _unfinished(begun, clock(), "the drill was stopped", tuple(attempts))
    last = attempts[-1]
    notes = [note for each in attempts for note in each.notes]
    return Drill(
        begun.drill_id, begun.host, begun.started_by, begun.started, clock(), last.tried.verdict,
        tuple(each.tried for each in attempts), tuple(last.checks), last.versions, last.steps,
        _recovery(config, last, begun.started), tuple(dict.fromkeys(notes)),
        findings=tuple(dict.fromkeys(line for each in attempts for line in each.findings)),
    )  # fmt: skip


def _choose(found: list[Found], only: str) -> list[Found]:
    return [each for each in found if each.id == only] if only else found


def _recovery(config: Config, last: Attempt, started: datetime) -> Recovery | None:
    taken = last.manifest
    if last.tried.verdict != "proved" or taken is None or last.steps is None:
        return None
    return recovery(
        config.tier, last.steps, drilled=started, taken=taken.taken, finished=max(taken.finished, taken.taken),
        interval=config.interval, target=config.targets(),
    )  # fmt: skip


def summary(outcome: Outcome) -> list[str]:
    """What a person wants to know, in lines."""
    from ..verdict import span

    drill = outcome.drill
    lines = [f"Drill {drill.drill_id}: {drill.verdict}"]
    for each in drill.tried:
        lines.append(f"  {each.backup_id}  of {each.taken:%Y-%m-%d %H:%M} UTC  {each.verdict}")
        lines += [f"    - {reason}" for reason in each.reasons]
    if not drill.tried:
        lines += [f"  - {each.actual}" for each in drill.checks[:1]]
    passed = sum(each.status == PASSED for each in drill.checks)
    lines.append(f"  {passed} of {len(drill.checks)} checks passed")
    if drill.recovery:
        found = drill.recovery
        lines.append(f"  RTO {span(found.rto_ms)} (target {span(found.rto_target_ms)}), RPO now {span(found.rpo_now_ms)},"
                     f" at worst {span(found.rpo_worst_ms)} (target {span(found.rpo_target_ms)})")  # fmt: skip
        lines += [f"  missed: {miss}" for miss in found.misses]
    lines += [f"  finding: {each}" for each in drill.findings]
    lines += [f"  note: {each}" for each in drill.notes]
    lines += [f"  warning: {each}" for each in outcome.warnings]
    return [*lines, f"  record {outcome.head.number}, SHA-256 {outcome.head.sha256}"]


def as_json(outcome: Outcome) -> str:
    """The same for programs."""
    record = json.loads(canonical(outcome.drill))
    head = {"number": outcome.head.number, "sha256": outcome.head.sha256}
    return json.dumps({"drill": record, "record": head, "warnings": outcome.warnings, "code": outcome.code}, indent=1)
