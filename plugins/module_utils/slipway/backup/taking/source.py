# SPDX-License-Identifier: Apache-2.0
"""The server that is backed up: connecting to it, what it holds, and the programs that fit it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ... import __version__
from ...commands import CommandError, run
from ...errors import SlipwayError
from .. import argv
from ..codec import FormatError

if TYPE_CHECKING:
    from psycopg import Connection

APPLICATION = "slipway-backup"
PROGRAMS = ("pg_dump", "pg_dumpall", "zstd", "age")
# A database may be read-only by default for the app's sake; the sentinel has to be written all the same.
_OPTIONS = f"options='-c default_transaction_read_only=off' application_name={APPLICATION} connect_timeout=20 client_encoding=UTF8"

_AT_WORK = f"""SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'client backend' AND state = 'active'
  AND application_name <> '{APPLICATION}')"""  # noqa: S608 - a constant of this file


class SourceError(SlipwayError):
    """The server cannot be reached, or what is needed to back it up is not there."""


def connect(server: argv.Server, database: str) -> Connection[Any]:
    """A connection in autocommit mode. Raises SourceError in the server's own words."""
    import psycopg

    try:
        return psycopg.connect(f"{server.conninfo(database)} {_OPTIONS}", autocommit=True)
    except psycopg.OperationalError as error:
        words = " ".join(str(error).split())
        raise SourceError(
            f"PostgreSQL at {server.host}:{server.port} cannot be reached as {server.user} (database {database}): {words}",
            "a running server that lets this role in",
            _remedy(words, server),
        ) from error


def _remedy(words: str, server: argv.Server) -> str:
    if "authentication failed" in words or "no password supplied" in words:
        return f"see that pg_hba.conf and pg_ident.conf let this system user be {server.user}; site.yml sets both"
    if f'role "{server.user}" does not exist' in words:
        return "run site.yml: it makes the role"
    if "too many" in words or "remaining connection slots" in words:
        return "raise max_connections, or lower the pool"
    return "see systemctl status postgresql, and its log"


@dataclass(frozen=True)
class Found:
    """A database of the cluster. ``why_not``: why it cannot be backed up; empty if it can. ``template``: it is one."""

    name: str
    bytes: int
    template: bool = False
    why_not: str = ""


@dataclass(frozen=True)
class Choice:
    """What is backed up, what is not because somebody said so, and what a person should know of."""

    chosen: tuple[Found, ...]
    left_out: tuple[str, ...]
    unlisted: tuple[str, ...]
    warnings: tuple[str, ...]


_DATABASES = """
SELECT datname, CASE WHEN datallowconn THEN pg_database_size(oid) ELSE 0 END, datistemplate,
  CASE WHEN datconnlimit = -2 THEN 'it is left over from a DROP DATABASE that was cut off; drop it again'
       WHEN NOT datallowconn THEN 'it accepts no connections (datallowconn)' ELSE '' END
FROM pg_database ORDER BY 1
"""


def databases(conn: Connection[Any]) -> list[Found]:
    """Every database of the cluster. Raises SourceError."""
    return [Found(*row) for row in rows(conn, _DATABASES)]


def rows(conn: Connection[Any], query: str) -> list[tuple[Any, ...]]:
    """Rows of a query of ours. Raises SourceError."""
    import psycopg

    try:
        return conn.execute(query.encode()).fetchall()
    except psycopg.Error as error:
        raise SourceError(f"The server failed at a question of ours: {' '.join(str(error).split())}") from error


def choose(found: Sequence[Found], listed: Sequence[str], left_out: Sequence[str]) -> Choice:
    """Which databases to back up: all that nobody left out. Pure.

    Templates are not: what every database got from them is in those databases. ``postgres`` needs no listing.
    Raises SourceError when nothing is left.
    """
    names = {each.name for each in found}
    able = [each for each in found if not each.template and not each.why_not and each.name not in left_out]
    warnings = [f"Database {each.name} is not backed up: {each.why_not}." for each in found
                if each.why_not and not each.template and each.name not in left_out]  # fmt: skip
    warnings += [
        f"Database {name} is listed, but the server has none of that name." for name in listed if name not in names
    ]
    unlisted = tuple(each.name for each in able if each.name not in listed and each.name != "postgres")
    warnings += [f"Database {name} is listed nowhere; it is backed up all the same." for name in unlisted]
    if not able:
        raise SourceError(
            "There is no database to back up: every one is left out", "at least one", "shorten the list left_out"
        )
    return Choice(tuple(able), tuple(name for name in left_out if name in names), unlisted, tuple(warnings))


