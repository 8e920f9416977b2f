# SPDX-License-Identifier: Apache-2.0
"""The database as the service sees it: a few questions, asked through a pool.

Every statement stands alone (autocommit), as transaction pooling wants it, and each may be repeated: when the
server goes away in the middle, the question is asked again for a few seconds before the visitor hears of it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

import psycopg
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from .migrate import LEVEL
from .settings import Settings

ANSWER_SECONDS = 15.0
READY_SECONDS = 3.0
Answer = TypeVar("Answer")
Connection = psycopg.AsyncConnection
Ask = Callable[[Connection, int], Awaitable[Answer]]


class Note(NamedTuple):
    """A row of ``notes``."""

    id: UUID
    text: str
    created_at: datetime


class Count(NamedTuple):
    """How many notes there are, and how many were delivered more than once."""

    notes: int
    duplicates: int


class Jobs(NamedTuple):
    """How many background jobs wait, how many are done, and how many of these more than once (none, ever)."""

    waiting: int
    done: int
    repeated: int


class Unavailable(Exception):
    """The database did not answer in time."""


class Database:
    """The pool and the statements. Use as an async context manager; opening does not wait for the server."""

    def __init__(self, settings: Settings) -> None:
        self._pool = AsyncConnectionPool(
            settings.database_url,
            # Grows when needed: idle connections of many workers would only take places in the pooler.
            min_size=min(2, settings.pool_max),
            max_size=settings.pool_max,
            timeout=ANSWER_SECONDS,
            kwargs={
                "autocommit": True,
                "connect_timeout": 5,
                "application_name": f"notes {settings.release}",
                # Poolers can keep prepared statements apart only if the client closes them by protocol (libpq 17).
                "prepare_threshold": 5 if psycopg.capabilities.has_send_close_prepared() else None,
            },
            open=False,
        )
        self._probe: asyncio.Task[int] | None = None
        self._abandoned: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Database:
        await self._pool.open(wait=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._pool.close(timeout=2)

    async def add(self, note_id: UUID, text: str) -> bool:
        """Store a note; False when its id was there already. The row counts how often it was delivered."""

        async def ask(connection: Connection, attempt: int) -> bool:
            cursor = await connection.execute(
                "INSERT INTO notes (id, text) VALUES (%s, %s)"
                " ON CONFLICT (id) DO UPDATE SET deliveries = notes.deliveries + %s"
                " RETURNING (xmax = 0)",
                # Our own repetition after a lost answer is not a second delivery.
                (note_id, text, 0 if attempt else 1),
            )
            row = await cursor.fetchone()
            return bool(row and row[0]) or attempt > 0

        return await self._ask(ask)

    async def get(self, note_id: UUID) -> Note | None:
        """One note, or None."""

        async def ask(connection: Connection, _: int) -> Note | None:
            cursor = await connection.execute("SELECT id, text, created_at FROM notes WHERE id = %s", (note_id,))
            row = await cursor.fetchone()
            return Note(*row) if row else None

        return await self._ask(ask)

    async def newest(self, limit: int) -> list[Note]:
        """The newest notes first."""

        async def ask(connection: Connection, _: int) -> list[Note]:
            cursor = await connection.execute(
                "SELECT id, text, created_at FROM notes ORDER BY created_at DESC LIMIT %s", (limit,)
            )
            return [Note(*row) for row in await cursor.fetchall()]

        return await self._ask(ask)

    async def count(self) -> Count:
        """Totals over all notes."""

        async def ask(connection: Connection, _: int) -> Count:
            cursor = await connection.execute("SELECT count(*), coalesce(sum(deliveries - 1), 0) FROM notes")
            row = await cursor.fetchone()
            return Count(int(row[0]), int(row[1])) if row else Count(0, 0)

        return await self._ask(ask)

    async def enqueue(self, job_id: UUID, seconds: float) -> bool:
        """Lay a job down for the background workers; False when it is known already."""

        async def ask(connection: Connection, attempt: int) -> bool:
            cursor = await connection.execute(
                "INSERT INTO notes_job (id, seconds) VALUES (%s, %s) ON CONFLICT (id) DO NOTHING", (job_id, seconds)
            )
            return cursor.rowcount == 1 or attempt > 0

        return await self._ask(ask)

    async def jobs(self) -> Jobs:
        """How many jobs wait, are done, and were done more than once."""

        async def ask(connection: Connection, _: int) -> Jobs:
            cursor = await connection.execute(
                "SELECT count(*) FILTER (WHERE done = 0), count(*) FILTER (WHERE done > 0),"
                " count(*) FILTER (WHERE done > 1) FROM notes_job"
            )
            row = await cursor.fetchone()
            return Jobs(*row) if row else Jobs(0, 0, 0)

        return await self._ask(ask)

    async def readiness(self) -> str | None:
        """None when the database answers at the schema level this release needs, else why not."""
        # One question at a time: while the database is away, every probe waits on the same connection.
        if self._probe is None or self._probe.done():
            self._probe = asyncio.create_task(self._level())
        done, _ = await asyncio.wait({self._probe}, timeout=READY_SECONDS)
        if not done:
            return f"no answer from the database in {READY_SECONDS:g} s"
        try:
            level = self._probe.result()
        except psycopg.errors.UndefinedTable:
            return f"schema is empty, level {LEVEL} is needed: run python -m notes.migrate"
        except psycopg.Error as error:
            return f"database error: {type(error).__name__}"
        # A higher level is fine: migrations only add, and an older release must be able to come back.
        return None if level >= LEVEL else f"schema is at level {level}, level {LEVEL} is needed"

    async def _level(self) -> int:
        async with self._pool.connection() as connection:
            cursor = await connection.execute("SELECT coalesce(max(level), 0) FROM notes_migration")
            row = await cursor.fetchone()
            return int(row[0]) if row else 0

    async def _ask(self, ask: Ask[Answer]) -> Answer:
        # Not asyncio.timeout: cancelling a query waits for the server to confirm, and it may be the one that is gone.
        task = asyncio.create_task(self._persist(ask))
        done, _ = await asyncio.wait({task}, timeout=ANSWER_SECONDS)
        if done:
            return task.result()
        self._abandoned.add(task)
        task.add_done_callback(self._forget)
        raise Unavailable(f"no answer in {ANSWER_SECONDS:g} s")

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._abandoned.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, so that asyncio does not complain: the visitor has been told already

    async def _persist(self, ask: Ask[Answer]) -> Answer:
        deadline = time.monotonic() + ANSWER_SECONDS
        attempt = 0
        while True:
            try:
                async with self._pool.connection(timeout=max(0.1, deadline - time.monotonic())) as connection:
                    return await ask(connection, attempt)
            except psycopg.OperationalError as error:
                attempt += 1
                pause = min(1.0, 0.05 * 2**attempt)
                if isinstance(error, PoolTimeout) or time.monotonic() + pause > deadline:
                    raise Unavailable(type(error).__name__) from error
                await asyncio.sleep(pause)
