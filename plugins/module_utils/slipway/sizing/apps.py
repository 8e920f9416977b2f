# SPDX-License-Identifier: Apache-2.0
"""Apps on a host: workers, concurrency, memory limits and connection pools. Pure.

Source: the users' own figures (workers = cores, 100 to 200 requests at once for each, client pools 10 + 20 and
15 + 30). A worker's memory is that of a Python ASGI process: about 70 MB resident idle, 512 MB as the most it gets
without being told otherwise.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import replace

from ..errors import InputError
from .budget import share_out
from .model import AppShape, AppSizing, PgBouncerSizing

FIRST_WORKER_MB, NEXT_WORKER_MB = 128, 96
"""Least memory limit an app may get by the rule: for its first worker, and for each further one."""
JOB_CLIENTS = 2
"""Client connections of a background container: the one that it works on, and a spare."""
CLIENTS_LEAST = 3
"""Client connections that a worker should have at least, in each of its two colours."""
BASE_CAP_MB, WORKER_CAP_MB = 128, 512
"""Largest memory limit by the rule: the rest is worth more as page cache."""


def least_memory_mb(workers: int) -> int:
    """The least memory limit that lets ``workers`` processes live."""
    return FIRST_WORKER_MB + NEXT_WORKER_MB * (workers - 1)


def switch_mb(limits: list[int]) -> int:
    """What apps take with these limits: all of them, and one (the largest) twice during its blue-green switch."""
    return sum(limits) + max(limits, default=0)


def _least(apps: list[AppShape]) -> int:
    return switch_mb([(app.memory_mb or least_memory_mb(app.workers or 1)) + app.jobs_mb for app in apps])


def job_clients(apps: tuple[AppShape, ...]) -> int:
    """Client connections of all background containers, in both colours."""
    return 2 * JOB_CLIENTS * sum(app.job_count for app in apps if app.database)


def job_containers(apps: tuple[AppShape, ...]) -> int:
    """How many background containers may stand at once: all, and those of one app twice during its switch."""
    return switch_mb([app.job_count for app in apps])


def with_workers(apps: tuple[AppShape, ...], *, cores: int, left_mb: int, admitted: int) -> tuple[AppShape, ...]:
    """Every app with its worker count: the cores shared out, fewer where memory or client connections do not carry them.

    ``left_mb`` is the memory for all apps, ``admitted`` the client connections. Workers the user gave stay as they are.
    """
    share = fair_workers(len(apps), cores)
    result = [app if app.workers else replace(app, workers=share) for app in apps]
    by_rule = [i for i, app in enumerate(apps) if app.workers is None]
    while True:
        # Only workers that cost what is short are worth taking away.
        short_of_memory = _least(result) > left_mb
        short_of_clients = 2 * CLIENTS_LEAST * sum(app.workers or 1 for app in result if app.database) > admitted
        candidates = [
            i
            for i in by_rule
            if (result[i].workers or 1) > 1
            and ((short_of_memory and result[i].memory_mb is None) or (short_of_clients and result[i].database))
        ]
        if not candidates:
            return tuple(result)
        largest = max(candidates, key=lambda i: result[i].workers or 1)
        result[largest] = replace(result[largest], workers=(result[largest].workers or 1) - 1)


def fair_workers(apps: int, cores: int) -> int:
    """Workers of each app by the rule, before memory is looked at: the cores shared out, rounded up."""
    return max(1, -(-cores // apps)) if apps else 1


def least_apps_mb(apps: tuple[AppShape, ...]) -> int:
    """The least memory these apps can live in, with one worker each where the user left it to the rule."""
    return _least(list(apps))


def concurrency(cores: int) -> int:
    """Requests at once for each worker: 100 up to 2 cores, 150 at 3, 200 from 4."""
    return min(200, 100 + 50 * max(0, cores - 2))


def _limits(apps: tuple[AppShape, ...], left_mb: int) -> list[int]:
    """Memory limit of each app: its own, or an equal share of what is left, one share kept for the second colour.

    An app whose least is above its share gets the least, and the others share what then remains.
    """
    fixed = {i: app.memory_mb for i, app in enumerate(apps) if app.memory_mb}
    least = {i: least_memory_mb(app.workers or 1) for i, app in enumerate(apps)}
    share = 0
    while len(fixed) < len(apps):
        share = _share(left_mb, fixed, [app.jobs_mb for app in apps])
        above = [i for i in least if i not in fixed and least[i] > share]
        if not above:
            break
        fixed.update({i: least[i] for i in above})
    return [fixed.get(i) or min(share, BASE_CAP_MB + WORKER_CAP_MB * (app.workers or 1)) for i, app in enumerate(apps)]


def _share(left_mb: int, fixed: Mapping[int, int], jobs: list[int]) -> int:
    """The largest equal limit for the apps that have no ``fixed`` one; ``jobs`` is what each app's background work takes.

    All of them and the largest app, its jobs counted in, a second time must fit into ``left_mb``; 0 where nothing does.
    """
    sizes = range(max(0, left_mb) + 1)
    return (
        bisect_right(
            sizes, left_mb, key=lambda mb: switch_mb([fixed.get(i, mb) + extra for i, extra in enumerate(jobs)])
        )
        - 1
    )


def _server_shares(pools: PgBouncerSizing | None, users: int) -> list[tuple[int, int]]:
    """For each app with a database its part of the pooled and of the session connections (none without a pooler)."""
    if not pools or not users:
        return [(0, 0)] * users
    return list(zip(share_out(pools.pool_size, users), share_out(pools.session_pool_size, users), strict=True))


def client_pool(ram_mb: int, workers: int, admitted: int) -> tuple[int, int]:
    """Pool and overflow for each worker, so that all ``workers`` of the host, twice (both colours), stay within ``admitted``.

    Raises InputError where not even one connection for each worker can be had.
    """
    pool, overflow = (15, 30) if ram_mb >= 4096 else (10, 20)
    if not workers:
        return pool, overflow
    most = admitted // (2 * workers)
    if most < 1:
        raise InputError(
            f"{workers} app workers share {admitted} client connections",
            f"at least {2 * workers}, one for each worker of both colours",
            "raise max_client_conn (without a pooler: max_connections), or lower the workers",
        )
    if pool + overflow <= most:
        return pool, overflow
    pool = max(1, most // 3)
    return pool, most - pool


def size_apps(
    apps: tuple[AppShape, ...],
    *,
    ram_mb: int,
    cores: int,
    left_mb: int,
    admitted: int,
    pools: PgBouncerSizing | None,
) -> tuple[AppSizing, ...]:
    """All numbers of all apps (whose workers are decided already), in the order given.

    ``left_mb`` is the memory for them all, second colour included; ``admitted`` the client connections for them all.
    """
    users = sum(app.database for app in apps)
    if pools and min(pools.pool_size, pools.session_pool_size) < users:
        raise InputError(
            f"{users} apps share {pools.pool_size} pooled and {pools.session_pool_size} session connections to the database",
            "at least one of each for every app with a database",
            "raise pool_size, session_pool_size or max_connections, or take a larger plan",
        )
    shares = iter(_server_shares(pools, users))
    pool, overflow = client_pool(ram_mb, sum(app.workers or 1 for app in apps if app.database), admitted)
    sized = []
    for app, limit in zip(apps, _limits(apps, left_mb), strict=True):
        server_pool, session_pool = next(shares) if app.database else (0, 0)
        sized.append(
            AppSizing(
                name=app.name,
                workers=app.workers or 1,
                concurrency=app.concurrency or concurrency(cores),
                memory_mb=limit,
                client_pool=pool if app.database else 0,
                client_overflow=overflow if app.database else 0,
                server_pool=server_pool,
                session_pool=session_pool,
                jobs=app.jobs,
            )
        )
        if pools and app.database and app.jobs:
            _room_for_requests(app, server_pool)
    return tuple(sized)


def _room_for_requests(app: AppShape, server_pool: int) -> None:
    """A job that runs in a transaction keeps its connection to the end, and in a switch both colours have theirs.

    Raises InputError where they could take every connection, for then no request is answered.
    """
    if 2 * app.job_count >= server_pool:
        raise InputError(
            f"The {app.job_count} background containers of app {app.name} may keep all of its {server_pool} pooled connections "
            "to the database busy while a release is switched",
            f"at most {(server_pool - 1) // 2} of them",
            f"lower count in jobs of {app.name}, raise pool_size, or take a plan with more cores",
        )


def app_warnings(apps: tuple[AppSizing, ...], cores: int) -> list[str]:
    """One sentence for each figure of an app that the user set beyond what the rules hold to be safe."""
    found = []
    for app in apps:
        least = least_memory_mb(app.workers)
        count = sum(job.count for job in app.jobs)
        if count > 4 * cores:
            found.append(
                f"App {app.name} has {count} background containers on {cores} core{'s' if cores > 1 else ''}: more than 4 x cores "
                "mostly wait, unless their work is waiting for others."
            )
        if app.memory_mb < least:
            found.append(
                f"App {app.name} has {app.memory_mb} MB for {app.workers} workers, less than {least} MB: "
                "the kernel may kill it when it starts."
            )
        if app.workers > 2 * cores + 1:
            found.append(
                f"App {app.name} has {app.workers} workers on {cores} cores: more than 2 x cores + 1 only wait."
            )
        if app.concurrency > 200:
            found.append(
                f"App {app.name} takes {app.concurrency} requests at once per worker: 200 is the most that was tried."
            )
    return found
