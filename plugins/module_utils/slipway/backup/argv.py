# SPDX-License-Identifier: Apache-2.0
"""The commands of a backup and a restore, as argv lists. Pure; no secret ever goes into one.

Passwords reach PostgreSQL's programs by PGPASSFILE or not at all (peer authentication), age reads its recipients and
identities from files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import InputError


@dataclass(frozen=True)
class Server:
    """Where a PostgreSQL listens: a socket folder or a host name, and the role to be."""

    host: str = "/var/run/postgresql"
    port: int = 5432
    user: str = "postgres"

    def conninfo(self, database: str) -> str:
        """Connection string for ``database``, each value quoted: a database may be named ``a b`` or ``host=evil``."""
        values = {"host": self.host, "port": str(self.port), "user": self.user, "dbname": database}
        return " ".join(f"{key}={_quoted(value)}" for key, value in values.items())


def _quoted(value: str) -> str:
    if "\0" in value:
        raise InputError("a connection value holds a NUL character", "text")
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def compression(cores: int) -> tuple[int, int]:
    """zstd's (level, threads) for a host that has an app to serve as well: half the cores at most, never more than 4.

    Level 1 takes three fifths of level 3's CPU time, for a dump that is between 2 % smaller (rows of an app) and 12 %
    larger (plain text); see docs/benchmarks.md. A dump's CPU time is the app's, its size costs next to nothing.
    """
    if cores < 1:
        raise InputError(f"{cores} cores", "1 or more")
    return 1, max(1, min(4, cores // 2))


def dump(
    server: Server,
    database: str,
    *,
    snapshot: str,
    section: str = "",
    tables: Sequence[str] = (),
    without_data_of: Sequence[str] = (),
    lock_wait: int = 60,
) -> list[str]:
    """``pg_dump`` in custom format, uncompressed (zstd does that better), to its standard output.

    ``section``: ``pre-data``, ``data``, ``post-data`` or everything. ``tables``: only these, ``without_data_of``: all but
    the rows of these; both are names as the manifest has them (``public."Order"``). ``lock_wait``: seconds.
    """
    if section not in ("", "pre-data", "data", "post-data"):
        raise InputError(f"unknown section '{section}'", "pre-data, data, post-data or none")
    argv = ["pg_dump", "--format=custom", "--compress=0", "--no-password", f"--lock-wait-timeout={lock_wait}s",
            f"--snapshot={snapshot}"]  # fmt: skip
    argv += [f"--section={section}"] if section else []
    argv += [f"--table={pattern(name)}" for name in tables]
    argv += [f"--exclude-table-data={pattern(name)}" for name in without_data_of]
    return [*argv, f"--dbname={server.conninfo(database)}"]


def in_large_pieces(command: Sequence[str]) -> list[str]:
    """``command``, whose standard output goes out in large pieces. PostgreSQL's programs write 4 kB to a pipe at a time.

    ``stdbuf`` becomes the command, so that its exit code and its signals are the command's own. A tenth of a backup's
    CPU time: docs/benchmarks.md.
    """
    return ["stdbuf", "--output=256K", *command]


def pattern(name: str) -> str:
    """A quoted name as a pattern that matches it alone: every part in quotes, so that no letter is a wildcard."""
    return ".".join(part if part.startswith('"') else f'"{part}"' for part in parts(name))


def parts(name: str) -> tuple[str, str]:
    """Schema and table of a qualified name, each still quoted where it was. Raises InputError."""
    found = re.findall(r'"(?:[^"]|"")*"|[^."]+', name)
    if ".".join(found) != name or len(found) != 2:
        raise InputError(f"'{name}' is no qualified table name", 'schema.table, quoted where needed: public."Order"')
    return found[0], found[1]


def dump_globals(server: Server) -> list[str]:
    """``pg_dumpall`` for roles with their password hashes, memberships, tablespaces and settings: encrypted with the rest."""
    return ["pg_dumpall", "--globals-only", "--no-password", f"--dbname={server.conninfo('postgres')}"]


def compress(level: int, threads: int) -> list[str]:
    """``zstd`` from standard input to standard output."""
    if not 1 <= level <= 19:
        raise InputError(f"zstd level {level}", "1 to 19")
    return ["zstd", "-q", f"-{level}", f"-T{threads}", "-c"]


def decompress() -> list[str]:
    """``zstd -d``; it fails on a stream that ends too early."""
    return ["zstd", "-q", "-d", "-c"]


def encrypt(recipients_file: str) -> list[str]:
    """``age`` to the recipients in a file, one a line: all of them can decrypt."""
    return ["age", "--encrypt", "--recipients-file", recipients_file]


def decrypt(identity_file: str) -> list[str]:
    """``age --decrypt``: authenticated, so that a flipped or missing byte is an error and not a different dump."""
    return ["age", "--decrypt", "--identity", identity_file]


def restore(
    server: Server,
    database: str,
    file: str = "",
    *,
    jobs: int = 1,
    section: str = "",
    tables: Sequence[str] = (),
    create: bool = False,
) -> list[str]:
    """``pg_restore`` into an existing database, ending at the first error: no error is tolerated.

    ``create``: make the database first, under the name it was dumped with, its owner, grants and settings included
    (``database`` is then the one to connect to meanwhile: ``postgres``); for the whole dump or the schema. ``file``: the archive, or empty for standard input, from which several jobs are not possible. ``tables``: plain
    names, since pg_restore's --table takes no schema.
    """
    if jobs > 1 and not file:
        raise InputError("several jobs cannot restore from a pipe", "a file, or one job")
    argv = ["pg_restore", "--exit-on-error", "--no-password", f"--dbname={server.conninfo(database)}"]
    argv += ["--create"] if create else []
    argv += [f"--jobs={jobs}"] if jobs > 1 else []
    argv += [f"--section={section}"] if section else []
    argv += [f"--table={name}" for name in tables]
    return [*argv, file] if file else argv


def restore_globals(server: Server, database: str = "postgres") -> list[str]:
    """``psql`` for a dump of globals on standard input: no psqlrc, and it ends at the first error."""
    return ["psql", "--no-psqlrc", "--quiet", "--no-password", "--set=ON_ERROR_STOP=1", "--output=/dev/null",
            f"--dbname={server.conninfo(database)}", "--file=-"]  # fmt: skip


def streams(sizes: Mapping[str, int], count: int, *, smallest: int = 64 * 1024**2) -> list[list[str]]:
    """Tables shared out over at most ``count`` parallel data streams of about the same size; largest first.

    ``sizes``: table to bytes. Tables below ``smallest`` are left to the stream of the rest, which catches every table not
    named. Greedy (each to the lightest stream so far): at most 4/3 of the best possible.
    """
    loads = [0] * max(0, count)
    shares: list[list[str]] = [[] for _ in loads]
    for name, size in sorted(sizes.items(), key=lambda item: (-item[1], item[0])):
        if size >= smallest and loads:
            lightest = loads.index(min(loads))
            loads[lightest] += size
            shares[lightest].append(name)
    return [share for share in shares if share]
