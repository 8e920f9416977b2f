# SPDX-License-Identifier: Apache-2.0
"""A restored database takes the place of the live one, and back: two renames in one transaction.

While they happen nobody may be connected to either. The pooler, where one runs on this host, holds its clients back; all
others are cut off, and come back by themselves. How long that was is measured.
"""

# ruff: noqa: S608 - values are quoted
from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import InputError
from .restore import RestoreError, execute, ident, literal, named

if TYPE_CHECKING:
    from psycopg import Connection

LONGEST = 30.0
Connect = Callable[[], AbstractContextManager[Any]]
Paused = Callable[[], AbstractContextManager[bool]]


@dataclass(frozen=True)
class Swapped:
    """A swap that is over. ``aside``: the name that the one that was live has now; ``paused``: by the pooler."""

    live: str
    aside: str
    milliseconds: int
    cut_off: int
    paused: bool


def pooler_port(folder: Path = Path("/run/pgbouncer")) -> int:
    """The port of the pooler on this host, by its socket; 0 where none runs."""
    found = [re.fullmatch(r"\.s\.PGSQL\.([0-9]+)", each.name) for each in folder.glob(".s.PGSQL.*")]
    return next((int(each[1]) for each in found if each), 0)


def swap(connect: Connect, live: str, other: str, aside: str, paused: Paused) -> Swapped:
    """``live`` becomes ``aside``, ``other`` becomes ``live``: both or none. ``connect``: to a third database, as superuser.

    Raises RestoreError; then everything has the name that it had.
    """
    with connect() as conn:
        names = {name for (name,) in execute(conn, "SELECT datname::text FROM pg_database")}
        for name, wanted in ((live, True), (other, True), (aside, False)):
            if (name in names) is not wanted:
                there = "does not exist" if wanted else "exists already"
                raise RestoreError(f"The database {name} {there}", "it" if wanted else "a name that is free")
        begun = time.monotonic()
        with paused() as held, _nobody_in(connect, (live, other)) as cut_off:
            begun = begun if held else time.monotonic()
            _rename(conn, live, other, aside)
    return Swapped(live, aside, int((time.monotonic() - begun) * 1000), cut_off[0], held)


@contextmanager
def _nobody_in(connect: Connect, names: tuple[str, ...]) -> Iterator[list[int]]:
    """Cut off whoever is connected, again and again while the block runs; how many that were.

    A rename locks its database first and then waits for those who are in: the lock keeps new ones out, and this ends
    the others. So no connection can be quicker, and no database is left closed if we are killed.
    """
    cut_off, over = [0], threading.Event()
    ours = ", ".join(literal(name) for name in names)
    query = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname IN ({ours})"
    with connect() as conn:

        def work() -> None:
            while not over.is_set():
                try:
                    cut_off[0] += len(execute(conn, query))
                except RestoreError:
                    return
                over.wait(0.02)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            yield cut_off
        finally:
            over.set()
            thread.join()


def _rename(conn: Connection[Any], live: str, other: str, aside: str) -> None:
    limit = time.monotonic() + LONGEST
    while True:
        try:
            with conn.transaction():
                execute(conn, f"ALTER DATABASE {ident(live)} RENAME TO {ident(aside)}")
                execute(conn, f"ALTER DATABASE {ident(other)} RENAME TO {ident(live)}")
        except RestoreError as error:
            if time.monotonic() < limit:
                continue
            raise RestoreError(
                f"The databases could not be renamed within {LONGEST:.0f} s, and nothing was. {error.found}",
                "nobody connected to them",
                "stop what stays connected (a prepared transaction, a replication slot), then run it again",
            ) from error
        else:
            return


def undo(connect: Connect, live: str, now: datetime, paused: Paused) -> Swapped:
    """Back to the database that was live before the last swap; the restored one is kept beside it."""
    with connect() as conn:
        names = [name for (name,) in execute(conn, "SELECT datname::text FROM pg_database ORDER BY 1")]
    kept = [
        name for name in names if re.fullmatch(r".*_before_[0-9]{8}_[0-9]{6}", name) and name == aside_name(live, name)
    ]
    if not kept:
        raise InputError(
            f"There is no database that was {live} before a restore", f"one named {live}_before_<date>",
            "nothing was restored over it, or it was dropped",
        )  # fmt: skip
    return swap(connect, live, kept[-1], named(live, "undone", now), paused)


def aside_name(live: str, name: str) -> str:
    """The name that ``live`` would have been given at the time in ``name``."""
    at = datetime.strptime(name[-15:], "%Y%m%d_%H%M%S")
    return named(live, "before", at)
