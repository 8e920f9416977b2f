# SPDX-License-Identifier: Apache-2.0
"""What really runs on a host, before and after a climb: the server's settings, the pooler's, the containers' limits."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from ..commands import CommandError, run
from ..deploy import compose
from ..deploy.docker import Docker
from ..deploy.releases import Store
from ..errors import SlipwayError
from ..postgres import pooler as pgpooler
from ..postgres import server as pgserver
from .resize import ENVIRONMENT, AppNow, Now, Then
from .workers import JobNow


class LongTransactionError(SlipwayError):
    """A transaction has been open for so long that a restart would not wait for it."""


def look(then: Then, *, port: int = 5432, pooler_port: int = 6432) -> Now:
    """Of all that ``then`` names, what runs now. Raises ServerError where a server does not answer, CommandError for Docker."""
    settings: Any = {}
    if then.settings:
        with pgserver.connect(port=port) as connection:
            settings = pgserver.running_settings(connection)
    pooler: dict[str, str] = {}
    pools: dict[str, int] = {}
    if then.pooler or then.pools:
        with pgpooler.console(pooler_port) as connection:
            pooler = pgpooler.running_settings(connection)
            cursor = connection.execute("SHOW DATABASES")
            names = [column.name for column in cursor.description]
            listed = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
            pools = {row["name"]: int(row["pool_size"]) for row in listed}
    return Now(settings, pooler, pools, apps(then.apps))


def apps(names: Iterable[str]) -> dict[str, AppNow]:
    """The containers that serve now, by app; one that was never deployed is left out. Only the sizing's variables are read."""
    found = {}
    for name in names:
        serving = Store(name).load().current
        if serving is None:
            continue
        done = run(["docker", "container", "inspect", compose.container(name, serving.colour)], check=False)
        if not done.ok:
            if "no such container" in done.stderr.lower():
                continue
            raise CommandError(f"Docker does not answer: {done.said}")
        found[name] = container(json.loads(done.stdout)[0])
    return found


def jobs(names: Iterable[str]) -> dict[str, dict[str, JobNow]]:
    """The background containers that run now, by app and job. Raises CommandError while Docker does not answer."""
    found: dict[str, dict[str, JobNow]] = {}
    for name in names:
        each = found.setdefault(name, {})
        for one in Docker().jobs(name):
            if one.state.running:
                count = each[one.job].count + 1 if one.job in each else 1
                each[one.job] = JobNow(count, one.memory_mb)
    return found


def container(data: Any) -> AppNow:
    """An app's limits from what ``docker container inspect`` says of it."""
    pairs = [str(word).partition("=") for word in data["Config"].get("Env") or []]
    env = {name: value for name, _, value in pairs if name in ENVIRONMENT}
    return AppNow(int(data["HostConfig"].get("Memory") or 0) // 2**20, env)


def refuse_long_transactions(port: int, seconds: int) -> None:
    """Raises LongTransactionError where a client's transaction has been open for longer: a restart would cut it off."""
    query = (
        "SELECT pid, coalesce(usename, ''), coalesce(datname, ''), extract(epoch FROM now() - xact_start)::int "
        "FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() "
        "AND xact_start < now() - make_interval(secs => %s) ORDER BY xact_start LIMIT 1"
    )
    with pgserver.connect(port=port) as connection:
        found = pgserver.rows(connection, query, (seconds,))
    if found:
        pid, user, database, age = found[0]
        raise LongTransactionError(
            f"A transaction of {user} in database {database} has been open for {age} s (process {pid}), and PostgreSQL must restart",
            f"none older than {seconds} s, since it would be cut off",
            f"wait for its end, or end it ('SELECT pg_terminate_backend({pid})' in fab psql --write), then run this again",
        )
