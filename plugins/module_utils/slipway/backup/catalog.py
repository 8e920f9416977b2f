# SPDX-License-Identifier: Apache-2.0
"""Reading a live database within one snapshot: what the manifest says of it, and what a drill compares.

Every function takes a psycopg connection in autocommit mode to the one database meant, of a role that sees everything
(a superuser: large objects and other owners' tables). The order that makes the figures agree with the dump:

1. :func:`hold` begins the transaction and exports its snapshot; :func:`read_sequences` comes next, *before* pg_dump
   starts, because sequences take no part in snapshots and must not be read later than the dump reads them.
2. pg_dump runs with ``--snapshot``; other connections :func:`join` it; :func:`read_database` reads meanwhile.
3. :func:`release` ends it. While it is held, vacuum cannot clean up what changed since.

The content hash of a table is the sum over its rows of a 64-bit hash of the row's text: free of order, and counting
duplicates. What decides a row's text besides its data (time zone, float digits, search path ...) is pinned by ``PINNED``.
"""

# ruff: noqa: S608 - table and column names come quoted from the catalog; the one value is quoted here
from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ..errors import SlipwayError
from . import catalog_sql as sql
from .manifest import (
    Access,
    Cluster,
    Database,
    Extension,
    LargeObjects,
    Role,
    Sample,
    Sentinel,
    Sequence,
    Snapshot,
    Table,
)

if TYPE_CHECKING:
    from psycopg import Connection

METHOD = "sum-hashtextextended-v1"
FULL_HASH_BYTES = 20 * 1024**3  # a table beyond this is sampled by its primary key; its rows are still all counted
SENTINEL = "slipway.sentinel"

# What changes the text of a value, and what would cut a long read short. search_path: names of functions and tables in
# reg* columns are written in full only when nothing is on it. row_security off: an error instead of rows missing.
PINNED: Mapping[str, str] = {
    "timezone": "UTC", "datestyle": "ISO, YMD", "intervalstyle": "postgres", "extra_float_digits": "1",
    "bytea_output": "hex", "xmlbinary": "base64", "lc_monetary": "C", "client_encoding": "UTF8", "search_path": "",
    "row_security": "off", "quote_all_identifiers": "off", "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0", "max_parallel_workers_per_gather": "0", "jit": "off",
}  # fmt: skip


class CatalogError(SlipwayError):
    """A database could not be read: the server's own words, and what was being read."""


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """The server's errors as CatalogError, with what was being read."""
    import psycopg

    try:
        yield
    except psycopg.errors.LockNotAvailable as error:
        raise CatalogError(
            f"Another session holds a lock on {what} for too long", "the lock within the lock timeout",
            "see who holds it: SELECT * FROM pg_stat_activity WHERE state <> 'idle'",
        ) from error  # fmt: skip
    except psycopg.Error as error:
        raise CatalogError(f"Reading {what} failed: {' '.join(str(error).split())}") from error


def _rows(conn: Connection[Any], query: str, what: str) -> list[tuple[Any, ...]]:
    """Rows of ``query``, which we wrote; as bytes, since psycopg's types take text only as a literal."""
    with _explained(what):
        return conn.execute(query.encode()).fetchall()


def _run(conn: Connection[Any], statement: str, what: str) -> None:
    with _explained(what):
        conn.execute(statement.encode())


