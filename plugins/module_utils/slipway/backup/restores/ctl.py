# SPDX-License-Identifier: Apache-2.0
"""``slipway restore``: into a new database, over a live one, single tables, and back.

The long part runs in ``slipway-restore.service``, which has the keys and talks to the server as its own user. What takes
an instant and needs root (the pooler's pause, the renames) is done here, after it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from ... import journal, lock
from ...errors import BusyError, InputError, SlipwayError
from ...host import following
from ...postgres import pooler
from ...postgres import server as pgserver
from .. import config, unit
from ..argv import Server
from ..codec import to_plain
from ..config import Config
from ..drills.proofs import Proofs, replace
from ..taking import source
from ..unit import GOOD
from ..verdict import span
from . import restore, swap
from . import tables as restore_tables
from .restore import Means, Plan, Restored, Wish

UNIT, BACKUP_UNIT = "slipway-restore.service", "slipway-backup.service"
RESULT = "restored.json"
DIFFERENT = 4


def add(commands: Any) -> None:
    """Add ``restore`` to the command's parsers."""
    text = "restore a database from its backup: into a new one, or in the place of the live one"
    made = commands.add_parser("restore", help=text, description=text)
    made.add_argument("verb", nargs="?", default="run", choices=["run", "undo"], help="undo: back to before --over")
    made.add_argument("--database", default="", metavar="NAME", help="the database, as it was named when backed up")
    made.add_argument("--backup", default="latest", metavar="ID", help="an id, latest (default) or proved")
    made.add_argument("--as", dest="name", default="", metavar="NAME", help="name of the new database")
    made.add_argument(
        "--over", default="", metavar="NAME", help="take the live database's place: its exact name, typed"
    )
    made.add_argument(
        "--table", action="append", default=[], metavar="SCHEMA.TABLE", help="this table alone (repeat it)"
    )
    made.add_argument("--plan", action="store_true", help="say what would be done and how long it should take")
    made.add_argument("--no-safety-backup", action="store_true", help="with --over: take none of the live one before")
    made.add_argument("--by", default="", metavar="WHO", help="who asks (default: the login behind sudo)")
    made.add_argument("--here", action="store_true", help="in this process: what slipway-restore.service does")
    made.add_argument("--json", action="store_true", help="for programs")
    made.add_argument("--config", type=Path, default=config.FILE, help=argparse.SUPPRESS)
    made.add_argument("--state", type=Path, default=config.STATE, help=argparse.SUPPRESS)
    made.add_argument("--drills", type=Path, default=config.DRILLS, help=argparse.SUPPRESS)
    made.add_argument("--identity", default="", help=argparse.SUPPRESS)


def main(arguments: argparse.Namespace) -> int:
    """Run it; the exit code. SlipwayErrors become one message."""
    return unit.told(lambda: _verb(arguments), as_json=arguments.json)


def _verb(arguments: argparse.Namespace) -> int:
    if arguments.verb == "undo":
        return _undo(arguments)
    return _here(arguments) if arguments.here else _by_unit(arguments)


def _say(text: str) -> None:
    print(text, flush=True)


def _quiet(_text: bytes) -> None:
    """Show nothing of the unit's journal."""


def check(asked: argparse.Namespace) -> None:
    """Whether what is asked for goes together. Raises InputError."""
    if not asked.database:
        raise InputError("No database is named", "--database NAME")
    if asked.over and asked.over != asked.database:
        raise InputError(
            f"--over is '{asked.over}' and the database is '{asked.database}'", "the exact name of the live database",
            "type it again: its data will be set aside",
        )  # fmt: skip
    if asked.over and (asked.name or asked.table):
        raise InputError("--over goes neither with --as nor with --table", "one of them")
    if asked.table and asked.name:
        raise InputError("--table puts tables into a schema of the live database", "no --as beside it")


