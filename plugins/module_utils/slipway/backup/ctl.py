# SPDX-License-Identifier: Apache-2.0
"""``slipway backup``: what a person, ``fab`` and the units call."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ..host import following
from . import alarms, config, unit, view
from .codec import to_plain
from .config import Config, ConfigError
from .drills import drill
from .drills.proofs import Proofs
from .keeping import listing, prune, retention
from .stopping import by_signals
from .stores import setupcheck
from .stores.s3 import S3Store
from .stores.store import Store
from .taking import runs, take
from .unit import FAILED, GOOD
from .verdict import span

UNIT = "slipway-backup.service"


def add(commands: Any) -> None:
    """Add ``backup`` and its verbs to the command's parsers."""
    verbs = commands.add_parser("backup", help="the backups of this server").add_subparsers(dest="verb", required=True)
    run = _verb(verbs, "run", "take a backup now, and follow it")
    run.add_argument("--here", action="store_true", help=f"in this process: what {UNIT} does")
    run.add_argument("--hold", default="", metavar="WHY", help="retention keeps it until somebody lets it go")
    _verb(verbs, "list", "the backups, newest first, with size, duration, age and proof")
    show = _verb(verbs, "show", "one backup in full")
    show.add_argument("id", nargs="?", default="latest", help="its id (default: the newest whole one)")
    _verb(verbs, "check", "whether the newest backup is young, whole and of a plausible size; exit code 1 if not")
    pruning = _verb(
        verbs, "prune", "what retention would remove; with --yes it is removed (the pruner's key is needed)"
    )
    pruning.add_argument("--dry-run", action="store_true", help="only show it: the default")
    pruning.add_argument("--yes", action="store_true", help="remove it")
    release = _verb(verbs, "release", "let go of a backup that --hold keeps (the pruner's key is needed)")
    release.add_argument("id", help="its id")
    _verb(verbs, "verify-setup", "try that the writer's key can write, and can neither read, list nor destroy")
    alarm = _verb(verbs, "alarm", "tell that a unit ended badly without having told so itself (systemd calls it)")
    alarm.add_argument("--unit", required=True, help="the unit")


def _verb(verbs: Any, name: str, text: str) -> argparse.ArgumentParser:
    return unit.verb(verbs, name, text, config.FILE)


def main(arguments: argparse.Namespace) -> int:
    """Run a verb; the exit code. Every SlipwayError becomes one message."""
    return unit.told(lambda: _verb_of(arguments), as_json=arguments.json)


def _verb_of(arguments: argparse.Namespace) -> int:
    if arguments.verb == "run" and not arguments.here:
        return _start(arguments)
    return _VERBS[arguments.verb](config.load(arguments.config), arguments)


def _start(arguments: argparse.Namespace) -> int:
    """A person asks: the unit does it, with its user, its keys and its limits."""
    config.load(arguments.config)
    unit.check_idle(UNIT, "A backup")
    following.ask("backup", {"by": unit.login(), "hold": arguments.hold})
    code = unit.follow(UNIT, (lambda _text: None) if arguments.json else None)
    if arguments.json and (known := runs.records(config.STATE)):
        print(json.dumps(to_plain(known[-1])))
    return code


def _run(settings: Config, arguments: argparse.Namespace) -> int:
    request = unit.asked("backup")
    by = str(request.get("by", "")) or ("" if request or _by_systemd() else unit.login())
    around = take.Around(
        by=by, hold=arguments.hold or str(request.get("hold", "")), say=_quiet if arguments.json else _say
    )
    with by_signals(around.stop):
        done = take.run(
            settings, lambda: config.store(settings, "writer"), around, alarms.load() if settings.alarms else None
        )
    if arguments.json:
        print(json.dumps(to_plain(done)))
        return GOOD
    for text in done.warnings:
        _say(f"warning: {text}")
    _say(
        f"{done.id}: {len(done.databases)} databases, {view.size(done.stored_bytes)} in {settings.place}, "
        f"{span(done.duration_ms)}, snapshot held {span(done.held_ms)}"
    )
    return GOOD


def _by_systemd() -> bool:
    return "INVOCATION_ID" in os.environ


def _reading(settings: Config) -> Store | None:
    """The store opened for looking, by whichever key here can; None where none can."""
    if settings.place.kind == "directory" or config.key("reader") is not None:
        return config.store(settings, "reader")
    return config.store(settings, "pruner") if config.key("pruner") is not None else None


def _rows(settings: Config) -> tuple[list[view.Row], str, list[str]]:
    """(Rows, where they are from in words, notes on the whole)."""
    store = _reading(settings)
    if store is None:
        here = "what this host recorded (no key here may look into the store)"
        return view.from_runs(runs.records(config.STATE)), here, []
    found = listing.read(store, settings.host)
    return view.from_store(found), f"the manifests in {settings.place}", list(found.notes)


