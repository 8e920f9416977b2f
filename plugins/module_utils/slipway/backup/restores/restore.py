# SPDX-License-Identifier: Apache-2.0
"""A real restore: a database from its backup into a new one on the live server, looked at before anybody uses it.

Nothing live is touched here. Taking a live database's place is a step of its own (``swap``), by rename, and so is the way
back. What is not finished is dropped.
"""

# ruff: noqa: S608 - names and values are quoted here
from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import InputError, SlipwayError
from .. import catalog
from ..argv import Server
from ..compare import SETTING, compare_database
from ..config import Config
from ..drills import find
from ..drills.evidence import Drill
from ..drills.fetch import BackupError, Fetcher
from ..drills.refill import Refill
from ..drills.scratch import session_options
from ..manifest import Database, Manifest
from ..stores.store import MB, Store
from ..taking import source
from ..verdict import span

if TYPE_CHECKING:
    from psycopg import Connection

_NAME_LONGEST = 63
_LOOK_BACK = 30  # backups
UNFINISHED = "being restored by Slipway: dropped by the next restore if this one does not end"


class RestoreError(SlipwayError):
    """The restore cannot begin, or was undone: the message says what is as it was."""


@dataclass(frozen=True)
class Wish:
    """What to restore. ``backup``: an id, ``latest`` or ``proved`` (the newest that a drill proved).

    ``name``: of the new database; empty for ``<database>_restored_<date>``. ``tables``: these alone, into a schema of
    their own in the live database.
    """

    database: str
    backup: str = "latest"
    name: str = ""
    tables: tuple[str, ...] = ()


@dataclass(frozen=True)
class Means:
    """What a restore works with. ``private``: folder for spooled dumps. ``drills``: those on record, for the times."""

    store: Store
    identity: str
    server: Server
    private: Path
    drills: Sequence[Drill] = ()
    jobs: int = field(default_factory=lambda: max(1, min(4, os.cpu_count() or 1)))
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    say: Callable[[str], None] = lambda _text: None


@dataclass(frozen=True)
class Plan:
    """What a restore will do. ``target``: the database to be made (for tables: for the time being)."""

    taken: Manifest
    before: Database
    target: str
    schema: str
    lines: tuple[str, ...]
    missing_roles: tuple[str, ...] = ()
    expected_ms: int = 0


@dataclass(frozen=True)
class Restored:
    """A restore that is over. ``differences``: from the manifest, empty where all is as it was."""

    backup_id: str
    database: str
    taken: datetime
    seconds: float
    differences: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def named(database: str, what: str, at: datetime) -> str:
    """``<database>_<what>_20260131_0300``, cut so that PostgreSQL takes it whole."""
    tail = f"_{what}_{at:%Y%m%d_%H%M%S}"
    return database.encode()[: _NAME_LONGEST - len(tail)].decode(errors="ignore") + tail


def ident(name: str) -> str:
    """A name as SQL has it. Raises InputError for what cannot be one."""
    if not name or "\0" in name or len(name.encode()) > _NAME_LONGEST:
        raise InputError(f"'{name}' is no name for a database, role or schema", f"1 to {_NAME_LONGEST} bytes")
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as SQL has it, under standard_conforming_strings."""
    return "'" + text.replace("\0", "").replace("'", "''") + "'"


def execute(conn: Connection[Any], statement: str) -> list[tuple[Any, ...]]:
    """Run a statement of ours; its rows. Raises RestoreError with the server's words."""
    import psycopg

    try:
        cursor = conn.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []
    except psycopg.Error as error:
        raise RestoreError(f"The server refused: {' '.join(str(error).split())}") from error


