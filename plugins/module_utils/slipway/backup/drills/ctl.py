# SPDX-License-Identifier: Apache-2.0
"""``slipway drill``: what a person, ``fab`` and the units call."""

from __future__ import annotations

import argparse
import json
import os
import signal
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from ...errors import SlipwayError
from ...host import following
from .. import alarms, config, metrics, unit
from ..codec import to_plain
from ..config import Config
from ..unit import FAILED, GOOD
from ..verdict import span
from . import assertions, drill
from . import watch as drillwatch
from .attempt import Means
from .evidence import Drill, Note
from .evidence_view import markdown
from .proofs import Proofs

UNIT = "slipway-drill.service"


def add(commands: Any) -> None:
    """Add ``drill`` and its verbs to the command's parsers."""
    verbs = commands.add_parser("drill", help="the restore drills").add_subparsers(dest="verb", required=True)
    run = _verb(verbs, "run", "restore the newest backup into a scratch cluster and check it, and follow that")
    run.add_argument("--here", action="store_true", help="in this process: what slipway-drill.service does")
    run.add_argument("--backup", default="", metavar="ID", help="this one instead of the newest")
    run.add_argument("--by", default="", metavar="WHO", help="who or what starts it (default: the login behind sudo)")
    show = _verb(verbs, "show", "one drill in full: the last one, or the one named")
    show.add_argument("id", nargs="?", default="")
    _verb(verbs, "list", "the drills on record, newest first").add_argument("--lines", type=int, default=20)
    _verb(verbs, "verify-chain", "whether any record was altered, dropped or cut off")
    note = _verb(verbs, "note", "add what was done about a drill, or who signs it off")
    note.add_argument("id")
    note.add_argument("--by", required=True, metavar="WHO")
    note.add_argument("--remediation", default="", metavar="TEXT")
    note.add_argument("--sign-off", default="", metavar="TEXT")
    vouch = _verb(
        verbs, "vouch", "record that an earlier chain of this host, made anew since, is what the store's copies say"
    )
    vouch.add_argument("chain", help="its name, as verify-chain says it")
    vouch.add_argument("--by", required=True, metavar="WHO")
    vouch.add_argument("--reason", required=True, metavar="TEXT")
    _verb(verbs, "anchor", "note the chain's head in the host's journal (the unit does it as root after each drill)")


def _verb(verbs: Any, name: str, text: str) -> argparse.ArgumentParser:
    made = unit.verb(verbs, name, text, config.FILE)
    made.add_argument("--state", type=Path, default=config.DRILLS, help=argparse.SUPPRESS)
    return made


def main(arguments: argparse.Namespace) -> int:
    """Run a verb; the exit code. SlipwayErrors become one message."""
    verbs = {
        "run": _run, "show": _show, "list": _list, "verify-chain": _verify, "note": _note, "vouch": _vouch, "anchor": _anchor,
    }  # fmt: skip
    return unit.told(lambda: verbs[arguments.verb](arguments), as_json=arguments.json)


def _say(text: str) -> None:
    print(text, flush=True)


def _quiet(_text: bytes) -> None:
    """Show nothing of the unit's journal."""


def _run(arguments: argparse.Namespace) -> int:
    who = arguments.by or os.environ.get("SUDO_USER", "") or ("root" if os.geteuid() == 0 else "")
    if arguments.here:
        return _run_here(arguments)
    unit.check_idle(UNIT, "A drill")
    following.ask("drill", {"by": who, "backup": arguments.backup})
    code = unit.follow(UNIT, _quiet if arguments.json else None)
    if arguments.json and code != FAILED:
        _show(argparse.Namespace(**{**vars(arguments), "id": ""}))
    return code


def _run_here(arguments: argparse.Namespace) -> int:
    settings = config.load(arguments.config)
    state: Path = arguments.state
    if os.geteuid() == 0 and state.is_dir() and state.stat().st_uid != 0:
        raise SlipwayError(
            f"{state} belongs to the unit's own user, and this is root", "the unit", "run it without --here"
        )
    asked = unit.asked("drill")
    # systemd tells a unit's processes so; without a request it was the timer.
    started_by = arguments.by or str(asked.get("by") or ("timer" if "INVOCATION_ID" in os.environ else "a person"))
    only = arguments.backup or str(asked.get("backup") or "")
    quiet = arguments.json
    proofs = _proofs(settings, arguments.state, after=lambda each: _tell(settings, arguments.state, each))
    means = Means(
        config.store(settings, "reader"), str(config.credential_path("identity") or ""), scratch_of(settings, arguments.state),
        wanted(arguments.config), say=(lambda _text: None) if quiet else _say,
    )  # fmt: skip
    signal.signal(signal.SIGTERM, _stop)
    for text in alarms.send(alarms.load() if settings.alarms else None, alarms.started("drill", settings.host)):
        _say(f"warning: {text}")
    done = drill.run(settings, means, proofs, state=arguments.state, started_by=started_by, only=only)
    if quiet:
        _say(drill.as_json(done))
    else:
        for line in drill.summary(done):
            _say(line)
    return done.code