def _list(settings: Config, arguments: argparse.Namespace) -> int:
    rows, source, notes = _rows(settings)
    now = datetime.now(UTC)
    if arguments.json:
        backups = [row.to_dict(now) for row in rows]
        print(json.dumps({"host": settings.host, "source": source, "notes": notes, "backups": backups}))
        return GOOD
    _say("\n".join([view.table(rows, now, source=source), *notes]))
    return GOOD


def _show(settings: Config, arguments: argparse.Namespace) -> int:
    store = _reading(settings)
    if store is None:
        known = {each.id: each for each in runs.records(config.STATE)}
        run = known.get(arguments.id) or next((each for each in reversed(known.values()) if each.good), None)
        if run is None or arguments.id not in ("latest", run.id):
            raise ConfigError(
                f"This host has no record of a backup {arguments.id}", "one that 'slipway backup list' names"
            )
        _say(json.dumps(to_plain(run), indent=None if arguments.json else 1))
        return GOOD
    backup = listing.read(store, settings.host).named(arguments.id)
    if backup is None:
        raise ConfigError(
            f"There is no backup {arguments.id} in {settings.place}", "one that 'slipway backup list' names"
        )
    if arguments.json:
        made = to_plain(backup.manifest)
        print(json.dumps({"id": backup.id, "whole": backup.whole, "problem": backup.problem, "proof": backup.proof,
                          "held": backup.held, "notes": list(backup.notes), "manifest": made}))  # fmt: skip
    else:
        _say(view.full(backup))
    return GOOD


def _check(settings: Config, arguments: argparse.Namespace) -> int:
    rows, source, notes = _rows(settings)
    try:
        known = runs.records(config.STATE)
    except runs.StateError:  # on another host, or not for this user: the store says enough
        known = []
    found = view.judge(settings, rows, known, datetime.now(UTC))
    if arguments.json:
        print(json.dumps({**found.to_dict(), "source": source, "notes": notes}))
    else:
        for text in found.problems:
            _say(f"problem: {text}")
        for text in (*found.warnings, *notes):
            _say(f"warning: {text}")
        if not found.problems:
            _say(f"Backups are as they should be: {found.newest} is {span(found.age_s // 60 * 60_000)} old, limit {span(found.limit_s * 1000)}; by {source}.")  # fmt: skip
    return FAILED if found.problems else GOOD


def _prune(settings: Config, arguments: argparse.Namespace) -> int:
    store = config.store(settings, "pruner")
    chosen = prune.plan(store, settings, datetime.now(UTC))
    doing = arguments.yes and not arguments.dry_run
    if not arguments.json:
        _say("\n".join([retention.render(chosen.plan), *chosen.found.notes]))
    done = prune.apply(store, chosen, _quiet if arguments.json else _say) if doing else None
    if doing:  # what 'verify-setup' left; not of one that is at it now
        setupcheck.sweep(store, settings.host, before=datetime.now(UTC) - timedelta(hours=1))
    if arguments.json:
        print(json.dumps({"plan": chosen.to_dict(), "done": done.to_dict() if done else None}))
    elif done is None and chosen.doomed:
        _say(f"Nothing was removed; {view.size(chosen.bytes)} would be. To remove it: slipway backup prune --yes")
    return FAILED if done is not None and done.kept else GOOD


def _release(settings: Config, arguments: argparse.Namespace) -> int:
    if not prune.release(config.store(settings, "pruner"), settings.host, arguments.id):
        raise ConfigError(f"Backup {arguments.id} is not held", "one that 'slipway backup list' shows as held")
    if arguments.json:
        print(json.dumps({"released": arguments.id}))
    else:
        _say(f"{arguments.id} is held no longer: retention decides.")
    return GOOD


def _verify(settings: Config, arguments: argparse.Namespace) -> int:
    if settings.place.kind != "s3":
        _say("The store is a directory: there are no keys to verify.")
        return GOOD
    now = datetime.now(UTC)
    name = f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
    store = config.store(settings, "writer")
    tries, found = setupcheck.writer(store, settings.host, name), setupcheck.Locks(now)
    if settings.place.lock_mode and isinstance(store, S3Store):
        found = setupcheck.locks(store, settings.host, name, setupcheck.shortest(settings.place.lock_mode, now))
    tries += found.tries
    good = all(each.good for each in tries)
    left = [f"{settings.host}/{setupcheck.FOLDER}/{name}", *found.left]
    if arguments.json:
        shown = [{**each.__dict__, "good": each.good} for each in tries]
        until = found.until.isoformat()
        print(json.dumps({"good": good, "tries": shown, "notes": found.notes, "left": left, "locked_until": until}))
    else:
        held = f", the locked ones until {found.until:%H:%M:%S} UTC" if found.left else ""
        _say("\n".join([setupcheck.render(tries), *found.notes]))
        _say(
            f"A few bytes stay, since this key may not destroy{held}: {', '.join(left)}. Pruning and set_up_bucket.yml remove them."
        )
    return GOOD if good else FAILED


