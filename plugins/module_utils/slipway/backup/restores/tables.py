# SPDX-License-Identifier: Apache-2.0
"""Single tables from a backup, into a schema of their own in the live database: to look at, compare, copy back from."""

# ruff: noqa: S608 - names are those of the manifest, quoted there
from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ...errors import InputError
from .. import argv
from ..config import Config
from ..taking import source
from .restore import Means, Plan, Restored, RestoreError, Wish, drop, execute, ident, literal, making, plan

if TYPE_CHECKING:
    from psycopg import Connection

# Leaves of a partitioned table, or the table itself; and its columns as plain types.
_LEAVES = """
WITH RECURSIVE below (oid) AS (SELECT {table}::regclass::oid
  UNION ALL SELECT i.inhrelid FROM pg_inherits i JOIN below b ON i.inhparent = b.oid
  JOIN pg_class p ON p.oid = i.inhparent AND p.relkind = 'p')
SELECT c.relname::text FROM below JOIN pg_class c USING (oid) WHERE c.relkind = 'r'
"""
_COLUMNS = """
SELECT quote_ident(attname), format_type(atttypid, atttypmod), (SELECT relkind = 'p' FROM pg_class WHERE oid = attrelid)
FROM pg_attribute WHERE attrelid = {table}::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""


def qualified(name: str) -> tuple[str, str]:
    """``orders`` or ``shop.orders`` as (schema, table), each as SQL has it; quoted parts stay as they are."""
    schema, table = argv.parts(name if "." in name else f"public.{name}")
    return schema, table


def run(config: Config, wish: Wish, means: Means, made: Plan | None = None) -> Restored:
    """Bring back ``wish.tables``, rows only: no indexes, no constraints. All of them or none. Raises SlipwayError."""
    made = made or plan(config, wish, means)
    tables = [qualified(each) for each in wish.tables]
    lacking = [f"{s}.{t}" for s, t in tables if f"{s}.{t}" not in (made.before.schema.get("relation") or {})]
    if lacking:
        raise InputError(f"The backup of {wish.database} has no table {', '.join(lacking)}", "names as schema.table")
    begun = time.monotonic()
    with making(made, means) as refill:

        def leaves() -> list[str]:
            with source.connect(means.server, made.target) as there:
                found = [execute(there, _LEAVES.format(table=literal(f"{s}.{t}"))) for s, t in tables]
            names = sorted({name for rows in found for (name,) in rows})
            if not all(found):
                raise InputError("One of them is a view or a foreign table and has no rows of its own", "tables")
            return names

        means.say(f"restoring the tables' rows into {made.target} for a while")
        refill.tables(made.taken, made.before.name, made.target, leaves)
        with source.connect(means.server, made.target) as there, source.connect(means.server, wish.database) as live:
            counts = _copy(there, live, made.schema, tables)
    drop(means.server, made.target)
    notes = tuple(
        f"{made.schema}.{table}: {count} rows" for (_schema, table), count in zip(tables, counts, strict=True)
    )
    return Restored(
        made.taken.backup_id,
        f"{wish.database}, schema {made.schema}",
        made.taken.taken,
        time.monotonic() - begun,
        (),
        notes,
    )


def _copy(there: Connection[Any], live: Connection[Any], schema: str, tables: list[tuple[str, str]]) -> list[int]:
    """Copy every table in one transaction; rows of each. Two of the same name in different schemas are refused."""
    import psycopg

    if len({table for _schema, table in tables}) != len(tables):
        raise InputError("Two of the tables have the same name", "one restore for each of them")
    counts = []
    try:
        with live.transaction():
            execute(live, "SET LOCAL statement_timeout = 0; SET LOCAL search_path = ''")
            execute(there, "SET statement_timeout = 0; SET search_path = ''")
            execute(live, f"CREATE SCHEMA {ident(schema)}")
            for its_schema, table in tables:
                source_name, target = f"{its_schema}.{table}", f"{ident(schema)}.{table}"
                columns = execute(there, _COLUMNS.format(table=literal(source_name)))
                shape = ", ".join(f"{name} {kind}" for name, kind, _whole in columns)
                execute(live, f"CREATE TABLE {target} ({shape})")
                names = ", ".join(name for name, _kind, _whole in columns)
                only = "" if columns and columns[0][2] else "ONLY "
                query = f"COPY (SELECT {names} FROM {only}{source_name}) TO STDOUT"
                with there.cursor() as reading, live.cursor() as writing:
                    with (
                        reading.copy(query.encode()) as out,
                        writing.copy(f"COPY {target} ({names}) FROM STDIN".encode()) as into,
                    ):
                        for piece in out:
                            into.write(piece)
                    ((rows,),) = execute(there, f"SELECT count(*) FROM {only}{source_name}")
                    ((arrived,),) = execute(live, f"SELECT count(*) FROM {target}")
                if rows != arrived:
                    raise RestoreError(f"{target} has {arrived} rows, the backup's {source_name} {rows}", "the same")
                counts.append(int(arrived))
    except psycopg.Error as error:
        raise RestoreError(
            f"Copying the tables failed: {' '.join(str(error).split())} Nothing was changed",
            "types of the backup's columns in the live database", "restore into a new database instead, and copy from there",
        ) from error  # fmt: skip
    return counts
