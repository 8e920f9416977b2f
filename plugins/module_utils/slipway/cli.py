# SPDX-License-Identifier: Apache-2.0
"""The ``slipway`` command on a server: what a person, ``fab`` and the systemd units call."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from types import FrameType
from typing import Any

from . import __version__, lock
from .backup import ctl as backupctl
from .backup.drills import ctl as drillctl
from .backup.pitr import ctl as pitrctl
from .backup.restores import ctl as restorectl
from .climb import record as climbs
from .deploy import ctl as appctl
from .deploy import images
from .deploy.colours import Interrupted
from .deploy.docker import Docker
from .deploy.engine import Engine
from .deploy.releases import STATES, Store
from .deploy.state import Record
from .deploy.switch import Switch
from .errors import SlipwayError
from .journal import JOURNAL, tail
from .redis import ctl as redisctl


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="slipway", description="Slipway's agent on this server.")
    parser.add_argument("--version", action="version", version=f"slipway {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    app = commands.add_parser("app", help="the applications of this server").add_subparsers(dest="verb", required=True)
    for verb, text in {
        "deploy": "deploy what the last playbook laid down, and follow it",
        "rollback": "go back to the previous good release, or to --release",
        "status": "what serves, and how it is",
        "releases": "the releases that are kept",
        "recover": "finish or undo what a crash cut off (all apps when none is named)",
        "images": "load or build the images that were sent before Docker ran (started with Docker)",
        "run": "the engine itself: started by slipway-deploy@APP.service",
        "keep": "start what should run and does not, make the switch what the state says (started by a timer)",
        "switch": "make the switch what the state says (started at boot)",
    }.items():
        one = app.add_parser(verb, help=text, description=text)
        if verb in ("deploy", "rollback", "run", "releases"):
            one.add_argument("app")
        if verb in ("status", "recover"):
            one.add_argument("app", nargs="?", default="")
        if verb in ("deploy", "rollback"):
            one.add_argument("--operator", default="", help="who asks (default: the login behind sudo)")
        if verb == "deploy":
            one.add_argument("--force", action="store_true", help="also when exactly this serves already")
        if verb == "rollback":
            one.add_argument("--release", default="", help="the release to go back to")
        if verb in ("status", "releases"):
            one.add_argument("--json", action="store_true", help="for programs")
    backupctl.add(commands)
    drillctl.add(commands)
    restorectl.add(commands)
    pitrctl.add(commands)
    redisctl.add(commands)
    status = commands.add_parser("status", help="everything that can be seen of this server")
    status.add_argument("--json", action="store_true", help="for programs")
    journal = commands.add_parser("journal", help="who did what, newest last")
    journal.add_argument("--lines", type=int, default=20)
    return parser


def _stop(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Interrupted


def _names(name: str) -> list[str]:
    """The app named, or all that were ever asked for on this host."""
    return [name] if name else sorted({path.parent.name for path in STATES.glob("*/state.json")})


def _run(name: str) -> int:
    signal.signal(signal.SIGTERM, _stop)
    # The keeper, or somebody asking whether the lock is free, may hold it for a moment.
    deadline = time.monotonic() + appctl.KEEPER_SECONDS
    while True:
        try:
            record = Engine(Store(name), say=_say).run()
        except lock.BusyError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
        else:
            # How a deploy ended is in its record; the unit fails only when there is none.
            return 0 if record is None or record.over else 1


def _say(text: str) -> None:
    print(text, flush=True)


def _follow(name: str, request: str) -> int:
    shown = 0
    while True:
        record = appctl.wait(Store(name), request, phases=shown + 1)
        if record is None:
            continue
        ended = [phase for phase in record.phases if phase.status != "running"]
        for phase in ended[shown:]:
            _say(f"  {phase.name:<16} {phase.status:<8} {phase.detail}")
        shown = len(ended)
        if record.over:
            return _verdict(record)


def _verdict(record: Record) -> int:
    if record.result in ("succeeded", "superseded"):
        _say(f"{record.release} serves.")
        return 0
    raise appctl.failure(record)


def _look_after(verb: str, name: str) -> None:
    """What systemd calls at boot, by a timer, and when Docker starts."""
    if verb == "recover":
        for app in _names(name):
            if appctl.unfinished(Store(app)):
                appctl.start_unit(app)
    elif verb == "images":
        waiting = sorted(path.parent.name for path in STATES.glob("*/incoming"))
        images.bring_waiting(map(Store, waiting), Docker(), _say)
    else:
        for app in _names("") if verb == "keep" else []:
            if mended := appctl.keep(Store(app)):
                _say(mended if sys.stdout.isatty() else f"<5>{mended}")  # a notice, to systemd
        switch = Switch()
        with switch.guarded():
            switch.apply(Store("").routes())


def _app(arguments: argparse.Namespace) -> int:
    verb = arguments.verb
    if verb == "run":
        return _run(arguments.app)
    if verb in ("switch", "keep", "images", "recover"):
        _look_after(verb, getattr(arguments, "app", ""))
        return 0
    if verb in ("deploy", "rollback"):
        operator = arguments.operator or appctl.login()
        request, _ = appctl.ask(
            Store(arguments.app), verb, operator, release=getattr(arguments, "release", ""),
            force=getattr(arguments, "force", False),
        )  # fmt: skip
        return _follow(arguments.app, request)
    found = [appctl.status(Store(name)) for name in _names(arguments.app)]
    if verb == "releases":
        return _releases(found[0]["releases"], arguments.json)
    if arguments.json:
        _say(json.dumps({"apps": found}, indent=1))
    else:
        for item in found:
            _say(appctl.line(item))
    return 0


def _releases(found: list[dict[str, Any]], as_json: bool) -> int:
    if as_json:
        _say(json.dumps({"releases": found}, indent=1))
        return 0
    for item in found:
        mark = "*" if item["serving"] else " "
        _say(f"{mark} {item['id']}  {item['image']}  {'good' if item['good'] else '-'}  by {item['operator']}")
    return 0


_COMMANDS = {
    "app": _app,
    "backup": backupctl.main,
    "drill": drillctl.main,
    "restore": restorectl.main,
    "pitr": pitrctl.main,
    "redis": redisctl.main,
}


def main(argv: Sequence[str] | None = None) -> int:
    """The command; its exit code. One message on stderr when something is wrong, never a traceback."""
    arguments = _parser().parse_args(argv)
    try:
        if arguments.command in _COMMANDS:
            return _COMMANDS[arguments.command](arguments)
        if arguments.command == "journal":
            for entry in tail(JOURNAL, arguments.lines):
                _say(json.dumps(entry))
            return 0
        found = [appctl.status(Store(name)) for name in _names("")]
        backups = backupctl.status(datetime.now(UTC))
        if arguments.json:
            whole = {"version": __version__, "apps": found, "backups": backups, "journal": tail(JOURNAL, 5)}
            whole["redis"] = redisctl.summary()
            whole["climbs"] = climbs.status(climbs.Records())
            _say(json.dumps(whole, indent=1))
        else:
            for item in found:
                _say(appctl.line(item))
            if backups is not None:
                _say(backupctl.line(backups))
            for one in redisctl.look(redisctl.known()):
                _say(redisctl.line(one))
            if told := climbs.line(climbs.status(climbs.Records())):
                _say(told)
    except SlipwayError as error:
        print(f"slipway: {error}", file=sys.stderr)
        return 1
    except PermissionError as error:
        print(
            f"slipway: {error.filename} cannot be read. To mend it: run it as root (sudo slipway ...).", file=sys.stderr
        )
        return 1
    except KeyboardInterrupt:
        print("slipway: stopped looking; what was started goes on (slipway status).", file=sys.stderr)
        return 130
    return 0