def hold(conn: Connection[Any], *, lock_timeout: float = 60) -> tuple[str, Snapshot]:
    """Begin a read-only transaction, export its snapshot and pin the session; (snapshot id, its time and LSN).

    ``lock_timeout``: seconds to wait for any lock. Raises CatalogError.
    """
    _run(conn, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", "the server")
    pin(conn, lock_timeout=lock_timeout)  # before the time is read: psycopg knows one DateStyle only
    query = """SELECT pg_export_snapshot(), clock_timestamp(), CASE WHEN pg_is_in_recovery()
      THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END::text"""
    ((identifier, at, lsn),) = _rows(conn, query, "the snapshot")
    return str(identifier), Snapshot(at.astimezone(UTC), str(lsn))


def join(conn: Connection[Any], snapshot: str, *, lock_timeout: float = 60) -> None:
    """Begin a transaction that sees exactly the exported ``snapshot``. Raises CatalogError, e.g. if its holder is gone."""
    if not snapshot or snapshot.strip("0123456789ABCDEFabcdef-"):
        raise CatalogError(f"'{snapshot}' is no snapshot id", "one that pg_export_snapshot() gave")
    _run(conn, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", "the server")
    _run(conn, f"SET TRANSACTION SNAPSHOT '{snapshot}'", f"snapshot {snapshot}")
    pin(conn, lock_timeout=lock_timeout)


def pin(conn: Connection[Any], *, lock_timeout: float = 60) -> None:
    """Fix, for this transaction, every setting that decides how values are written. Raises CatalogError."""
    values = {**PINNED, "lock_timeout": f"{int(lock_timeout * 1000)}ms"}
    statements = [f"SET LOCAL {name} = '{value}'" for name, value in values.items()]
    # PostgreSQL 17 and later: it would end a transaction as long as a backup's whatever the session does.
    statements.append("SELECT set_config(name, '0', true) FROM pg_settings WHERE name = 'transaction_timeout'")
    _run(conn, "; ".join(statements), "the session's settings")


def release(conn: Connection[Any], snapshot: Snapshot, now: datetime) -> Snapshot:
    """End the transaction; the snapshot with the time it was held. Raises CatalogError if the session is gone."""
    _run(conn, "COMMIT", "the end of the snapshot")
    return replace(snapshot, held_ms=max(0, int((now - snapshot.at).total_seconds() * 1000)))


@contextmanager
def snapshot_of(conn: Connection[Any], *, lock_timeout: float = 60) -> Iterator[Snapshot]:
    """A transaction for reading alone, as a drill needs it: nothing is exported to anybody, the end is a roll-back."""
    _identifier, snapshot = hold(conn, lock_timeout=lock_timeout)
    try:
        yield snapshot
    finally:
        if not conn.closed:
            conn.rollback()


def read_cluster(conn: Connection[Any]) -> Cluster:
    """The server: version, roles without passwords, tablespaces, settings that somebody set. Raises CatalogError."""
    ((version, number, identifier, checksums, tablespaces, bootstrap),) = _rows(conn, sql.CLUSTER, "the server")
    roles = [
        Role(name, tuple(attributes), tuple(groups), tuple(_setting(*each.split("=", 1)) for each in settings))
        for name, attributes, groups, settings in _rows(conn, sql.ROLES, "the roles")
    ]
    settings = {name: _guarded(name, value) for name, value in _rows(conn, sql.SERVER_SETTINGS, "the settings")}
    return Cluster(
        version.split()[0], number, identifier, checksums, tuple(roles), tuple(tablespaces), settings, bootstrap
    )


def read_sequences(conn: Connection[Any]) -> tuple[Sequence, ...]:
    """Every sequence's value, without its column yet (see :func:`read_database`). Raises CatalogError."""
    found = []
    for name, increment, table, column in _rows(conn, sql.SEQUENCES, "the sequences"):
        ((value, called),) = _rows(conn, f"SELECT last_value, is_called FROM {name}", f"sequence {name}")
        found.append(Sequence(name, value, called, increment, f"{table}.{column}" if table else ""))
    return tuple(found)


def read_database(
    conn: Connection[Any],
    snapshot: Snapshot,
    *,
    sequences: tuple[Sequence, ...] | None = None,
    tables: tuple[Table, ...] | None = None,
    samples: Mapping[str, Sample | None] | None = None,
    full_bytes: int = FULL_HASH_BYTES,
) -> Database:
    """Everything about the database of ``conn``, inside its transaction.

    ``tables``: as read on other connections that joined the snapshot; None reads them here.

    ``sequences``: as read before the dump began; None reads them now (right in a drill). ``samples``: table name to
    the rule of the manifest, so that a drill hashes the same rows; without it, tables beyond ``full_bytes`` that have a
    primary key are sampled. Raises CatalogError.
    """
    ((name, owner, encoding, size, collation, collation_version),) = _rows(conn, sql.DATABASE, "the database")
    unchecked = [row[0] for row in _rows(conn, sql.UNCHECKED, "the catalog")]
    if tables is None:
        listed = lock_tables(conn)
        tables = tuple(read_table(conn, *row, samples=samples, full_bytes=full_bytes) for row in listed)
    counted = read_sequences(conn) if sequences is None else sequences
    large, too_big = _large_objects(conn)
    unchecked += [f"large object {number}: beyond 512 MB, not hashed" for number in too_big]
    extensions = tuple(Extension(*row) for row in _rows(conn, sql.EXTENSIONS, "the extensions"))
    settings = {key: _guarded(key, value) for key, value in _rows(conn, sql.DATABASE_SETTINGS, "the settings")}
    return Database(
        name=name, owner=owner, encoding=encoding, collation=collation, collation_version=collation_version, bytes=size, snapshot=snapshot, tables=tables,
        sequences=tuple(_with_column(conn, each) for each in counted), extensions=extensions,
        schema={kind: _definitions(conn, kind, query) for kind, query in sql.SCHEMA.items()},
        access=tuple(
            Access(kind, subject, its_owner, tuple(privileges))
            for kind, subject, its_owner, privileges in _rows(conn, sql.ACCESS, "the grants")
        ),
        settings=settings, large_objects=large, sentinel=_sentinel(conn), unchecked=tuple(unchecked),
    )  # fmt: skip


def read_table(
    conn: Connection[Any],
    name: str,
    size: int | None,
    key: list[str],
    condition: str = "",
    *,
    samples: Mapping[str, Sample | None] | None = None,
    full_bytes: int = FULL_HASH_BYTES,
) -> Table:
    """Count every row of one table and hash them, or those of the sample. ``name`` and ``key`` are quoted already.

    ``condition``: an extension's own WHERE on its configuration table (a dump holds those rows only).
    """
    sample = samples.get(name) if samples is not None else sampling(size or 0, tuple(key), full_bytes)
    picked = ""
    if sample is not None:
        columns = ", ".join(f"r.{column}" for column in sample.key)
        picked = f' FILTER (WHERE hashtextextended(ROW({columns})::text COLLATE "C", 1) % {sample.modulus} = 0)'
    query = (
        f"SELECT count(*), count(*){picked}, "
        f'coalesce(sum(hashtextextended((r.*)::text COLLATE "C", 0)){picked}, 0)::text FROM ONLY {name} AS r {condition}'
    )
    ((rows, hashed, content),) = _rows(conn, query, f"table {name}")
    return Table(name, rows, hashed, content, METHOD, size or 0, sample)


def sampling(size: int, key: tuple[str, ...], full_bytes: int = FULL_HASH_BYTES) -> Sample | None:
    """The rule for a table of ``size`` bytes: None (every row) up to ``full_bytes`` or without a primary key.

    Beyond, the smallest power of two that brings the hashed part down to ``full_bytes``. Chosen by the key's value and
    not by place, since a restored table lies differently on disk.
    """
    if size <= full_bytes or not key:
        return None
    modulus = 2
    while size / modulus > full_bytes:
        modulus *= 2
    return Sample(modulus, key)


def stamp(conn: Connection[Any], token: str) -> Sentinel:
    """Write the sentinel row, in its own transaction and before the snapshot; what the manifest must then show.

    Needs a role that may create schema ``slipway``. Raises CatalogError (on a standby, for one).
    """
    quoted = token.replace("'", "''").replace("\0", "")
    query = (
        f"INSERT INTO {SENTINEL} VALUES (true, clock_timestamp(), '{quoted}') "
        "ON CONFLICT (id) DO UPDATE SET at = excluded.at, token = excluded.token RETURNING at, token"
    )
    with _explained("the sentinel"), conn.transaction():
        pin(conn)
        _run(conn, "CREATE SCHEMA IF NOT EXISTS slipway", "the sentinel")
        _run(
            conn,
            f"CREATE TABLE IF NOT EXISTS {SENTINEL} (id boolean PRIMARY KEY DEFAULT true CHECK (id), "
            "at timestamptz NOT NULL, token text NOT NULL)",
            "the sentinel",
        )
        ((at, written),) = _rows(conn, query, "the sentinel")
    return Sentinel(at.astimezone(UTC), written)


def _sentinel(conn: Connection[Any]) -> Sentinel | None:
    ((present,),) = _rows(conn, f"SELECT to_regclass('{SENTINEL}') IS NOT NULL", "the sentinel")
    found = _rows(conn, f"SELECT at, token FROM {SENTINEL}", "the sentinel") if present else []
    return Sentinel(found[0][0].astimezone(UTC), found[0][1]) if found else None


def lock_tables(conn: Connection[Any]) -> list[tuple[str, int | None, list[str], str]]:
    """Take the lock of a reader on every table at once: a TRUNCATE later on would show them empty, snapshot or not.

    Gives the arguments of :func:`read_table` for each. Raises CatalogError, also when somebody else's lock is in the way.
    """
    listed = _rows(conn, sql.TABLES, "the tables")
    for start in range(0, len(listed), 500):
        chunk = ", ".join(f"ONLY {row[0]}" for row in listed[start : start + 500])
        _run(conn, f"LOCK TABLE {chunk} IN ACCESS SHARE MODE", "the tables")
    return [(name, size, key, condition) for name, size, key, condition in listed]


def _with_column(conn: Connection[Any], sequence: Sequence) -> Sequence:
    """The sequence with the furthest value of the column that owns it, seen over all partitions."""
    if not sequence.column:
        return sequence
    table, column = _split_column(sequence.column)
    furthest = "max" if sequence.increment > 0 else "min"
    ((value,),) = _rows(conn, f"SELECT {furthest}(r.{column})::bigint FROM {table} AS r", f"column {sequence.column}")
    return replace(sequence, column_furthest=value)


def _split_column(name: str) -> tuple[str, str]:
    """``public."a.b"."c.d"`` as (table, column): the last dot outside quotes parts them."""
    inside, cut = False, 0
    for place, letter in enumerate(name):
        if letter == '"':
            inside = not inside
        elif letter == "." and not inside:
            cut = place
    return name[:cut], name[cut + 1 :]


def _large_objects(conn: Connection[Any]) -> tuple[LargeObjects, list[str]]:
    ((some,),) = _rows(conn, "SELECT EXISTS (SELECT FROM pg_largeobject_metadata)", "large objects")
    if not some:
        return LargeObjects(), []
    too_big = [row[0] for row in _rows(conn, sql.LARGE_OBJECTS_TOO_BIG, "large objects")]
    ((count, size, content),) = _rows(conn, sql.LARGE_OBJECTS, "large objects")
    return LargeObjects(count, size, content), too_big


def _definitions(conn: Connection[Any], kind: str, query: str) -> dict[str, str]:
    """Identity to fingerprint. Fingerprints and not texts: a function's body or a default may hold a secret."""
    return {name: _fingerprint(text or "") for name, text in _rows(conn, query, f"definitions of kind {kind}")}


def _fingerprint(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _setting(name: str, value: str) -> str:
    return f"{name}={_guarded(name, value)}"


def _guarded(name: str, value: str) -> str:
    """The value, or its fingerprint where people are known to keep secrets: custom settings and commands."""
    setting = name.rsplit(": ", 1)[-1]
    if "." in setting or setting.endswith(("_conninfo", "_command", "_library")):
        return f"sha256 {_fingerprint(value)}"
    return value
