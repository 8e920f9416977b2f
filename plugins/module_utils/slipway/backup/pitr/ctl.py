# SPDX-License-Identifier: Apache-2.0
"""``slipway pitr``: what a person, playbooks and the units call. Exit codes: 0 good, 1 an error, 3 busy, 4 a drill that
failed, 5 one that is inconclusive."""

from __future__ import annotations

import argparse
import json
import os
import pwd
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from ...commands import run
from ...errors import SlipwayError
from ...host import following
from ...postgres.server import as_user
from .. import config, metrics, unit
from ..codec import canonical, decode, parse_json, to_plain
from ..drills.evidence import Drill
from ..drills.proofs import Proofs, replace
from ..metrics import plain
from ..unit import FAILED, GOOD
from ..verdict import SKIPPED, Check, span
from . import conf as pitr_conf
from . import drill as pitr_drill
from . import pgbackrest as pitr
from . import restore as pitr_restore
from . import run as pitr_run
from . import watch as pitr_watch
from .conf import STATE, Settings

VERDICT, INCONCLUSIVE = 4, 5
OUTCOME, RESTORED = STATE / "drill.json", STATE / "restored.json"
UNITS = {name: f"slipway-pitr-{name}.service" for name in ("backup", "check", "drill", "restore")}


def add(commands: Any) -> None:
    """Add ``pitr`` and its verbs to the command's parsers."""
    verbs = commands.add_parser("pitr", help="going back to a chosen second").add_subparsers(dest="verb", required=True)
    setup = _verb(verbs, "setup", "make the repository this server's (the playbook does it)")
    setup.add_argument(
        "--new-cluster",
        action="store_true",
        help="go on with another cluster: after an upgrade, or a start from nothing",
    )
    backup = _verb(verbs, "backup", "take a base backup now, and follow it")
    backup.add_argument(
        "--type", choices=("auto", "full", "diff"), default="auto", help="auto: full when the last one is old enough"
    )
    _verb(verbs, "list", "what can be gone back to")
    _verb(verbs, "check", "whether it would work if it were needed now; exit code 1 if not")
    drill = _verb(verbs, "drill", "prove it: restore to a second between two rows, and look for both")
    restore = _verb(verbs, "restore", "go back to a second: one database under a new name, or the whole server")
    for one in (drill, restore):
        one.add_argument(
            "--to-time", default="", metavar="TIME", required=one is restore, help="such as 2026-01-31T12:00:00Z"
        )
        one.add_argument(
            "--timeline",
            type=int,
            default=0,
            help="an older timeline, to undo an earlier restore (default: the newest)",
        )
    for one in (backup, drill, restore):
        one.add_argument("--here", action="store_true", help="in this process: what the unit does")
    check = verbs.choices["check"]
    check.add_argument(
        "--timer", action="store_true", help="as the timer does: keep what is found, and tell problems once"
    )
    restore.add_argument("--database", default="", help="the database to bring back under a new name")
    restore.add_argument("--into", default="", metavar="NAME", help="its new name (default: the old one and the time)")
    restore.add_argument("--whole-server", action="store_true", help="put the whole server back, in its place")
    restore.add_argument(
        "--confirm", default="", metavar="HOST", help="with --whole-server: this server's name, typed out"
    )
    restore.add_argument("--plan", action="store_true", help="only say what would be done")
    _verb(verbs, "record", "put the last drill on record (systemd calls it as root when the drill ends)")


def _verb(verbs: Any, name: str, text: str) -> argparse.ArgumentParser:
    return unit.verb(verbs, name, text, pitr_conf.FILE)


def main(arguments: argparse.Namespace) -> int:
    """Run a verb; the exit code. Every SlipwayError becomes one message."""
    os.chdir("/")  # postgres may not enter where root stands
    return unit.told(
        lambda: _VERBS[arguments.verb](pitr_conf.load(arguments.config), arguments), as_json=arguments.json
    )


def _through_unit(arguments: argparse.Namespace, request: dict[str, Any]) -> int:
    """A person asks: the unit does it, with its user and its limits, and goes on when the connection ends."""
    name = UNITS[arguments.verb]
    unit.check_idle(name, name)
    following.ask(f"pitr-{arguments.verb}", {"by": unit.login(), **request})
    return unit.follow(name, (lambda _text: None) if arguments.json else None)


def _setup(settings: Settings, arguments: argparse.Namespace) -> int:
    done = pitr_run.setup(settings, new_cluster=arguments.new_cluster)
    found = pitr_run.info(settings)
    if arguments.json:
        print(json.dumps({"changed": bool(done), "done": done, "backups": len(found.backups)}))
    else:
        _say(done or "The repository is this server's already.")
    return GOOD


def _backup(settings: Settings, arguments: argparse.Namespace) -> int:
    if not arguments.here:
        return _through_unit(arguments, {"type": arguments.type})
    kind = str(unit.asked("pitr-backup").get("type", "")) or arguments.type
    if kind == "auto":
        kind = pitr_watch.kind_due(settings, pitr_run.look(settings, _now()), _now())
    _say(f"base backup: {kind}")
    done = pitr_run.call(settings, f"--type={kind}", "backup", timeout=None)
    for line in done.stdout.splitlines():
        _say(line.partition("INFO: ")[2] or line)
    pitr_watch.keep(settings, pitr_watch.check(settings, pitr_watch.load(), deep=True, now=_now()))
    return GOOD


