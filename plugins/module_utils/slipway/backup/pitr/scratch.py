# SPDX-License-Identifier: Apache-2.0
"""A copy of the whole server as it was at a chosen second, in a folder of its own: nothing of it reaches the live one.

pgBackRest fetches and decrypts the base backup, PostgreSQL replays WAL up to the second and opens the copy for writing.
It listens on a Unix socket alone, archives nothing, and is removed whatever happens.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ... import lock
from ...commands import run
from ...postgres import server as pgserver
from ..argv import Server
from . import pgbackrest as pitr
from . import run as pitr_run
from .conf import STATE, Settings

MARK = "slipway-scratch.json"
PORT = 5432  # of the socket's name alone
_BESIDE = 1024**3
_LONGEST = 86_400.0
Say = Callable[[str], None]


@dataclass(frozen=True)
class Copy:
    """The running copy. ``fetch_ms``: pgBackRest's part; ``replay_ms``: PostgreSQL's, until it took connections."""

    server: Server
    base: pitr.Base
    target: datetime
    fetch_ms: int
    replay_ms: int
    reached: str

    def connect(self, database: str = "postgres") -> Any:
        """An autocommit connection as the superuser. Raises ServerError."""
        return pgserver.connect(database, port=self.server.port, socket_dir=self.server.host)


@contextmanager
def alone(what: str) -> Iterator[None]:
    """One drill or restore at a time. Raises BusyError."""
    note = {"what": what, "since": pitr.shown(datetime.now(UTC))}
    try:
        with lock.held(STATE / "lock", "point-in-time recovery", note):
            _give(STATE / "lock")
            yield
    except lock.BusyError as error:
        holder = error.holder
        raise pitr.BusyError(
            f"{holder.get('what', 'A drill')} has been running since {holder.get('since', 'a moment ago')}",
            "no other drill or restore to a point in time", "wait until it is over",
        ) from None  # fmt: skip


@contextmanager
def at_time(settings: Settings, goal: pitr.Goal, name: str, say: Say) -> Iterator[Copy]:
    """Make, start and remove a copy of the server as it was at a second; call it within :func:`alone`.

    ``name``: of its folder. Raises PitrError before anything is fetched where it does not fit, RangeError where the WAL
    ends before that second.
    """
    base, target = goal.base, goal.target
    home = Path(settings.scratch_path) / name
    sweep(Path(settings.scratch_path))
    _lay_out(home, base)
    try:
        say(f"fetching {base.label} ({base.bytes // 1024**2} MB)")
        started = time.monotonic()
        pitr_run.call(settings, *restore_words(home, goal), timeout=_LONGEST)
        fetched = time.monotonic()
        _configure(settings, home, goal)
        say(f"replaying WAL up to {goal}")
        reached = _start(settings, home, goal)
        replayed = time.monotonic()
        server = Server(str(home / "s"), PORT, pitr_run.USER)
        yield Copy(server, base, target, _ms(fetched - started), _ms(replayed - fetched), reached)
    finally:
        _remove(home)


def restore_words(home: Path, goal: pitr.Goal) -> list[str]:
    """pgBackRest's restore into a folder of its own, with locks and spool apart from the live server's archiving. Pure."""
    return [
        f"--pg1-path={home}/data", f"--tablespace-map-all={home}/tablespaces", f"--lock-path={home}/lock",
        "--archive-mode=off", *goal_words(goal),
    ]  # fmt: skip


def goal_words(goal: pitr.Goal) -> list[str]:
    """What both kinds of restore tell pgBackRest of where to go. Pure."""
    way = (
        ["--type=default"]
        if goal.latest
        else ["--type=time", f"--target={stamp(goal.target)}", "--target-action=promote"]
    )
    return [
        f"--set={goal.base.label}",
        *way,
        f"--target-timeline={goal.timeline}",
        "--log-level-console=warn",
        "restore",
    ]


def stamp(target: datetime) -> str:
    """A time as pgBackRest and PostgreSQL read it."""
    found = target.astimezone(UTC)
    return found.strftime("%Y-%m-%d %H:%M:%S") + (f".{found.microsecond:06}" if found.microsecond else "") + "+00"


def configuration(settings: Settings, home: Path, goal: pitr.Goal, control: Mapping[str, int]) -> str:
    """All settings of the copy, in place of those it was restored with. Pure.

    ``control``: what pg_control says must be as large as on the server that wrote the WAL.
    """
    fetch = (
        f"pgbackrest --stanza={settings.stanza} --pg1-path={home}/data --lock-path={home}/lock "
        f'--spool-path={home}/spool --log-level-console=error archive-get %f "%p"'
    )
    values = {
        "listen_addresses": "", "port": PORT, "unix_socket_directories": f"{home}/s", "unix_socket_permissions": "0700",
        "restore_command": fetch, "recovery_target_timeline": goal.timeline,
        **({} if goal.latest else {"recovery_target_time": stamp(goal.target), "recovery_target_action": "promote"}), "hot_standby": "off", "archive_mode": "off",
        "max_connections": 40, "max_prepared_transactions": control.get("max_prepared_xacts", 0),
        "max_locks_per_transaction": max(128, control.get("max_locks_per_xact", 0)),
        "shared_buffers": f"{max(16, settings.scratch_mb // 2)}MB", "maintenance_work_mem": f"{max(16, settings.scratch_mb // 8)}MB",
        "huge_pages": "off", "shared_preload_libraries": "", "autovacuum": "off", "fsync": "off", "synchronous_commit": "off",
        "full_page_writes": "off", "jit": "off", "ssl": "off", "logging_collector": "off", "log_destination": "stderr",
        "log_statement": "none", "log_min_error_statement": "panic", "log_min_duration_statement": -1, "timezone": "UTC",
        "log_timezone": "UTC", "max_wal_size": "1GB", "checkpoint_timeout": "1h", "lc_messages": "C",
    }  # fmt: skip
    return "".join(f"{name} = '{str(value).replace(chr(39), chr(39) * 2)}'\n" for name, value in values.items())


def parse_control(text: str) -> dict[str, int]:
    """The settings that ``pg_controldata`` names, such as ``max_prepared_xacts``."""
    return {found[1]: int(found[2]) for found in re.finditer(r"^(\w+) setting:\s+(\d+)$", text, re.MULTILINE)}


def sweep(folder: Path) -> list[str]:
    """Remove what was left by a run that was killed; names of the folders. Only within :func:`alone`."""
    gone = [each for each in sorted(folder.glob("*")) if (each / MARK).is_file() and not each.is_symlink()]
    for each in gone:
        _remove(each)
    return [each.name for each in gone]


def _lay_out(home: Path, base: pitr.Base) -> None:
    home.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _give(home.parent)
    needed, free = base.bytes * 11 // 10 + _BESIDE, shutil.disk_usage(home.parent).free
    if free < needed:
        raise pitr.PitrError(
            f"{home.parent} has {free // 1024**2} MB free",
            f"{needed // 1024**2} MB: the size of the database, a tenth more, and WAL",
            "free some space, or let pitr_scratch_path point to a larger disk",
        )
    if len(f"{home}/s/.s.PGSQL.{PORT}") > 107:
        raise pitr.PitrError(f"{home} is too long for a socket", "a shorter pitr_scratch_path")
    for path in (home, *(home / name for name in ("data", "s", "spool", "lock", "tablespaces"))):
        path.mkdir(mode=0o700)
        _give(path)
    (home / MARK).write_text(json.dumps({"what": "a copy for a drill or a restore: may be removed"}), encoding="utf-8")


def _give(path: Path) -> None:
    """To postgres, when root made it."""
    if os.geteuid() == 0:
        shutil.chown(path, pitr_run.USER, pitr_run.USER)


def _configure(settings: Settings, home: Path, goal: pitr.Goal) -> None:
    data = home / "data"
    control = parse_control(
        run(pitr_run.as_postgres([str(settings.programs / "pg_controldata"), "-D", str(data)])).stdout
    )
    texts = {
        "postgresql.auto.conf": configuration(settings, home, goal, control),
        "postgresql.conf": "", "pg_hba.conf": "local all all peer\n", "pg_ident.conf": "",
    }  # fmt: skip
    for name, text in texts.items():
        (data / name).write_text(text, encoding="utf-8")
        _give(data / name)


def _start(settings: Settings, home: Path, goal: pitr.Goal) -> str:
    """Start and wait until the second is reached; what the log says of the last transaction."""
    data, log = home / "data", home / "log"
    argv = [
        str(settings.programs / "pg_ctl"),
        "-D",
        str(data),
        "-l",
        str(log),
        "-w",
        "-t",
        str(int(_LONGEST)),
        "-s",
        "start",
    ]
    done = run(pitr_run.as_postgres(argv), check=False, timeout=_LONGEST + 60)
    open_ = done.ok and _opens(home)
    text = log.read_text(errors="replace") if log.exists() else ""
    last = re.findall(r"last completed transaction was at log time (\S+ \S+)", text)
    if open_:
        return f"{last[-1].removesuffix('+00')} UTC" if last else "none since the base backup"
    if short := ended_before(text, goal.target):
        raise short
    raise pitr.PitrError(
        f"The copy did not start: {' '.join((text or done.said).split()[-60:])}",
        "PostgreSQL to replay the WAL to the chosen second",
    )


def ended_before(log: str, target: datetime) -> pitr.RangeError | None:
    """What PostgreSQL's log says where the WAL did not reach ``target``, else None. Pure."""
    if "recovery ended before configured recovery target was reached" not in log:
        return None
    last = re.findall(r"last completed transaction was at log time (\S+ \S+)", log)
    return pitr.RangeError(
        f"The WAL ends before {pitr.shown(target)}; its last transaction is of "
        + (f"{last[-1].removesuffix('+00')} UTC" if last else "before the base backup's end"),
        "a second with WAL after it", "take an earlier one, or all there is: --to-time latest",
    )  # fmt: skip


def _opens(home: Path) -> bool:
    """Wait until the replay is over and the copy takes connections; False when its server has ended."""
    until = time.monotonic() + _LONGEST
    while (home / "data/postmaster.pid").exists() and time.monotonic() < until:
        try:
            with pgserver.connect(port=PORT, socket_dir=str(home / "s")) as connection:
                if not pgserver.rows(connection, "SELECT pg_is_in_recovery()")[0][0]:
                    return True
        except pgserver.ServerError:
            pass  # pg_ctl is content with a server that still replays
        time.sleep(0.2)
    return False


def _remove(home: Path) -> None:
    pid_file = home / "data/postmaster.pid"
    if pid_file.exists():
        programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
        for program in programs[-1:]:
            argv = [str(program), "-D", str(home / "data"), "-m", "immediate", "-w", "-t", "30", "stop"]
            with contextlib.suppress(Exception):
                run(pitr_run.as_postgres(argv), check=False, timeout=60)
    for _ in range(3):
        shutil.rmtree(home, ignore_errors=True)
        if not home.exists():
            return
        time.sleep(0.5)


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
