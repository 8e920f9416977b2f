# SPDX-License-Identifier: Apache-2.0
"""While a dump runs: whether its snapshot is still held, and whether the app waits for it.

A dump holds a reader's lock on every table. An ``ALTER TABLE`` has to wait for that, and every query on the table that
comes after it waits behind it: the app stands still though nothing is broken. So the backup gives way.
"""

from __future__ import annotations

import time
from typing import Any

from ...errors import SlipwayError
from .. import argv
from . import source

SECONDS = 2.0

# Which statement it is, without its values: the first two words.
_LOOK = f"""
SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = %s),
  (SELECT concat_ws('|', extract(epoch FROM clock_timestamp() - l.waitstart)::int, a.usename,
      coalesce((SELECT c.oid::regclass::text FROM pg_class c WHERE c.oid = l.relation), '?'),
      array_to_string((regexp_split_to_array(btrim(a.query), '\\s+'))[1:2], ' '))
    FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
    WHERE NOT l.granted AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND a.application_name <> '{source.APPLICATION}'
      AND EXISTS (SELECT FROM pg_stat_activity b
        WHERE b.application_name = '{source.APPLICATION}' AND b.pid = ANY (pg_blocking_pids(l.pid)))
    ORDER BY l.waitstart LIMIT 1)
"""  # noqa: S608 - a constant of this package


class GaveWayError(SlipwayError):
    """The backup ended because somebody had waited for it too long."""


class HolderError(SlipwayError):
    """The session that held the snapshot is gone: what was not begun by then cannot be of the same moment."""


class Watch:
    """Called twice a second, looks every two: raises what must end the dump."""

    def __init__(self, server: argv.Server, database: str, holder: int, give_way: int) -> None:
        self._conn = source.connect(server, database)
        self._holder, self._give_way, self._database = holder, give_way, database
        self._next = time.monotonic() + SECONDS

    def __call__(self) -> None:
        """Look, if it is time. Raises HolderError, GaveWayError, SourceError."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + SECONDS
        import psycopg

        try:
            held, waiting = self._look()
        except psycopg.Error as error:
            words = " ".join(str(error).split())
            raise source.SourceError(f"The server went away while {self._database} was dumped: {words}") from error
        if not held:
            raise HolderError(
                f"The session that held the snapshot of {self._database} is gone", "it held until the dump is over",
                "see the server's log: somebody ended it, or the server was restarted",
            )  # fmt: skip
        if waiting and self._give_way:
            seconds, role, table, statement = (*str(waiting).split("|", 3), "", "", "")[:4]
            if int(seconds or 0) >= self._give_way:
                raise GaveWayError(
                    f"The backup gave way: {statement} on {table} by {role} had waited {seconds} s for it",
                    f"nobody waiting {self._give_way} s, since everything else on that table then waits too",
                    "run migrations at another hour than backups, or give them a lock_timeout and try them again",
                )  # fmt: skip

    def _look(self) -> tuple[Any, ...]:
        found = self._conn.execute(_LOOK.encode(), [self._holder]).fetchone()
        return found or (False, None)

    def close(self) -> None:
        """Let the connection go."""
        self._conn.close()