def _stop(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def scratch_of(settings: Config, state: Path) -> Path:
    """The folder of scratch clusters."""
    return Path(settings.scratch_path) if settings.scratch_path else state / "scratch"


def wanted(file: Path) -> tuple[assertions.Assertion, ...]:
    """The user's assertions, from beside the settings. Raises FormatError."""
    path = file.parent / config.ASSERTIONS.name
    return assertions.read(path.read_bytes(), str(path)) if path.exists() else ()


def _proofs(settings: Config, state: Path, after: Any = None) -> Proofs:
    store = None
    for purpose in ("evidence", "writer"):
        try:
            store = config.store(settings, purpose)
            break
        except (config.ConfigError, PermissionError):
            continue
    return Proofs(state, store, settings.host, after=after, by=settings.drill_host)


def _tell(settings: Config, state: Path, done: Drill) -> Iterable[str]:
    records = Proofs(state, None, settings.host).drills()
    known = [each.drill for each in records if each.drill and each.drill.kind == "dump"]
    yield from metrics.write(config.METRICS, "drill", lambda: drillwatch.metrics(settings, known))
    yield from alarms.send(alarms.load() if settings.alarms else None, drillwatch.event(settings, done))


def _show(arguments: argparse.Namespace) -> int:
    record, digest, notes = Proofs(arguments.state, None, "").find(arguments.id)
    if arguments.json:
        _say(json.dumps({"record": to_plain(record), "sha256": digest, "notes": to_plain(notes)}, indent=1))
    else:
        _say(markdown(record, digest, notes))
    return GOOD


def _list(arguments: argparse.Namespace) -> int:
    found = [each.drill for each in Proofs(arguments.state, None, "").drills() if each.drill][::-1][: arguments.lines]
    if arguments.json:
        _say(json.dumps({"drills": to_plain(found)}, indent=1))
        return GOOD
    if not found:
        _say("No drill is on record yet: slipway drill run")
    for each in found:
        of = each.tried[-1].backup_id if each.tried else "no backup"
        rto = f"RTO {span(each.recovery.rto_ms)}" if each.recovery else ""
        rpo = f"RPO {span(each.recovery.rpo_now_ms)}" if each.recovery else ""
        _say(f"{each.drill_id}  {each.verdict:<12}  {of}  {rto:<16}  {rpo:<18}  by {each.started_by}".rstrip())
    return GOOD


def _reading(arguments: argparse.Namespace, settings: Config) -> Proofs:
    """With the key that reads; where this host has none, one that may only write says so itself."""
    proofs = _proofs(settings, arguments.state)
    try:
        return replace(proofs, store=config.store(settings, "reader"))
    except (config.ConfigError, PermissionError):
        return proofs


def _verify(arguments: argparse.Namespace) -> int:
    found = _reading(arguments, config.load(arguments.config)).verify()
    chain = found.chain
    if arguments.json:
        answer = {
            "whole": chain.whole,
            "records": len(chain.records),
            "problems": chain.problems,
            "not_asked": found.unasked,
        }
        _say(json.dumps({**answer, "earlier": found.earlier, "head": to_plain(chain.head)}, indent=1))
    else:
        for problem in chain.problems:
            _say(f"PROBLEM: {problem}")
        for text in found.unasked:
            _say(f"not asked: {text}")
        for text in found.earlier:
            _say(text)
        _say(f"{len(chain.records)} records, head {chain.head.number} {chain.head.sha256}: "
             + ("whole" if chain.whole else "NOT whole"))  # fmt: skip
    if chain.problems:
        return drill.FAILED
    return drill.INCONCLUSIVE if found.unasked else GOOD


def _vouch(arguments: argparse.Namespace) -> int:
    settings = config.load(arguments.config)
    earlier = _reading(arguments, settings).earlier(arguments.chain, arguments.by, arguments.reason)
    head, warnings = _proofs(settings, arguments.state).add(earlier, datetime.now(UTC))
    if arguments.json:
        _say(json.dumps({"record": to_plain(head), "earlier": to_plain(earlier), "warnings": warnings}))
        return GOOD
    for text in warnings:
        _say(f"warning: {text}")
    _say(
        f"Record {head.number}: the chain {earlier.chain} went before this one and ends with its record {earlier.number}, {earlier.sha256}"
    )
    return GOOD


def _note(arguments: argparse.Namespace) -> int:
    settings = config.load(arguments.config)
    if not (arguments.remediation or arguments.sign_off):
        raise SlipwayError("The note is empty", "--remediation or --sign-off with a text")
    proofs = _proofs(settings, arguments.state)
    record, _digest, _notes = proofs.find(arguments.id)
    about = record.drill.drill_id if record.drill else ""
    note = Note(about, arguments.by, arguments.remediation, arguments.sign_off)
    head, warnings = proofs.add(note, datetime.now(UTC))
    if arguments.json:
        _say(json.dumps({"record": to_plain(head), "about": about, "warnings": warnings}))
        return GOOD
    for text in warnings:
        _say(f"warning: {text}")
    _say(f"Record {head.number} on drill {about}, SHA-256 {head.sha256}")
    return GOOD


def _anchor(arguments: argparse.Namespace) -> int:
    proofs = Proofs(arguments.state, None, "")
    head = proofs.read().head
    if head.number:
        for text in proofs.anchor(head, datetime.now(UTC)):
            _say(f"warning: {text}")
    return GOOD