def _by_unit(arguments: argparse.Namespace) -> int:
    check(arguments)
    unit.check_idle(UNIT, "A restore")
    settings = config.load(arguments.config)
    asked = {"database": arguments.database, "backup": arguments.backup, "name": arguments.name,
             "tables": arguments.table, "plan": True}  # fmt: skip
    following.ask("restore", asked)
    code = unit.follow(UNIT, _quiet if arguments.json else None)
    planned = _result(arguments) if code == GOOD else {}
    if code or arguments.plan:
        return _answer(arguments, code, planned)
    there = bool(arguments.over) and _exists(settings, arguments.over)
    if there and not arguments.no_safety_backup:
        _safety(arguments)
    # By its id from here on: the safety backup is now the newest, and it holds what is to be got rid of.
    asked |= {"backup": planned["backup_id"], "plan": False}
    following.ask("restore", asked)
    code = unit.follow(UNIT, _quiet if arguments.json else None)
    result = _result(arguments) if code in (GOOD, DIFFERENT) else {}
    if code == GOOD and arguments.over:
        result |= _take_place(settings, arguments, result["database"], there=there)
    return _answer(arguments, code, result)


def _result(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the unit left for us."""
    found: dict[str, Any] = json.loads((arguments.state / RESULT).read_text(encoding="utf-8"))
    return found


def _answer(arguments: argparse.Namespace, code: int, result: dict[str, Any]) -> int:
    if arguments.json and result:
        _say(json.dumps(result, indent=1))
    return code


def _safety(arguments: argparse.Namespace) -> None:
    if not arguments.json:
        _say("First, a backup of what is there now:")
    if code := unit.follow(BACKUP_UNIT, _quiet if arguments.json else None):
        raise SlipwayError(
            f"The safety backup ended with code {code}; nothing was restored", "a backup of what is live",
            "mend it, or say --no-safety-backup: the live database is kept beside the restored one in any case",
        )  # fmt: skip


def _here(arguments: argparse.Namespace) -> int:
    asked = unit.asked("restore")
    if asked:
        arguments.database, arguments.backup = str(asked["database"]), str(asked["backup"])
        arguments.name, arguments.table = str(asked["name"]), [str(each) for each in asked["tables"]]
        arguments.plan = bool(asked["plan"])
    check(arguments)
    settings = config.load(arguments.config)
    signal.signal(signal.SIGTERM, _stop)
    since = datetime.now(UTC)
    note = {"who": arguments.by, "since": f"{since:%Y-%m-%d %H:%M:%S} UTC", "what": f"restore of {arguments.database}"}
    try:
        with lock.held(arguments.state / "restore.lock", "The restore", note):
            return _restore(settings, arguments)
    except lock.BusyError as error:
        raise BusyError(f"A restore runs already: {error.holder.get('what', 'one')}", "one at a time") from error
    except KeyboardInterrupt:
        raise SlipwayError("The restore was stopped; what it had made was dropped again") from None


def _restore(settings: Config, arguments: argparse.Namespace) -> int:
    # A unit's own temporary folder goes with the unit, however that ends: no plain dump outlives it.
    private = Path(tempfile.mkdtemp(prefix="slipway-restore-", dir="/var/tmp"))
    try:
        return _restore_with(settings, arguments, private)
    finally:
        shutil.rmtree(private, ignore_errors=True)


def _restore_with(settings: Config, arguments: argparse.Namespace, private: Path) -> int:
    means = Means(
        config.store(settings, "reader"), arguments.identity or str(config.credential_path("identity") or ""),
        Server(settings.socket, settings.port, settings.role), private, _drills(arguments.drills),
        say=(lambda _text: None) if arguments.json else _say,
    )  # fmt: skip
    wish = Wish(arguments.database, arguments.backup, arguments.name, tuple(arguments.table))
    if not arguments.plan:
        for name in restore.sweep(means.server):
            means.say(f"dropped {name}, which a restore that was killed had begun to make")
    made = restore.plan(settings, wish, means)
    if arguments.plan:
        return _tell_plan(arguments, made)
    for line in made.lines if not arguments.json else ():
        _say(f"- {line}")
    done = (restore_tables if wish.tables else restore).run(settings, wish, means, made)
    answer = {**to_plain(replaced(done)), "result": "different" if done.differences else "restored"}
    replace(arguments.state / RESULT, json.dumps(answer).encode())
    if arguments.json:
        _say(json.dumps(answer, indent=1))
    else:
        for line in told(done):
            _say(line)
    return DIFFERENT if done.differences else GOOD


def replaced(done: Restored) -> dict[str, Any]:
    """As plain data; seconds as whole milliseconds."""
    return {**{k: v for k, v in vars(done).items() if k != "seconds"}, "milliseconds": int(done.seconds * 1000)}


def told(done: Restored) -> list[str]:
    """What a person wants to know of it."""
    lines = [
        f"{done.database} is restored from {done.backup_id}, as of {done.taken:%Y-%m-%d %H:%M:%S} UTC, in {span(int(done.seconds * 1000))}"
    ]
    lines += [f"note: {each}" for each in done.notes]
    lines += [f"DIFFERS from the manifest: {each}" for each in done.differences[:20]]
    if done.differences:
        lines.append(
            f"{len(done.differences)} differences: look at it before anybody uses it; nothing live was touched"
        )
    return lines


def _tell_plan(arguments: argparse.Namespace, made: Plan) -> int:
    answer = {"result": "planned", "database": made.target, "backup_id": made.taken.backup_id, "steps": list(made.lines),
              "expected_ms": made.expected_ms}  # fmt: skip
    replace(arguments.state / RESULT, json.dumps(answer).encode())
    if arguments.json:
        _say(json.dumps(answer, indent=1))
    else:
        for line in made.lines:
            _say(f"- {line}")
    return GOOD


def _drills(folder: Path) -> list[Any]:
    try:
        return [each.drill for each in Proofs(folder, None, "").drills() if each.drill and each.drill.kind == "dump"]
    except OSError:
        return []


def _stop(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


# -- as root ---------------------------------------------------------------------------------------------------------


def _connector(settings: Config) -> swap.Connect:
    if os.geteuid() != 0:
        return lambda: source.connect(Server(settings.socket, settings.port, settings.role), "postgres")
    return lambda: pgserver.connect(port=settings.port, socket_dir=settings.socket)


def _paused() -> AbstractContextManager[bool]:
    return pooler.paused(swap.pooler_port()) if os.geteuid() == 0 else _unpaused()


@contextlib.contextmanager
def _unpaused() -> Iterator[bool]:
    yield False


def _exists(settings: Config, name: str) -> bool:
    with _connector(settings)() as conn:
        # A row without a column would be none to psycopg.
        query = f"SELECT 1 FROM pg_database WHERE datname = {restore.literal(name)}"  # noqa: S608  (quoted)
        return bool(restore.execute(conn, query))


def _take_place(settings: Config, arguments: argparse.Namespace, restored: str, *, there: bool) -> dict[str, Any]:
    connect, live = _connector(settings), arguments.over
    if not there:
        with connect() as conn:
            restore.execute(conn, f"ALTER DATABASE {restore.ident(restored)} RENAME TO {restore.ident(live)}")
        return {"database": live, "aside": ""}
    aside = restore.named(live, "before", datetime.now(UTC))
    done = swap.swap(connect, live, restored, aside, _paused)
    _note(arguments, "restored over", done)
    if not arguments.json:
        _tell_swap(done, f"the way back: slipway restore undo --database {live}")
    return {"database": live, **to_plain(vars(done))}


def _undo(arguments: argparse.Namespace) -> int:
    if not arguments.database:
        raise InputError("No database is named", "--database NAME")
    settings = config.load(arguments.config)
    done = swap.undo(_connector(settings), arguments.database, datetime.now(UTC), _paused)
    _note(arguments, "restore undone", done)
    if arguments.json:
        _say(json.dumps(to_plain(vars(done)), indent=1))
    else:
        _tell_swap(done, "drop it when nobody needs it any more")
    return GOOD


def _tell_swap(done: swap.Swapped, then: str) -> None:
    how = "the pooler held its clients back" if done.paused else f"{done.cut_off} connections were cut off"
    _say(f"{done.live} was out of reach for {span(done.milliseconds)} ({how}); what it was is {done.aside}: {then}")


def _note(arguments: argparse.Namespace, what: str, done: swap.Swapped) -> None:
    who = arguments.by or os.environ.get("SUDO_USER", "") or "root"
    with contextlib.suppress(OSError):
        journal.append(journal.JOURNAL, at=datetime.now(UTC).timestamp(), who=who, what=what, **vars(done))