def plan(config: Config, wish: Wish, means: Means) -> Plan:
    """What will be done, checked against the store, the server and the disk. Changes nothing. Raises SlipwayError."""
    listed = find.backups(means.store, config.host)
    found = _choose(listed, wish.backup, means.drills, config)
    taken, _digest = find.manifest(means.store, found, config.host)
    if wish.backup == "latest":
        _look_back(taken, listed, wish.database, config, means)
    before = taken.contents.database(wish.database)
    if before is None:
        names = ", ".join(each.name for each in taken.contents.databases)
        raise InputError(f"Backup {taken.backup_id} has no database {wish.database}", f"one of: {names}")
    now = means.now()
    target = wish.name or named(wish.database, "restored", now)
    ident(target)
    with source.connect(means.server, "postgres") as conn:
        ((major, present, data, version),) = execute(
            conn,
            "SELECT current_setting('server_version_num')::int / 10000, "
            f"EXISTS (SELECT FROM pg_database WHERE datname = {literal(target)}), current_setting('data_directory'), "
            "current_setting('server_version')",
        )
        roles = {name for (name,) in execute(conn, "SELECT rolname::text FROM pg_roles")}
        extensions = {name for (name,) in execute(conn, "SELECT name::text FROM pg_available_extensions")}
    _check(taken, before, target, major=major, version=version, present=present, extensions=extensions)
    missing = tuple(sorted(_roles_of(before) - roles - {"PUBLIC"}))
    _check_disk(Path(data), before)
    schema = f"restored_{now:%Y%m%d_%H%M%S}" if wish.tables else ""
    expected = expected_ms(before, means.drills, taken)
    stored = sum(each.size for each in taken.objects if each.database == before.name)
    proof = next((d for d in reversed(means.drills) for t in d.tried if t.backup_id == found.id), None)
    age = span(max(0, int((now - taken.taken).total_seconds() * 1000)))
    into = (
        f"make the database {target} for a while and copy {', '.join(wish.tables)} from it into schema {schema} of {wish.database}"
        if wish.tables
        else f"make the new database {target} ({before.bytes // MB} MB, {len(before.tables)} tables); nothing live is touched"
    )
    lines = (
        f"backup {taken.backup_id} of {taken.taken:%Y-%m-%d %H:%M:%S} UTC: what was written in the {age} since is not in it",
        f"a drill {'of ' + format(proof.started, '%Y-%m-%d') + ' says: ' + proof.tried[-1].verdict if proof else 'has not looked at it yet'}",
        *found.notes,
        f"fetch and decrypt {stored // MB} MB",
        into,
        *([f"make the roles that are missing here: {', '.join(missing)}"] if missing else []),
        f"it should take about {span(expected)}" if expected else "no drill has measured how long it takes",
    )
    return Plan(taken, before, target, schema, lines, missing, expected)


def _choose(found: list[find.Found], which: str, drills: Sequence[Drill], config: Config) -> find.Found:
    proved = {t.backup_id for each in drills for t in each.tried if t.verdict == "proved"}
    names = {each.id for each in found if which == "latest" or (which == "proved" and each.id in proved)} | {which}
    fitting = [each for each in found if each.id in names]
    if not fitting:
        what = {"latest": "any backup", "proved": "any backup that a drill proved"}.get(which, f"backup {which}")
        raise InputError(f"There is not {what} of {config.host} in {config.place}", "one", "run: slipway backup list")
    return fitting[0]


def _look_back(taken: Manifest, listed: list[find.Found], database: str, config: Config, means: Means) -> None:
    """Refuse to guess where the newest backup is one of this server's own, and fuller ones of another came before.

    So it is after a server was lost and set up anew under its name: its first backups are those of an empty app.
    """
    ours, now = taken.contents.cluster.system_identifier, rows_of(taken, database)
    for each in listed[1:_LOOK_BACK]:
        try:
            before, _digest = find.manifest(means.store, each, config.host)
        except BackupError:
            continue
        if before.contents.cluster.system_identifier != ours and rows_of(before, database) > now:
            raise RestoreError(
                f"The newest backup, {taken.backup_id}, has {now} rows of {database}; {before.backup_id} is of another"
                f" server, the one before this, and has {rows_of(before, database)}",
                "to be told which one is meant", f"say --backup {before.backup_id} or --backup {taken.backup_id}",
            )  # fmt: skip


def rows_of(taken: Manifest, database: str) -> int:
    """Rows of all tables of a database in a backup."""
    found = taken.contents.database(database)
    return sum(each.rows for each in found.tables) if found else 0


def _check(
    taken: Manifest, before: Database, target: str, *, major: int, version: str, present: bool, extensions: set[str]
) -> None:
    source_major = taken.contents.cluster.version_num // 10000
    if major < source_major:
        raise RestoreError(
            f"The server is PostgreSQL {version}, the backup is of {taken.contents.cluster.version}",
            f"{source_major} or newer", f"apt-get install postgresql-{source_major}",
        )  # fmt: skip
    if present:
        raise RestoreError(
            f"The database {target} exists already", "a name that is free", "choose another by --as, or drop it"
        )
    if lacking := sorted({each.name for each in before.extensions} - extensions):
        raise RestoreError(
            f"The server lacks the extensions {', '.join(lacking)}", "those of the backup",
            f"install their packages, such as postgresql-{major}-{lacking[0]}",
        )  # fmt: skip


