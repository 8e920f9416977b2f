# SPDX-License-Identifier: Apache-2.0
"""PgBouncer on this host: that apps can log in through it, and that it runs with what its files say.

Needs psycopg 3 (Debian: python3-psycopg), imported where used.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..commands import run
from ..errors import SlipwayError
from . import server as pgserver
from .objects import SESSION_SUFFIX

RUNTIME = "/run/pgbouncer"
CONSOLE = "pgbouncer"
LOGIN_SECONDS = 15.0
PAUSE_SECONDS = 10
DEAD_MAN, DEAD_MAN_SECONDS = "slipway-pooler-resume", 5
"""The unit that lets go where the process that held back was killed, and how long after the longest pause. A server that needs
longer to come back is waited for all the same: clients wait at the pooler for a connection to it."""


class PoolerError(SlipwayError):
    """The pooler does not run, runs with other settings, or does not let an app in."""


@dataclass(frozen=True)
class Client:
    """An app as it logs in."""

    database: str
    user: str
    password: str = field(repr=False)


def console(port: int, socket_dir: str = RUNTIME) -> Any:
    """A connection to the admin console, as the pooler's own system user. Raises ServerError."""
    return pgserver.connect(CONSOLE, port=port, user=CONSOLE, socket_dir=socket_dir, options=None)


def running_settings(connection: Any) -> dict[str, str]:
    """``SHOW CONFIG``: name -> value."""
    return {row[0]: str(row[1] if row[1] is not None else "") for row in pgserver.rows(connection, "SHOW CONFIG")}


def differing(wished: Mapping[str, str], running: Mapping[str, str]) -> list[str]:
    """The settings that run otherwise than written, as sentences."""
    found = []
    for name, value in sorted(wished.items()):
        there = running.get(name)
        if there is None:
            found.append(f"{name} is unknown to this PgBouncer")
        elif not _same(value, there):
            found.append(f"{name} is '{there}', expected '{value}'")
    return found


def _same(wished: str, running: str) -> bool:
    """Numbers by value, protocols by what 'secure' stands for, everything else by text."""
    if wished == running:
        return True
    try:
        return float(wished) == float(running)
    except ValueError:
        return {wished, running} == {"secure", "tlsv1.2,tlsv1.3"}


def log_in(client: Client, host: str, port: int, *, session: bool) -> None:
    """Log in as the app does and run a prepared statement twice. Raises PoolerError; the password is in no message."""
    import psycopg

    entry = client.database + (SESSION_SUFFIX if session else "")
    try:
        with psycopg.connect(
            host=host, port=port, dbname=entry, user=client.user, password=client.password, autocommit=True,
            connect_timeout=10, application_name="slipway",
        ) as connection:  # fmt: skip
            for _ in range(2):
                row = connection.execute("SELECT current_user::text, current_database()::text", prepare=True).fetchone()
            if row != (client.user, client.database):
                raise PoolerError(
                    f"The entry {entry} leads to {row}", f"user {client.user} in database {client.database}"
                )
    except psycopg.Error as error:
        lines = str(error).strip().splitlines()
        raise PoolerError(
            f"App role {client.user} cannot use database {entry} through PgBouncer at {host}:{port}: {lines[-1] if lines else 'no reason given'}",
            "a login with the password from the vault",
            "look at 'journalctl -u pgbouncer' and 'systemctl status postgresql@*' on the host, then run the playbook again",
        ) from error


def prove(
    clients: Iterable[Client],
    *,
    port: int,
    listen: Iterable[str],
    settings: Mapping[str, str],
    socket_dir: str = RUNTIME,
) -> list[str]:
    """Everything that can be said of a running pooler; the addresses it listens on. Raises PoolerError or ServerError."""
    addresses = list(listen)
    until = time.monotonic() + LOGIN_SECONDS
    while True:
        # Right after a start or a reload the pooler may not be there yet, or not have read everything.
        try:
            with console(port, socket_dir) as connection:
                left = differing(settings, running_settings(connection))
            if left:
                raise PoolerError(
                    f"PgBouncer runs with other settings than it was given: {'; '.join(left)}",
                    "the values of the files in /etc/pgbouncer",
                    "see in 'journalctl -u pgbouncer' what it objects to; where it does not, run 'systemctl restart pgbouncer' on the host",
                )
            found = pgserver.check_listening(port, addresses, "PgBouncer")
            for client in clients:
                log_in(client, addresses[0], port, session=False)
                log_in(client, addresses[0], port, session=True)
        except SlipwayError:
            if time.monotonic() > until:
                raise
            time.sleep(0.3)
        else:
            return found


