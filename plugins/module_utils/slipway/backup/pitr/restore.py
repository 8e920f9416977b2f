# SPDX-License-Identifier: Apache-2.0
"""Going back to a second for real: one database beside the live one, or the whole server in its place.

One database: the server as it was is brought up in a folder of its own, and the database is copied out of it under a new
name. Nobody is disturbed, nothing live is written over. The whole server: its data folder is put aside first, and comes
back by itself when the restore does not succeed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ...commands import run
from ...errors import SlipwayError
from ...postgres import server as pgserver
from ..argv import Server
from . import pgbackrest as pitr
from . import run as pitr_run
from . import scratch as pitr_scratch
from .conf import Settings

_BESIDE = 1024**3
_START_SECONDS = 86_400.0
Say = Callable[[str], None]


@dataclass(frozen=True)
class Restored:
    """What was restored. ``database``: its new name, or empty for the whole server; ``aside``: where the old data is."""

    target: datetime
    base: str
    timeline: int
    database: str = ""
    aside: str = ""
    fetch_ms: int = 0
    replay_ms: int = 0
    copy_ms: int = 0


def reach(settings: Settings, target: datetime | None, timeline: int = 0, say: Say = print) -> pitr.Goal:
    """How to get to ``target`` (None: as far as the WAL goes). Where this cluster runs, WAL up to now is brought into the repository first.

    Raises RangeError with the range that is possible.
    """
    if target is not None and target > datetime.now(UTC):
        found = pitr_run.look(settings, datetime.now(UTC), timeline)
        pitr.choose(found.windows, target, datetime.now(UTC))
    try:
        with pitr_run.connect(settings) as live:
            if pitr_run.system_id(live) == pitr_run.info(settings).system_id:
                pitr_run.mark(live, "restore")
                pitr_run.flush(live)
    except SlipwayError as error:
        say(f"The server's last WAL cannot be had, going on with what is in the repository: {error}")
    return pitr_run.goal(settings, target, timeline)


def free_name(database: str, target: datetime) -> str:
    """The name a restored copy gets by default: ``notes_20260131_120000``."""
    return f"{database}_{target.astimezone(UTC):%Y%m%d_%H%M%S}"


def into_database(settings: Settings, goal: pitr.Goal, database: str, new: str, say: Say) -> Restored:
    """Bring ``database`` as it was into the live server under the name ``new``. Raises PitrError; leaves nothing half-done."""
    with pitr_scratch.alone(f"Restore of {database}"), pitr_run.connect(settings) as live:
        if pgserver.rows(live, "SELECT 1 FROM pg_database WHERE datname = %s", (new,)):
            raise pitr.PitrError(
                f"There is a database {new} already", "a name that is free", "give another with --into"
            )
        name = f"restore-{datetime.now(UTC):%Y%m%d-%H%M%S}"
        with pitr_scratch.at_time(settings, goal, name, say) as copy:
            started = time.monotonic()
            _make(live, copy, database, new)
            try:
                say(f"copying {database} into {new}")
                _pour(settings, copy, database, new)
            except BaseException:
                _drop(live, new)
                raise
            copied = int((time.monotonic() - started) * 1000)
            return Restored(goal.target, goal.base.label, goal.timeline, new, "", copy.fetch_ms, copy.replay_ms, copied)


def _make(live: Any, copy: pitr_scratch.Copy, database: str, new: str) -> None:
    from psycopg import Error, sql

    with copy.connect() as old:
        found = pgserver.rows(
            old, "SELECT pg_get_userbyid(datdba)::text, pg_encoding_to_char(encoding), datcollate, datctype, datlocprovider::text, datlocale "
            "FROM pg_database WHERE datname = %s", (database,),
        )  # fmt: skip
        if not found:
            names = ", ".join(
                row[0]
                for row in pgserver.rows(
                    old, "SELECT datname::text FROM pg_database WHERE NOT datistemplate ORDER BY 1"
                )
            )
            raise pitr.PitrError(f"There was no database {database} at {pitr.shown(copy.target)}", f"one of: {names}")
    owner, encoding, collate, ctype, provider, locale = found[0]
    if not pgserver.rows(live, "SELECT 1 FROM pg_roles WHERE rolname = %s", (owner,)):
        raise pitr.PitrError(
            f"{database} belonged to the role {owner}, which the live server lacks", "that role", f"CREATE ROLE {owner}"
        )
    query = sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE template0 ENCODING {} LC_COLLATE {} LC_CTYPE {} LOCALE_PROVIDER {}").format(
        sql.Identifier(new), sql.Identifier(owner), sql.Literal(encoding), sql.Literal(collate), sql.Literal(ctype),
        sql.Identifier({"c": "libc", "i": "icu", "b": "builtin"}.get(provider, "libc")),
    )  # fmt: skip
    if provider in ("i", "b") and locale:
        query += sql.SQL(" {} {}").format(
            sql.SQL("ICU_LOCALE" if provider == "i" else "BUILTIN_LOCALE"), sql.Literal(locale)
        )
    try:
        live.execute(query)
        # Nobody but the owner until it was looked at: an app must not find it by chance.
        live.execute(sql.SQL("REVOKE CONNECT, TEMPORARY ON DATABASE {} FROM PUBLIC").format(sql.Identifier(new)))
    except Error as error:
        raise pitr.PitrError(f"Database {new} could not be made: {str(error).splitlines()[0]}") from error


def _pour(settings: Settings, copy: pitr_scratch.Copy, database: str, new: str) -> None:
    """``pg_dump`` into ``pg_restore``: both exit codes count."""
    live = Server(port=settings.port)
    dump = [
        str(settings.programs / "pg_dump"),
        "--format=custom",
        "--compress=0",
        "--no-password",
        f"--dbname={copy.server.conninfo(database)}",
    ]
    load = [str(settings.programs / "pg_restore"), "--exit-on-error", "--no-password", f"--dbname={live.conninfo(new)}"]
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    with subprocess.Popen(
        pitr_run.as_postgres(dump), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, cwd="/"
    ) as source:
        done = subprocess.run(
            pitr_run.as_postgres(load),
            stdin=source.stdout,
            capture_output=True,
            text=True,
            check=False,
            env=environment,
            cwd="/",
        )
        assert source.stdout is not None and source.stderr is not None  # noqa: S101, PT018 - asked for above
        source.stdout.close()
        complaint = source.stderr.read().decode(errors="replace").strip()
    if done.returncode or source.returncode:
        said = (complaint if source.returncode and complaint else done.stderr.strip())[-500:]
        raise pitr.PitrError(
            f"{database} could not be copied: {said or 'no reason given'}",
            "pg_dump and pg_restore to end without an error",
        )
    vacuum = [
        str(settings.programs / "vacuumdb"),
        "--analyze-only",
        "--quiet",
        "-h",
        live.host,
        "-p",
        str(live.port),
        "-d",
        new,
    ]
    run(pitr_run.as_postgres(vacuum), check=False, timeout=None)


def _drop(live: Any, new: str) -> None:
    from psycopg import sql

    live.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(new)))


# -- the whole server ------------------------------------------------------------------------------------------------


def whole_server(settings: Settings, goal: pitr.Goal, say: Say) -> Restored:
    """Put the server back to a second, in its place; everything after it is gone from it. By root.

    The data folder as it is now is kept beside; when the restore or the start fails it is put back and started again.
    Raises PitrError.
    """
    if os.geteuid() != 0:
        raise PermissionError(13, "not allowed", str(settings.data))
    with pitr_scratch.alone("Restore of the whole server"):
        _space(settings, goal)
        stamp = f"{datetime.now(UTC):%Y%m%d-%H%M%S}"
        aside = settings.data.with_name(f"{settings.data.name}.before-{stamp}")
        say(f"stopping {settings.unit}")
        run(["systemctl", "stop", settings.unit], timeout=600)
        started, moved = time.monotonic(), False
        try:
            # mv, which copies where a rename is not possible; a folder that is a mount of its own can do neither.
            run(["mv", "--no-target-directory", str(settings.data), str(aside)], timeout=None)
            moved = True
            settings.data.mkdir(mode=0o700)
            shutil.chown(settings.data, pitr_run.USER, pitr_run.USER)
            say(f"fetching {goal.base.label} ({goal.base.bytes // 1024**2} MB)")
            pitr_run.call(settings, *pitr_scratch.goal_words(goal), timeout=_START_SECONDS)
            fetched = time.monotonic()
            say(f"replaying WAL up to {goal}")
            _open(settings, goal)
        except BaseException as error:
            _put_back(settings, aside if moved else None)
            if not isinstance(error, SlipwayError):
                raise
            raise pitr.PitrError(
                f"The server could not be put back to {goal}: {error.found}", error.expected or "a restore without an error",
                f"{error.remedy or 'look at what it says'}. The data from before is in its place again and runs",
            ) from error  # fmt: skip
        opened = time.monotonic()
    return Restored(
        goal.target,
        goal.base.label,
        goal.timeline,
        "",
        str(aside),
        int((fetched - started) * 1000),
        int((opened - fetched) * 1000),
    )


def _space(settings: Settings, goal: pitr.Goal) -> None:
    needed, free = goal.base.bytes * 11 // 10 + _BESIDE, shutil.disk_usage(settings.data.parent).free
    if free < needed:
        raise pitr.PitrError(
            f"{settings.data.parent} has {free // 1024**2} MB free", f"{needed // 1024**2} MB, since the data from before is kept until you remove it",
            "free some space, or make the disk larger",
        )  # fmt: skip


def _open(settings: Settings, goal: pitr.Goal) -> None:
    run(["systemctl", "reset-failed", settings.unit], check=False)
    done = run(["systemctl", "start", settings.unit], check=False, timeout=_START_SECONDS)
    until = time.monotonic() + _START_SECONDS
    while True:
        try:
            with pitr_run.connect(settings) as connection:
                if not pgserver.rows(connection, "SELECT pg_is_in_recovery()")[0][0]:
                    return
        except pgserver.ServerError:
            state = run(["systemctl", "is-active", settings.unit], check=False).stdout.strip()
            if state not in ("active", "activating"):
                log = run(
                    ["journalctl", "--unit", settings.unit, "--since", "-10min", "--output=cat", "--lines=40"],
                    check=False,
                ).stdout
                if short := pitr_scratch.ended_before(log, goal.target):
                    raise short from None
                raise pitr.PitrError(
                    f"PostgreSQL did not come up: {' '.join((log or done.said).split())[-400:]}",
                    "it to replay the WAL and to open",
                ) from None
        if time.monotonic() > until:
            raise pitr.PitrError(f"PostgreSQL still replays WAL after {timedelta(seconds=_START_SECONDS)}")
        time.sleep(0.5)


def _put_back(settings: Settings, aside: Path | None) -> None:
    """Start the server with the data it had; ``aside``: where that is, None where it was never moved."""
    run(["systemctl", "stop", settings.unit], check=False, timeout=600)
    if aside is not None:
        shutil.rmtree(settings.data, ignore_errors=True)
        run(["mv", "--no-target-directory", str(aside), str(settings.data)], timeout=None)
    run(["systemctl", "reset-failed", settings.unit], check=False)
    run(["systemctl", "start", settings.unit], check=False, timeout=600)