def _alarm(settings: Config, arguments: argparse.Namespace) -> int:
    """For systemd's OnFailure: a run that ended itself has told already, one that was killed could not."""
    name = arguments.unit.removesuffix(".service")
    subject = "backup" if name == UNIT.removesuffix(".service") else name.removeprefix("slipway-")
    dead = ""
    if subject == "backup":
        dead = take.bury(settings, take.Around())
        if not dead and (runs.running(config.STATE) or _told(datetime.now(UTC))):
            return GOOD
    if subject == "drill" and _drill_told(datetime.now(UTC)):
        return GOOD
    text = dead or f"The unit {name} of {settings.host} failed{_how()}: see journalctl -u {name}"
    _say(text)  # in the journal, where nobody is told otherwise
    complaints = alarms.send(alarms.load() if settings.alarms else None, alarms.Event(subject, settings.host, "failed", text))  # fmt: skip
    for each in complaints:
        print(f"slipway: {each}", file=sys.stderr)
    return FAILED if complaints else GOOD


def _told(now: datetime) -> bool:
    """Whether the last run has just ended badly, and so has recorded and told it itself."""
    known = runs.records(config.STATE)
    return bool(known) and not known[-1].good and now - known[-1].finished < timedelta(minutes=5)


def _how() -> str:
    """How the unit ended, where systemd tells its alarm so."""
    result, status = os.environ.get("MONITOR_SERVICE_RESULT", ""), os.environ.get("MONITOR_EXIT_STATUS", "")
    known = {
        "signal": "it was killed",
        "core-dump": "it crashed",
        "oom-kill": "it ran out of memory",
        "timeout": "it took too long",
    }
    if result == "exit-code":
        return f" (it ended with code {status})"
    return f" ({known.get(result, result)})" if result else ""


def _drill_told(now: datetime) -> bool:
    """Whether the drill came to a verdict and so told it itself: a bad one is a failure to systemd as well.

    systemd says how the unit ended; a person who calls this has only what the drill left behind.
    """
    if os.environ.get("MONITOR_SERVICE_RESULT") == "exit-code":
        return os.environ.get("MONITOR_EXIT_STATUS") in (str(drill.FAILED), str(drill.INCONCLUSIVE))
    if (config.DRILLS / "running.json").exists():
        return False
    known = [
        each.drill for each in Proofs(config.DRILLS, None, "").drills() if each.drill and each.drill.kind == "dump"
    ]
    return bool(known) and known[-1].verdict != "proved" and now - known[-1].finished < timedelta(minutes=5)


def status(now: datetime, file: Path = config.FILE) -> dict[str, Any] | None:
    """What ``slipway status`` tells of backups, by this host's own records; None where none are set up.

    ``drills_here``: whether the identity that opens backups is on this host, sealed. Raises SlipwayError.
    """
    if not file.exists():
        return None
    settings = config.load(file)
    known = runs.records(config.STATE)
    good = next((each for each in reversed(known) if each.good), None)
    at_work = runs.running(config.STATE)
    taken = (good.taken or good.started) if good else None
    return {
        "place": str(settings.place), "tier": settings.tier, "newest": good and good.id,
        "age_s": None if taken is None else int((now - taken).total_seconds()),
        "stored_bytes": good and good.stored_bytes, "warnings": list(good.warnings) if good else [],
        "last_good": known[-1].good if known else None, "reason": known[-1].reason if known else "",
        "running": at_work and at_work.id,
        "drills_here": any((config.CREDENTIALS / name).exists() for name in ("identity.cred", "identity")),
        "problems": list(view.judge(settings, view.from_runs(known), known, now).problems),
    }  # fmt: skip


def line(found: dict[str, Any]) -> str:
    """The same on one line."""
    if found["newest"] is None:
        text = "none yet"
    else:
        text = f"{found['newest']}, {span(found['age_s'] // 60 * 60_000)} old, {view.size(found['stored_bytes'])}"
    failed = f"; the last run FAILED: {found['reason']}" if found["last_good"] is False else ""
    drilled = "drills on this host (the identity is here, sealed)" if found["drills_here"] else "drills elsewhere (no identity here)"  # fmt: skip
    return f"backups: {text} in {found['place']}{failed}; {drilled}"


_VERBS = {
    "run": _run, "list": _list, "show": _show, "check": _check, "prune": _prune, "verify-setup": _verify, "release": _release,
    "alarm": _alarm,
}  # fmt: skip


def _say(text: str) -> None:
    print(text, flush=True)


def _quiet(_text: str) -> None:
    """For programs there is the JSON."""
