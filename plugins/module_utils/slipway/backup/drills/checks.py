# SPDX-License-Identifier: Apache-2.0
"""What a drill asks of the restored copy beyond its comparison with the manifest: foreign keys, structure, the sentinel's age."""

# ruff: noqa: S608 - names come quoted from the catalog
from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from .. import catalog
from ..manifest import Contents, Database, Manifest
from ..pipeline import PipelineError, Stage, run
from ..verdict import FAILED, NOT_APPLICABLE, PASSED, REQUIRED, SKIPPED, Check
from .assertions import NAME, Assertion, ask
from .scratch import Scratch

SENTINEL_AGE = timedelta(hours=1)
_SHOWN = 10

# name, child, parent, validated, match type, child's columns, parent's columns, equality operators (parent = child).
# Constraints that stand for a partition's part of another one are left to that one.
_FOREIGN_KEYS = """
SELECT format('%I.%I.%I', n.nspname, c.relname, k.conname),
  CASE WHEN c.relkind = 'p' THEN '' ELSE 'ONLY ' END || format('%I.%I', n.nspname, c.relname),
  CASE WHEN p.relkind = 'p' THEN '' ELSE 'ONLY ' END || format('%I.%I', pn.nspname, p.relname),
  k.convalidated AND coalesce((to_jsonb(k) ->> 'conenforced')::bool, true), k.confmatchtype::text,
  ARRAY(SELECT quote_ident(a.attname) FROM unnest(k.conkey) WITH ORDINALITY u (number, place)
    JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.number ORDER BY u.place),
  ARRAY(SELECT quote_ident(a.attname) FROM unnest(k.confkey) WITH ORDINALITY u (number, place)
    JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.number ORDER BY u.place),
  ARRAY(SELECT format('OPERATOR(%I.%s)', opn.nspname, o.oprname) FROM unnest(k.conpfeqop) WITH ORDINALITY u (operator, place)
    JOIN pg_operator o ON o.oid = u.operator JOIN pg_namespace opn ON opn.oid = o.oprnamespace ORDER BY u.place)
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_class p ON p.oid = k.confrelid JOIN pg_namespace pn ON pn.oid = p.relnamespace
WHERE k.contype = 'f' AND k.conparentid = 0 AND coalesce((to_jsonb(k) ->> 'conperiod')::bool, false) = false
ORDER BY 1
"""


@dataclass(frozen=True)
class ForeignKey:
    """One of them, names quoted. ``match``: ``s`` or ``f``; ``operators``: parent's column = child's column."""

    name: str
    child: str
    parent: str
    valid: bool
    match: str
    columns: Sequence[str]
    keys: Sequence[str]
    operators: Sequence[str]


def orphans(key: ForeignKey) -> str:
    """The query that counts rows that point nowhere, by the operators that the constraint itself uses. Pure."""
    columns, child, parent = key.columns, key.child, key.parent
    filled = " AND ".join(f"f.{column} IS NOT NULL" for column in columns)
    empty = " AND ".join(f"f.{column} IS NULL" for column in columns)
    same = " AND ".join(
        f"p.{its} {operator} f.{column}" for its, operator, column in zip(key.keys, key.operators, columns, strict=True)
    )
    wrong = f"({filled}) AND NOT EXISTS (SELECT FROM {parent} p WHERE {same})"
    if key.match == "f" and len(columns) > 1:  # MATCH FULL: all of the columns or none of them
        wrong = f"({wrong}) OR NOT (({filled}) OR ({empty}))"
    return f"SELECT count(*) FROM {child} f WHERE {wrong}"


def foreign_keys(scratch: Scratch, databases: Iterable[Database]) -> tuple[list[Check], list[str]]:
    """Every foreign key asked again, whatever the restore said of it; and notes on those that the source never validated."""
    import psycopg

    wrong, notes, asked = [], [], 0
    for database in databases:
        try:
            with scratch.connect(database.name) as conn:
                conn.execute(b"SET search_path = ''; SET row_security = off")
                for row in conn.execute(_FOREIGN_KEYS.encode()).fetchall():
                    key = ForeignKey(*row)
                    answer = conn.execute(orphans(key).encode()).fetchone()
                    count, asked = int(answer[0]) if answer else 0, asked + 1
                    if count and key.valid:
                        wrong.append(f"{database.name}: {count} rows of {key.name} point nowhere")
                    elif count:
                        notes.append(
                            f"{database.name}: {key.name} is NOT VALID on the source, {count} rows point nowhere"
                        )
        except psycopg.Error as error:
            reason = f"{database.name}: {' '.join(str(error).split())}"
            return [Check("foreign keys", SKIPPED, REQUIRED["foreign keys"], reason)], notes
    if wrong:
        return [Check("foreign keys", FAILED, REQUIRED["foreign keys"], "; ".join(wrong[:_SHOWN]))], notes
    return [Check("foreign keys", PASSED, REQUIRED["foreign keys"], f"{asked} foreign keys asked")], notes