def _list(settings: Settings, arguments: argparse.Namespace) -> int:
    repo = pitr_run.look(settings, _now())
    if arguments.json:
        print(json.dumps(to_plain({
            "repository": str(settings.repository), "timelines": list(repo.archive.timelines), "windows": list(repo.windows),
            "backups": list(repo.info.backups), "segments": len(repo.archive.segments),
        })))  # fmt: skip
        return GOOD
    _say(f"{settings.repository}, stanza {settings.stanza}")
    for window in repo.windows:
        _say(
            f"  any second from {window}"
            + (f"; then WAL segment {window.missing} is missing" if window.missing else "")
        )
    if not repo.windows:
        _say("  nothing can be gone back to yet")
    for base in repo.info.backups:
        _say(
            f"  {base.label:<34} {base.kind:<5} ended {pitr.shown(base.stopped)}  {base.bytes // 1024**2} MB, stored {base.stored_bytes // 1024**2} MB"
        )
    if len(repo.archive.timelines) > 1:
        _say(f"  timelines {', '.join(map(str, repo.archive.timelines))}: an older one is chosen by --timeline")
    return GOOD


def _check(settings: Settings, arguments: argparse.Namespace) -> int:
    before = pitr_watch.load()
    seen = pitr_watch.check(settings, before, deep=not arguments.timer, now=_now())
    tell = bool(seen.problems)
    if arguments.timer:
        seen, tell = pitr_watch.told(before, seen)
        for complaint in pitr_watch.keep(settings, seen):
            print(f"slipway: {complaint}", file=sys.stderr)
    if arguments.json:
        print(json.dumps({"good": not seen.problems, **to_plain(seen)}))
        return FAILED if tell else GOOD
    for problem in seen.problems:
        _say(f"problem: {problem}")
    if not seen.problems and seen.oldest and seen.last_archived:
        age = int((seen.at - seen.last_archived).total_seconds() * 1000)
        hole = ", but for a gap that 'slipway pitr list' shows" if seen.gap else ""
        _say(
            f"Any second since {pitr.shown(seen.oldest)} can be gone back to{hole}; the newest WAL arrived {span(max(0, age))} ago."
        )
    return FAILED if tell else GOOD


def _drill(settings: Settings, arguments: argparse.Namespace) -> int:
    if not arguments.here:
        code = _through_unit(arguments, {"to_time": arguments.to_time, "timeline": arguments.timeline})
        if arguments.json and OUTCOME.exists():
            print(OUTCOME.read_text(encoding="utf-8"))
        return code
    request = unit.asked("pitr-drill")
    text = str(request.get("to_time", "")) or arguments.to_time
    OUTCOME.unlink(missing_ok=True)
    drill = pitr_drill.run_drill(
        settings, str(request.get("by", "")) or pitr_drill.started_by(), _say, pitr.parse_time(text) if text else None,
        int(request.get("timeline", 0) or arguments.timeline),
    )  # fmt: skip
    replace(OUTCOME, canonical(drill), 0o644)
    for line in summary(drill):
        _say(line)
    metrics.write(config.METRICS, "pitr_drill", lambda: gauges(drill))
    return {"proved": GOOD, "failed": VERDICT}.get(drill.verdict, INCONCLUSIVE)


def summary(drill: Drill) -> Iterator[str]:
    """What a person wants to know, in lines."""
    yield f"Drill {drill.drill_id}: {drill.verdict}"
    for check in drill.checks:
        yield f"  {check.status:<8} {check.name}: {check.actual or check.expected}"
    if found := drill.recovery:
        yield (
            f"  RTO {span(found.rto_ms)} (target {span(found.rto_target_ms)}), RPO now {span(found.rpo_now_ms)}, "
            f"at worst {span(found.rpo_worst_ms)} (target {span(found.rpo_target_ms)})"
        )
        yield from (f"  missed: {miss}" for miss in found.misses)


def gauges(drill: Drill) -> list[metrics.Metric]:
    """The drill for Prometheus."""
    found = [
        plain("slipway_pitr_drill_timestamp_seconds", "End of the last drill.", drill.finished.timestamp()),
        plain("slipway_pitr_drill_proved", "Whether the last drill proved a recovery to a chosen second.", int(drill.verdict == "proved")),
    ]  # fmt: skip
    if each := drill.recovery:
        found += [
            plain("slipway_pitr_drill_rto_seconds", "Measured time until the data was back.", each.rto_ms / 1000),
            plain("slipway_pitr_drill_rpo_seconds", "Data at risk at worst, as measured.", each.rpo_worst_ms / 1000),
        ]
    return found