def folder_of(major: int, root: Path = Path("/usr/lib/postgresql")) -> str:
    """Where Debian keeps the client programs of a major, with a slash at its end; empty where it does not."""
    folder = root / str(major) / "bin"
    return f"{folder}/" if (folder / "pg_dump").exists() else ""


def tools(folder: str) -> dict[str, str]:
    """Program to version, after seeing that each is there. Raises SourceError."""
    found = {"slipway": __version__}
    for name in PROGRAMS:
        program = f"{folder}{name}" if name.startswith("pg_") else name
        if shutil.which(program) is None:
            package = "postgresql-client" if name.startswith("pg_") else name
            raise SourceError(
                f"The program {program} is not installed", "it", f"apt-get install {package}, or site.yml"
            )
        try:
            said = run([program, "--version"]).stdout
        except CommandError as error:
            raise SourceError(f"{program} --version failed: {error.found}", "a program that runs") from error
        number = re.search(r"\d+(\.\d+)*", said)
        found[name] = number.group() if number else said.strip()[:40]
    return found


def app_at_work(conn: Connection[Any], looks: int, sleep: Callable[[float], object]) -> bool:
    """Whether a session other than the backup's own runs a query, in one of ``looks`` a fifth of a second apart.

    In a transaction too, where a look would otherwise show what the first one showed. Raises SourceError.
    """
    for look in range(looks):
        if look:
            sleep(0.2)
        rows(conn, "SELECT pg_stat_clear_snapshot()")
        if rows(conn, _AT_WORK)[0][0]:
            return True
    return False


def fits(tool: str, server_num: int) -> str:
    """A warning when pg_dump is newer than the server; empty when they fit. Raises SourceError when it is older."""
    major, server = int(tool.split(".", maxsplit=1)[0]), server_num // 10000
    if major < server:
        raise SourceError(
            f"pg_dump is of version {tool}, the server of {server}", "a pg_dump not older than the server",
            f"apt-get install postgresql-client-{server}",
        )  # fmt: skip
    if major > server:
        return f"pg_dump {tool} is newer than the server ({server}): restoring takes programs of {major} or newer."
    return ""


def recipients(path: Path) -> tuple[str, ...]:
    """Who can open a backup: the lines of an age recipients file. Raises SourceError, FormatError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise SourceError(
            f"The age recipients cannot be read from {path}: {error.strerror}", "a file with a recipient a line",
            "set backup_recipients and run site.yml",
        ) from error  # fmt: skip
    found = tuple(line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#"))
    if any("SECRET-KEY" in line.upper() for line in found):
        raise FormatError(
            f"{path} holds an age identity, a secret", "recipients only (age1...)",
            "remove it, make a new identity, and see docs/backups.md on what to do after a leak",
        )  # fmt: skip
    if not found:
        raise SourceError(f"{path} names no age recipient", "at least one", "set backup_recipients and run site.yml")
    return found


def nothing_sealed(path: Path, stages: Mapping[str, Sequence[str]]) -> int:
    """Bytes that nothing at all takes once compressed and encrypted: what an empty dump would look like in the store.

    Shows as well that age takes every recipient, before anything is begun. Raises SourceError.
    """
    try:
        empty = subprocess.run(list(stages["zstd"]), input=b"", capture_output=True, check=False, timeout=60)
        done = subprocess.run(
            list(stages["age"]), input=empty.stdout, capture_output=True, check=False, timeout=60
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SourceError(f"zstd or age could not be tried: {error}") from error
    if empty.returncode != 0:
        raise SourceError(f"zstd does not work here: {' '.join(empty.stderr.decode(errors='replace').split())}")
    if done.returncode != 0:
        words = " ".join(done.stderr.decode(errors="replace").split())
        raise SourceError(f"age does not take the recipients of {path}: {words}", "age recipients, one a line")
    return len(done.stdout)