def structure(scratch: Scratch, *, jobs: int, timeout: float | None = None) -> list[Check]:
    """``pg_amcheck`` over every table and B-tree of the copy. It installs its extension: after everything else was read."""
    server = scratch.server
    command = ["pg_amcheck", "--all", f"--jobs={jobs}", "--install-missing", "--no-password", f"--host={server.host}",
               f"--port={server.port}", f"--username={server.user}", f"--maintenance-db={scratch.maintenance}"]  # fmt: skip
    found = bytearray()
    try:
        run([Stage("pg_amcheck", command, scratch.env)], found.extend, may_be_empty=True, hashed=False, timeout=timeout)
    except PipelineError as error:
        words = " ".join(found.decode(errors="replace").split())[:1000]
        if words:  # what it found goes to its standard output; without any, it could not look
            return [Check("structure", FAILED, REQUIRED["structure"], words)]
        return [Check("structure", SKIPPED, REQUIRED["structure"], str(error))]
    return [Check("structure", PASSED, REQUIRED["structure"])]


def sentinel(taken: Manifest) -> list[Check]:
    """Whether the sentinel is as fresh as the snapshot: an old one means a dump of a stopped or another server."""
    old = [
        f"{each.name}: the sentinel is of {each.sentinel.at:%Y-%m-%d %H:%M:%S} UTC, the snapshot of {each.snapshot.at:%Y-%m-%d %H:%M:%S}"
        for each in taken.contents.databases
        if each.sentinel and each.snapshot.at - each.sentinel.at > SENTINEL_AGE
    ]
    return [Check("sentinel", FAILED, REQUIRED["sentinel"], "; ".join(old))] if old else []


def assertions(scratch: Scratch, taken: Manifest, wanted: Sequence[Assertion]) -> list[Check]:
    """The user's own. One that names no database means the only one, or the first that has a table."""
    import psycopg

    if not wanted:
        return [Check(NAME, NOT_APPLICABLE, "the user's own SQL", "none are set")]
    names = [each.name for each in taken.contents.databases]
    likely = [each.name for each in taken.contents.databases if each.name != "postgres"] or names
    checks = []
    for each in wanted:
        name = each.database or (likely[0] if likely else "")
        if name not in names:
            checks.append(Check(NAME, FAILED, each.name, f"{each.name}: the backup has no database {name}"))
            continue
        try:
            with scratch.connect(name) as conn:
                checks.append(ask(conn, each, taken=taken.taken))
        except psycopg.Error as error:
            checks.append(Check(NAME, SKIPPED, each.name, f"{each.name}: {' '.join(str(error).split())}"))
    return checks


def observe(scratch: Scratch, taken: Manifest, *, jobs: int) -> Contents:
    """The restored copy as the manifest describes its source, the same rows hashed. Raises CatalogError."""
    with ThreadPoolExecutor(jobs, thread_name_prefix="observe") as pool:
        try:
            seen = list(pool.map(lambda each: _observe(scratch, each), taken.contents.databases))
        except KeyboardInterrupt:
            scratch.halt()
            raise
    with scratch.connect() as conn:
        return Contents(catalog.read_cluster(conn), tuple(each for each in seen if each))


def _observe(scratch: Scratch, before: Database) -> Database | None:
    import psycopg

    try:
        conn = scratch.connect(before.name)
    except psycopg.Error as error:
        if "does not exist" in str(error):
            return None  # the comparison says so
        raise catalog.CatalogError(f"Database {before.name} cannot be read: {' '.join(str(error).split())}") from error
    samples: dict[str, Any] = {each.name: each.sample for each in before.tables}
    with conn, catalog.snapshot_of(conn) as snapshot:
        return catalog.read_database(conn, snapshot, samples=samples)