def _record(settings: Settings, _arguments: argparse.Namespace) -> int:
    """By root, after the drill: its record goes into the chain of all drills, which belongs to another user than postgres."""
    try:
        drill = decode(Drill, parse_json(OUTCOME.read_bytes(), str(OUTCOME)), str(OUTCOME))
    except FileNotFoundError:
        now = _now()
        checks = tuple(
            Check(name, SKIPPED, asks, "the drill was killed before its end")
            for name, asks in pitr_drill.REQUIRED.items()
        )
        drill = Drill(
            now.strftime("pitr-%Y%m%d-%H%M%S"), settings.host, "unknown", now, now, "inconclusive", (), checks, {},
            kind="pitr",
        )  # fmt: skip
    store, by = None, ""
    try:
        told = config.load()
        by = told.drill_host
        store = config.store(told, "evidence")
    except SlipwayError as error:
        print(f"slipway: no copy of the evidence is kept in a store: {error}", file=sys.stderr)
    proofs = Proofs(config.DRILLS, store, settings.host, by=by)
    if any(each.drill and each.drill.drill_id == drill.drill_id for each in proofs.drills()):
        return GOOD
    with _owner():
        head, warnings = proofs.add(drill, _now())
    for warning in [*warnings, *proofs.anchor(head, _now())]:
        print(f"slipway: {warning}", file=sys.stderr)
    _say(f"record {head.number}, SHA-256 {head.sha256}")
    return GOOD


@contextmanager
def _owner() -> Iterator[None]:
    """As the user of the drills, where there is one: the chain's files are theirs."""
    try:
        pwd.getpwnam("slipway-drill")
    except KeyError:
        yield
        return
    with as_user("slipway-drill"):
        yield


def _restore(settings: Settings, arguments: argparse.Namespace) -> int:
    if not arguments.here:
        target = _wished(arguments.to_time)
        _asked_well(settings, arguments, target)
        request = {
            name: getattr(arguments, name) for name in ("to_time", "timeline", "database", "into", "whole_server")
        }
        if arguments.plan:
            return _plan(settings, arguments, target)
        RESTORED.unlink(missing_ok=True)
        code = _through_unit(arguments, request)
        if arguments.json and RESTORED.exists():
            print(RESTORED.read_text(encoding="utf-8"))
        return code
    for name, value in unit.asked("pitr-restore").items():
        setattr(arguments, name, value)
    goal = pitr_restore.reach(settings, _wished(arguments.to_time), arguments.timeline, _say)
    if arguments.whole_server:
        done = pitr_restore.whole_server(settings, goal, _say)
        _say(f"The server is back at {goal}. What it held before is in {done.aside}: remove it when nobody misses it.")
        run(["systemctl", "start", "--no-block", UNITS["backup"]], check=False)
    else:
        new = arguments.into or pitr_restore.free_name(arguments.database, goal.target)
        done = pitr_restore.into_database(settings, goal, arguments.database, new, _say)
        _say(f"{arguments.database} as of {goal} is in database {new}.")
    replace(RESTORED, canonical(done), 0o644)
    return GOOD


def _wished(text: str) -> datetime | None:
    """The time asked for; None for ``latest``."""
    return None if text.strip() == "latest" else pitr.parse_time(text)


def _asked_well(settings: Settings, arguments: argparse.Namespace, target: datetime | None) -> None:
    """Whether the request makes sense, before anything is started. Raises PitrError."""
    if bool(arguments.database) == arguments.whole_server:
        raise pitr.PitrError(
            "It was not said what to restore", "--database NAME, or --whole-server", "give one of both"
        )
    if arguments.whole_server and not arguments.plan and arguments.confirm != settings.host:
        raise pitr.PitrError(
            f"The whole server would go back to {pitr.shown(target) if target else 'the end of the WAL'}, and lose what came after",
            f"its name typed out: --confirm {settings.host}", "give it if that is what you want; one database alone: --database",
        )  # fmt: skip


def _plan(settings: Settings, arguments: argparse.Namespace, target: datetime | None) -> int:
    """What would be done: no mark is written, no WAL is moved."""
    now = _now()
    repo = pitr_run.look(settings, now, arguments.timeline)
    last = repo.windows[-1].end if repo.windows else now
    # What is not archived yet would be, before the restore.
    target = target or last
    base = pitr.choose(repo.windows, target if target > now else min(target, last), now)
    what = "the whole server" if arguments.whole_server else arguments.database
    new = "" if arguments.whole_server else arguments.into or pitr_restore.free_name(arguments.database, target)
    if arguments.json:
        print(
            json.dumps(
                {
                    "target": _stamp(target),
                    "base": base.label,
                    "bytes": base.bytes,
                    "what": what,
                    "into": new,
                }
            )
        )
    else:
        _say(f"Would bring {what} back to {pitr.shown(target)} from {base.label} ({base.bytes // 1024**2} MB)" + (f", into database {new}." if new else ", in its place."))  # fmt: skip
    return GOOD


def _stamp(target: datetime) -> str:
    """A time for programs."""
    return target.astimezone(UTC).isoformat()


def _now() -> datetime:
    return datetime.now(UTC)


_VERBS = {
    "setup": _setup, "backup": _backup, "list": _list, "check": _check, "drill": _drill, "restore": _restore, "record": _record,
}  # fmt: skip


def _say(text: str) -> None:
    print(text, flush=True)
