# SPDX-License-Identifier: Apache-2.0
"""Schema migrations: ``python -m notes.migrate``.

Each step only adds (expand, backfill, contract), so that the release still serving keeps working while it runs.
Safe to run again and by several at once: an advisory lock, held on the session-pooled URL, lets one through.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

from .settings import SettingError, Settings, from_environment

if TYPE_CHECKING:
    import psycopg

LOCK_KEY = 0x6E6F746573  # "notes"
LOCK_WAIT_SECONDS = 60


class Migration(NamedTuple):
    """One additive step, applied in a transaction of its own."""

    level: int
    name: str
    sql: str


MIGRATIONS = (
    Migration(
        1,
        "create notes",
        "CREATE TABLE notes (id uuid PRIMARY KEY, text text NOT NULL, created_at timestamptz NOT NULL DEFAULT now())",
    ),
    Migration(
        2,
        "count deliveries, so that a request delivered twice shows",
        "ALTER TABLE notes ADD COLUMN deliveries integer NOT NULL DEFAULT 1",
    ),
    Migration(3, "index for the newest first", "CREATE INDEX notes_created_at ON notes (created_at DESC)"),
    Migration(
        4,
        "queue of background jobs",
        "CREATE TABLE notes_job (id uuid PRIMARY KEY, seconds real NOT NULL, created_at timestamptz NOT NULL DEFAULT now(),"
        " done_at timestamptz, done integer NOT NULL DEFAULT 0, release text);"
        " CREATE INDEX notes_job_waiting ON notes_job (created_at) WHERE done_at IS NULL;"
        # Not undone with its transaction: counts also what was begun and cut off.
        " CREATE SEQUENCE notes_job_begun",
    ),
)
LEVEL = MIGRATIONS[-1].level


class MigrationError(Exception):
    """The migration did not happen; nothing of the failed step was kept."""


def pending(level: int) -> tuple[Migration, ...]:
    """Steps still to be applied at a schema level (0 = empty database), in order."""
    return tuple(step for step in MIGRATIONS if step.level > level)


def migrate(settings: Settings) -> list[Migration]:
    """Bring the schema to `LEVEL`; return the steps applied (none when it was there already)."""
    import psycopg

    if settings.fail_migration:
        raise MigrationError("FAIL_MIGRATION is set: this migration fails on purpose")
    try:
        with psycopg.connect(settings.session_url, autocommit=True, prepare_threshold=None) as connection:
            _take_lock(connection)
            try:
                return _apply(connection)
            finally:
                # By hand: the pooler may keep the server connection, and with it the lock.
                connection.execute("SELECT pg_advisory_unlock(%s)", (LOCK_KEY,))
    except psycopg.Error as error:
        raise MigrationError(" ".join(str(error).split())) from error


def _take_lock(connection: psycopg.Connection) -> None:
    deadline = time.monotonic() + LOCK_WAIT_SECONDS
    while True:
        row = connection.execute("SELECT pg_try_advisory_lock(%s)", (LOCK_KEY,)).fetchone()
        if row and row[0]:
            return
        if time.monotonic() > deadline:
            raise MigrationError(f"another migration has held the lock for {LOCK_WAIT_SECONDS} s")
        time.sleep(0.5)


def _apply(connection: psycopg.Connection) -> list[Migration]:
    connection.execute(
        "CREATE TABLE IF NOT EXISTS notes_migration"
        " (level integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
    )
    row = connection.execute("SELECT coalesce(max(level), 0) FROM notes_migration").fetchone()
    steps = pending(row[0] if row else 0)
    for step in steps:
        with connection.transaction():
            # Waiting for a table lock queues every reader behind it: give up early instead.
            connection.execute("SET LOCAL lock_timeout = '5s'")
            connection.execute(step.sql)
            connection.execute("INSERT INTO notes_migration (level, name) VALUES (%s, %s)", (step.level, step.name))
    return list(steps)


def main() -> int:
    """Run as a release command: 0 when the schema is at `LEVEL`, 1 with one line on stderr otherwise."""
    try:
        applied = migrate(from_environment(os.environ))
    except (SettingError, MigrationError) as error:
        print(f"migration failed: {error}", file=sys.stderr)
        return 1
    for step in applied:
        print(f"applied {step.level}: {step.name}")
    print(f"schema at level {LEVEL}" + ("" if applied else ", nothing to do"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