def _check_disk(data: Path, before: Database) -> None:
    with contextlib.suppress(OSError):  # a server in another place of the host; pg_restore will say so
        free = shutil.disk_usage(data).free
        needed = before.bytes * 12 // 10 + 512 * MB
        if free < needed:
            raise RestoreError(
                f"{data} has {free // MB} MB free", f"{needed // MB} MB for {before.name} and its WAL",
                "free some space, or restore on a larger host",
            )  # fmt: skip


def expected_ms(before: Database, drills: Sequence[Drill], taken: Manifest) -> int:
    """How long it should take: the newest measured drill's time, by this database's share of all. 0: never measured."""
    measured = next((each.steps for each in reversed(drills) if each.steps and each.verdict == "proved"), None)
    whole = sum(each.bytes for each in taken.contents.databases)
    if measured is None or not whole:
        return 0
    return max(1000, (measured.fetch_ms + measured.decrypt_ms + measured.restore_ms) * before.bytes // whole)


def _roles_of(before: Database) -> set[str]:
    """Every role that owns something in it or was granted something."""
    granted = {line.partition(": ")[0] for each in before.access for line in each.privileges}
    set_for = {key.rpartition(": ")[0] for key in before.settings if ": " in key}
    return {before.owner, *set_for, *(each.owner for each in before.access), *granted}


def run(config: Config, wish: Wish, means: Means, made: Plan | None = None) -> Restored:
    """Restore into a new database. What fails, or is stopped, leaves none. Raises SlipwayError."""
    made = made or plan(config, wish, means)
    begun = time.monotonic()
    with making(made, means) as refill:
        means.say(f"restoring {made.before.name} into {made.target}")
        refill.database(made.taken, made.before.name, target=made.target)
        notes = _properties(made, means.server)
        means.say("comparing with the manifest")
        differences = _compare(made, means.server)
        with source.connect(means.server, made.target) as conn:
            execute(conn, "ANALYZE")  # plans of the first users would be guesses otherwise
    return Restored(
        made.taken.backup_id, made.target, made.taken.taken, time.monotonic() - begun,
        tuple(str(each) for each in differences), tuple(notes),
    )  # fmt: skip


@contextlib.contextmanager
def making(made: Plan, means: Means) -> Iterator[Refill]:
    """A new, empty database, and what fills it; dropped again if the block fails or is interrupted."""
    if not means.identity:
        raise RestoreError(
            "There is no age identity on this host", "the credential 'identity'",
            "bring the recovery identity for the time of the restore: see docs/restore.md",
        )  # fmt: skip
    major = made.taken.contents.cluster.version_num // 10000
    env = {"PGOPTIONS": session_options(major).replace("-c event_triggers=off", "")}
    if folder := source.folder_of(major).rstrip("/"):
        env["PATH"] = f"{folder}:{os.environ.get('PATH', '/usr/bin:/bin')}"
    fetcher = Fetcher(means.store, means.identity, {k: v for k, v in env.items() if k == "PATH"})
    means.private.mkdir(mode=0o700, parents=True, exist_ok=True)
    refill = Refill(fetcher, means.server, env, means.private, "postgres", means.jobs)
    try:
        if made.missing_roles:
            refill.roles(made.taken, made.missing_roles)
        with source.connect(means.server, "postgres") as conn:
            execute(conn, _create(made))
            execute(conn, f"COMMENT ON DATABASE {ident(made.target)} IS {literal(UNFINISHED)}")
        try:
            yield refill
            _done(made, means.server)
        except BaseException:
            drop(means.server, made.target)
            raise
    except BackupError as error:
        raise RestoreError(
            f"{error} Nothing was changed: {made.target} was dropped again", "", "try an older backup by --backup"
        ) from error
    finally:
        shutil.rmtree(means.private, ignore_errors=True)


def _done(made: Plan, server: Server) -> None:
    with source.connect(server, "postgres") as conn:
        said = f"restored by Slipway from {made.taken.backup_id}"
        execute(conn, f"COMMENT ON DATABASE {ident(made.target)} IS {literal(said)}")


def sweep(server: Server) -> list[str]:
    """Drop what restores that were killed had begun to make; the names. Only while no other restore runs."""
    with source.connect(server, "postgres") as conn:
        query = (
            f"SELECT datname::text FROM pg_database WHERE shobj_description(oid, 'pg_database') = {literal(UNFINISHED)}"
        )
        names = [name for (name,) in execute(conn, query)]
    for name in names:
        drop(server, name)
    return names


def drop(server: Server, name: str) -> None:
    """Drop a database that a restore made, with whoever is in it."""
    with source.connect(server, "postgres") as conn:
        execute(conn, f"DROP DATABASE IF EXISTS {ident(name)} WITH (FORCE)")


def _create(made: Plan) -> str:
    """CREATE DATABASE with the encoding and locale that the backup's had. Pure."""
    provider, collate, ctype, *rest = [*made.before.collation.split(), "", ""][:5]
    locale = next((each for each in rest if each), "")
    options = [f"TEMPLATE template0 ENCODING {literal(made.before.encoding)}"]
    options += [f"LC_COLLATE {literal(collate)} LC_CTYPE {literal(ctype)}"] if collate and ctype else []
    if provider == "i":
        options.append(f"LOCALE_PROVIDER icu ICU_LOCALE {literal(locale)}")
    if provider == "b":
        options.append(f"LOCALE_PROVIDER builtin BUILTIN_LOCALE {literal(locale)}")
    return f"CREATE DATABASE {ident(made.target)} {' '.join(options)}"


def _properties(made: Plan, server: Server) -> list[str]:
    """Owner, grants and settings of the database itself; notes on what could not be carried over."""
    target, before, notes = ident(made.target), made.before, list[str]()
    grants = next((each.privileges for each in before.access if each.kind == "database"), ())
    statements = [f"ALTER DATABASE {target} OWNER TO {ident(before.owner)}",
                  f"REVOKE ALL ON DATABASE {target} FROM PUBLIC"]  # fmt: skip
    for line in grants:
        grantee, _, privilege = line.partition(": ")
        option = " WITH GRANT OPTION" if privilege.endswith(" with grant option") else ""
        right = re.sub(" with grant option$", "", privilege)
        to = "PUBLIC" if grantee == "PUBLIC" else ident(grantee)
        statements.append(f"GRANT {right} ON DATABASE {target} TO {to}{option}")
    with source.connect(server, "postgres") as conn:
        live = dict(
            execute(
                conn,
                "SELECT CASE s.setrole WHEN 0 THEN '' ELSE pg_get_userbyid(s.setrole) || ': ' END || split_part(c, '=', 1), "
                "substr(c, strpos(c, '=') + 1) FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase "
                f"CROSS JOIN LATERAL unnest(s.setconfig) c WHERE d.datname = {literal(before.name)}",
            )
        )
        for key, value in before.settings.items():
            role, _, name = key.rpartition(": ")
            known = live.get(key, value)
            if known.startswith("sha256 ") or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", name):
                notes.append(f"the setting {key} is not in the manifest for it may be a secret: set it again by hand")
                continue
            whose = f"ROLE {ident(role)} IN DATABASE {target}" if role else f"DATABASE {target}"
            quoted = (
                ", ".join(literal(each.strip().strip('"')) for each in known.split(","))
                if name == "search_path"
                else literal(known)
            )
            statements.append(f"ALTER {whose} SET {name} = {quoted}")
        for statement in statements:
            try:
                execute(conn, statement)
            except RestoreError as error:  # the data is there: what is missing is said, not thrown away
                notes.append(f"{statement}: {error}")
    return notes


def _compare(made: Plan, server: Server) -> list[Any]:
    before = made.before
    samples = {each.name: each.sample for each in before.tables}
    with source.connect(server, made.target) as conn, catalog.snapshot_of(conn) as snapshot:
        seen = catalog.read_database(conn, snapshot, samples=samples)
    access = tuple(replace(each, name=before.name) if each.kind == "database" else each for each in seen.access)
    seen = replace(seen, name=before.name, access=access)
    return [each for each in compare_database(before, seen) if each.kind != SETTING]