def transaction_entries(listed: Iterable[tuple[Any, ...]], names: list[str]) -> list[str]:
    """The entries of ``SHOW DATABASES`` (rows and column names) that can be paused: sessions may never end."""
    found = [dict(zip(names, row, strict=True)) for row in listed]
    return [row["name"] for row in found if row["name"] != CONSOLE and row["pool_mode"] != "session"]


def left_paused(listed: Iterable[tuple[Any, ...]], names: list[str]) -> list[str]:
    """The entries of ``SHOW DATABASES`` that are paused."""
    found = [dict(zip(names, row, strict=True)) for row in listed]
    return [row["name"] for row in found if row["name"] != CONSOLE and int(row["paused"])]


def resume_left(port: int, socket_dir: str = RUNTIME) -> list[str]:
    """Let go of what a run that was killed has left paused; the entries. Nothing where no pooler runs on this host."""
    if not port or not Path(socket_dir, f".s.PGSQL.{port}").exists():
        return []
    with console(port, socket_dir) as connection:
        cursor = connection.execute("SHOW DATABASES")
        entries = left_paused(cursor.fetchall(), [column.name for column in cursor.description])
        for entry in entries:
            connection.execute(f"RESUME {entry}")
    return entries


@contextmanager
def paused(port: int, socket_dir: str = RUNTIME, *, at_most: int = 0) -> Iterator[bool]:
    """Hold back new transactions of all apps while the server restarts; those begun may end first.

    Gives False, and holds nothing back, where no pooler runs on this host. After PAUSE_SECONDS for each entry it goes on
    whether or not all transactions have ended; with ``at_most`` (seconds, for all entries together) it raises PoolerError
    then, and holds nothing back any more. They wait at most for the pooler's query_wait_timeout; should this process be
    killed meanwhile, a timer of systemd lets go in its place.
    """
    if not port or not Path(socket_dir, f".s.PGSQL.{port}").exists():
        yield False
        return
    with console(port, socket_dir) as connection:
        cursor = connection.execute("SHOW DATABASES")
        entries = transaction_entries(cursor.fetchall(), [column.name for column in cursor.description])
    client = ["runuser", "-u", CONSOLE, "--", "psql", "-XAtq", "-h", socket_dir, "-p", str(port), CONSOLE]
    # One client for all of them: each costs a tenth of a second, while everybody waits.
    resume = [*client, *_each("RESUME", entries)]
    _disarm()  # of a run that was killed; it would let go in the midst of ours
    seconds = (at_most or PAUSE_SECONDS * len(entries)) + DEAD_MAN_SECONDS
    arm = ["systemd-run", "--quiet", "--collect", f"--unit={DEAD_MAN}", f"--on-active={seconds}"]
    run([*arm, "--timer-property=AccuracySec=1s", *resume])
    try:
        _pause(client, entries, at_most)
        yield True
    finally:
        run(resume, check=False)
        _disarm()


def _each(command: str, entries: Iterable[str]) -> list[str]:
    """psql's words for a command on each entry."""
    return [word for entry in entries for word in ("-c", f"{command} {entry}")]


def _pause(client: list[str], entries: list[str], at_most: int) -> None:
    # A client that can be given up: PAUSE answers when all is quiet, which may be never.
    if not at_most:
        for entry in entries:
            run(["timeout", str(PAUSE_SECONDS), *client, *_each("PAUSE", [entry])], check=False)
        return
    done = run(["timeout", str(at_most), *client, "-v", "ON_ERROR_STOP=1", *_each("PAUSE", entries)], check=False)
    if not done.ok:
        raise PoolerError(
            f"Transactions were still at work after {at_most} s, so PostgreSQL was not restarted",
            "transactions that end soon: a restart would cut them off",
            "look what is at work (fab psql: SELECT pid, state, query FROM pg_stat_activity), then run the playbook again",
        )


def _disarm() -> None:
    run(["systemctl", "stop", f"{DEAD_MAN}.timer"], check=False)
