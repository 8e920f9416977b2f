# SPDX-License-Identifier: Apache-2.0
"""From RAM, cores and neighbours to every setting, and to a budget that fits the RAM. Pure.

Where the formulas come from:

- ``shared_buffers`` R/4, ``effective_cache_size`` 3R/4: PostgreSQL manual (19.4.1 gives 25 % as a start), pgtune, timescaledb-tune.
- ``maintenance_work_mem`` R/16 capped at 2 GB: pgtune; halved where an app lives beside it (ours).
- ``max_connections`` 50, 100, 200: the users' own figures for 2, 4 and 8 GB.
- pool ``4 x cores + 4`` shared, ``6 x cores + 4`` dedicated: PostgreSQL wiki, "Number of database connections"
  (cores x 2 + spindles), doubled and trebled because web transactions wait for the app between statements (ours).
- ``work_mem``: ours, not pgtune's. One backend with a join and an aggregate was measured at 2.9 x work_mem, hence 3 x for
  every *active* connection, 8 MB for each backend, and a share f of RAM (0.5 shared, 0.9 dedicated) that Postgres must never pass.
- ``autovacuum``: scale factors 0.05 and 0.02, naptime 30 s after pigsty's OLTP template; memory split from maintenance_work_mem (ours).
- ``max_wal_size`` 8 % of the disk up to 4 GB and a quarter of it, ``max_slot_wal_keep_size`` 10 %: pigsty scales them by the disk as well.
- ``checkpoint_timeout`` 15 min, completion 0.9: pigsty; the manual names 0.9 as the default since 14.
- ``random_page_cost`` 1.1, ``effective_io_concurrency`` 200: pgtune for SSDs; from 18 the server's own default, whose
  asynchronous I/O gives the number another meaning.
- ``max_worker_processes``, ``max_parallel_workers_per_gather``: pgtune (cores, cores/2 up to 4), none at two cores or fewer (ours).
- ``wal_compression`` lz4 (``on`` before 15), ``huge_pages`` try, ``jit`` off, ``idle_in_transaction_session_timeout`` 10 min: pigsty.
- ``io_method`` worker: the default of 18; io_uring is blocked or limited on many hosts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ..errors import InputError, SlipwayError, UnknownNameError
from .apps import (
    app_warnings,
    fair_workers,
    job_clients,
    job_containers,
    least_apps_mb,
    size_apps,
    with_workers,
)
from .bounds import CONNECTIONS_KEPT, override_warnings
from .budget import (
    CADDY_MB,
    PLANS_MB,
    Budget,
    DoesNotFitError,
    Line,
    docker_mb,
    pgbouncer_mb,
    plan_ram_mb,
    system_lines,
)
from .model import APPS, DEDICATED, SHARED, AppShape, AppSizing, HostShape, PgBouncerSizing, PostgresSizing, Sizing
from .postgres import (
    WORK_MEM_LEAST_MB,
    decide_clients,
    decide_memory,
    decide_pools,
    decide_settings,
    postgres_lines,
    work_mem_rule_mb,
)
from .redis import least_redis_mb, size_redis, wished
from .settings import SETTING_NAMES, Value, parse_overrides, whole_number
from .view import render_budget

__all__ = [
    "APPS",
    "DEDICATED",
    "SETTING_NAMES",
    "SHARED",
    "AppShape",
    "AppSizing",
    "Budget",
    "DoesNotFitError",
    "HostShape",
    "InputError",
    "Line",
    "PgBouncerSizing",
    "PostgresSizing",
    "Sizing",
    "UnknownNameError",
    "plan",
    "plan_ram_mb",
    "render_budget",
    "size",
    "size_from_facts",
]

DEFAULT_POSTGRES_MAJOR = 17  # Debian 13's own


def size(host: HostShape, overrides: Mapping[str, object] | None = None, *, allow_overcommit: bool = False) -> Sizing:
    """Every setting of ``host``, with a budget that fits its RAM.

    ``overrides`` maps names of :data:`SETTING_NAMES` to values as a person writes them (``{"work_mem": "32MB"}``); they
    win, and ``warnings`` names each bound that one breaks. Raises DoesNotFitError where the budget is larger than the RAM
    (with ``allow_overcommit`` that is a warning too), UnknownNameError for a misspelled override, InputError for a value
    that cannot be.
    """
    sizing = plan(host, overrides)
    if sizing.budget.fits:
        return sizing
    if not allow_overcommit:
        raise _refusal(sizing, overrides)
    over = f"The budget is {-sizing.budget.free_mb} MB larger than the RAM: under load the kernel will kill processes."
    return replace(sizing, warnings=(*sizing.warnings, over))


def size_from_facts(
    facts: Mapping[str, Any],
    *,
    role: str = SHARED,
    apps: Iterable[Mapping[str, Any]] = (),
    overrides: Mapping[str, object] | None = None,
    pooler: bool = True,
    redis: bool | None = None,
    postgres_major: int | None = None,
    allow_overcommit: bool = False,
    database: Mapping[str, Any] | None = None,
) -> Sizing:
    """:func:`size` from what ``host_info`` found and what an inventory says.

    ``facts`` needs ``ram_mb``, ``cores`` and ``disk_total_mb`` (MB), and may have ``postgres_major``. ``apps`` are entries of
    ``slipway_apps``; those with ``state: absent`` are left out (on a ``dedicated`` host they are those that share its pool). ``redis``
    None: where an app names a purpose. ``database``: the facts of the database's own host, for the role ``apps``.
    Raises what :func:`size` raises, InputError for missing facts.
    """
    shapes = tuple(AppShape.from_mapping(app) for app in apps if app.get("state", "present") != "absent")
    major = postgres_major or facts.get("postgres_major") or DEFAULT_POSTGRES_MAJOR
    beside = redis if redis is not None else role != DEDICATED and any(app.redis for app in shapes)
    host = _shape(facts, role, shapes, pooler=pooler, redis=beside, major=major, database=database)
    return size(host, overrides, allow_overcommit=allow_overcommit)


def _shape(
    facts: Mapping[str, Any],
    role: str,
    apps: tuple[AppShape, ...],
    *,
    pooler: bool,
    redis: bool,
    major: object,
    database: Mapping[str, Any] | None = None,
) -> HostShape:
    """A host's shape from its facts, and that of its database's own host."""
    missing = [name for name in ("ram_mb", "cores", "disk_total_mb") if not facts.get(name)]
    if missing:
        raise InputError(
            f"The host's facts lack {', '.join(missing)}",
            "what slipway.vps.host_info returns as ansible_facts.slipway_host",
            "run slipway.vps.host_info on the host first",
        )
    return HostShape(
        ram_mb=whole_number("ram_mb", facts["ram_mb"]),
        cores=whole_number("cores", facts["cores"]),
        disk_mb=whole_number("disk_total_mb", facts["disk_total_mb"]),
        role=role,
        postgres_major=whole_number("postgres_major", major),
        pooler=pooler,
        apps=apps,
        redis=redis,
        database=_shape(database, DEDICATED, apps, pooler=pooler, redis=False, major=major) if database else None,
    )


def plan(host: HostShape, overrides: Mapping[str, object] | None = None) -> Sizing:
    """As :func:`size`, but gives back a sizing that does not fit as well (``sizing.budget.fits`` tells)."""
    ram = plan_ram_mb(host.ram_mb)
    parsed = parse_overrides(overrides, host.postgres_major)
    notes: list[str] = []
    warnings: list[str] = []
    if ram != host.ram_mb:
        notes.append(f"{host.ram_mb} MB of RAM measured: taken as a plan of {ram} MB.")

    apps = host.apps if host.role != DEDICATED else ()
    lines = system_lines(ram, host.ram_mb) + _service_lines(host, decide_clients(ram, parsed))
    servers = wished((app.name, app.redis) for app in host.apps) if host.redis else []
    if host.database:
        there = plan(host.database, overrides)
        postgres = there.postgres
        # How many connections there are is the database's to say, how many clients may wait for them this host's.
        pools = replace(there.pgbouncer, max_client_conn=decide_clients(ram, parsed)) if there.pgbouncer else None
    else:
        others = sum(line.mb for line in lines) + least_apps_mb(apps) + least_redis_mb(servers)
        postgres, pools, more = _database(host, ram, parsed, others_mb=others, notes=notes, warnings=warnings)
        lines += more

    left = ram - sum(line.mb for line in lines)
    redis = size_redis(servers, left, parsed["redis_maxmemory"].mb if "redis_maxmemory" in parsed else None)
    lines += [server.line for server in redis]
    left -= sum(server.limit_mb for server in redis)
    sized_apps = _apps(host, apps, ram=ram, left=left, pools=pools, connections=postgres.max_connections, notes=notes)
    lines += _app_lines(sized_apps)
    warnings += app_warnings(sized_apps, host.cores)
    return Sizing(
        host=host,
        plan_ram_mb=ram,
        postgres=postgres,
        pgbouncer=pools,
        apps=sized_apps,
        redis=redis,
        budget=Budget(ram, tuple(lines)),
        notes=tuple(notes),
        warnings=tuple(warnings),
    )


def _database(
    host: HostShape,
    ram: int,
    parsed: Mapping[str, Value],
    *,
    others_mb: int,
    notes: list[str],
    warnings: list[str],
) -> tuple[PostgresSizing, PgBouncerSizing | None, list[Line]]:
    """Postgres on this host, the pools before it, and its part of the budget. ``others_mb``: the least that all else needs."""
    memory = decide_memory(host, ram, parsed)
    pools = None
    if host.pooler:
        pools = decide_pools(host, memory, parsed, others_mb=others_mb, notes=notes, warnings=warnings)
    active = pools.pool_size if pools else memory.connections

    rule = work_mem_rule_mb(memory, active)
    room = ram - others_mb - memory.without_work_mem(active)
    work_mem: float = rule
    if "work_mem" in parsed:
        number = parsed["work_mem"].number
        work_mem = int(number) if number == int(number) else number
    elif 3 * active * rule > room and rule > WORK_MEM_LEAST_MB:
        work_mem = rule = max(WORK_MEM_LEAST_MB, room // (3 * active))
        notes.append(f"work_mem lowered to {rule} MB, so that everything else on the host fits.")
    settings, sizes = decide_settings(host, memory, work_mem, parsed)
    postgres = PostgresSizing(
        settings=settings,
        shared_buffers_mb=memory.shared_buffers,
        effective_cache_size_mb=sizes["effective_cache_size"],
        work_mem_mb=work_mem,
        maintenance_work_mem_mb=memory.maintenance,
        autovacuum_workers=memory.autovacuum_workers,
        autovacuum_work_mem_mb=memory.autovacuum,
        max_connections=memory.connections,
        max_wal_size_mb=sizes["max_wal_size"],
        min_wal_size_mb=sizes["min_wal_size"],
        max_slot_wal_keep_size_mb=sizes["max_slot_wal_keep_size"],
        active=active,
    )
    warnings += override_warnings(
        parsed, host=host, plan_mb=ram, postgres=postgres, pgbouncer=pools, work_mem_rule_mb=rule
    )
    return postgres, pools, postgres_lines(memory, active, work_mem)


def _service_lines(host: HostShape, clients: int) -> list[Line]:
    lines = []
    if host.role != DEDICATED:
        lines.append(
            Line(
                "docker",
                "Docker engine",
                docker_mb(len(host.apps), job_containers(host.apps)),
                "dockerd, containerd, shims",
            )
        )
        lines.append(Line("caddy", "Caddy", CADDY_MB))
    if host.pooler and host.role != DEDICATED:  # it stands beside the apps
        lines.append(Line("pgbouncer", "PgBouncer", pgbouncer_mb(clients), f"{clients} clients"))
    return lines


def _apps(
    host: HostShape,
    apps: tuple[AppShape, ...],
    *,
    ram: int,
    left: int,
    pools: PgBouncerSizing | None,
    connections: int,
    notes: list[str],
) -> tuple[AppSizing, ...]:
    if pools:
        admitted = pools.max_client_conn - pools.session_pool_size - CONNECTIONS_KEPT
    else:
        admitted = connections - CONNECTIONS_KEPT
    admitted -= job_clients(apps)
    with_counts = with_workers(apps, cores=host.cores, left_mb=left, admitted=admitted)
    share = fair_workers(len(apps), host.cores)
    for before, after in zip(apps, with_counts, strict=True):
        if before.workers is None and after.workers != share:
            notes.append(
                f"App {after.name}: {after.workers} instead of {share} workers, as memory or connections carry no more."
            )
    return size_apps(with_counts, ram_mb=ram, cores=host.cores, left_mb=left, admitted=admitted, pools=pools)


def _app_lines(apps: tuple[AppSizing, ...]) -> list[Line]:
    lines = [
        Line("apps", f"app {app.name}", app.memory_mb, f"{app.workers} worker{'s' if app.workers > 1 else ''}")
        for app in apps
    ]
    lines += [
        Line("apps", f"job {job.name} of {app.name}", job.count * job.memory_mb, f"{job.count} x {job.memory_mb} MB")
        for app in apps
        for job in app.jobs
    ]
    if apps:
        second = max(app.memory_mb + app.jobs_mb for app in apps)
        lines.append(Line("apps", "second colour in a switch", second, "one app switches at a time"))
    return lines


def _refusal(sizing: Sizing, overrides: Mapping[str, object] | None) -> DoesNotFitError:
    """The error for a budget that does not fit, with the ways out that are known to work."""
    budget, host = sizing.budget, sizing.host
    groups = sorted({line.group for line in budget.lines}, key=budget.group_mb, reverse=True)
    largest = ", ".join(f"{group} {budget.group_mb(group)} MB" for group in groups[:3])
    ways = []
    if overrides and _fits(host, None):
        ways.append(f"remove or lower your own figures ({', '.join(sorted(overrides))})")
    larger = next((mb for mb in PLANS_MB if mb > budget.ram_mb and _fits(replace(host, ram_mb=mb), overrides)), None)
    if larger:
        ways.append(f"take a plan of {larger} MB")
    if not host.pooler and _fits(replace(host, pooler=True), overrides):
        ways.append("use the pooler, so that fewer connections work at once")
    if host.redis and _fits(replace(host, redis=False), overrides):
        ways.append("leave Redis out")
    given = [app.name for app in host.apps if app.memory_mb or app.workers]
    by_rule = tuple(replace(app, workers=None, memory_mb=None) for app in host.apps)
    if given and _fits(replace(host, apps=by_rule), overrides):
        ways.append(f"lower workers or memory_mb of {', '.join(given)}")
    without_jobs = tuple(replace(app, jobs=()) for app in host.apps)
    if without_jobs != host.apps and _fits(replace(host, apps=without_jobs), overrides):
        ways.append(f"lower count or memory_mb in jobs of {', '.join(app.name for app in host.apps if app.jobs)}")
    if len(host.apps) > 1 and _fits(replace(host, apps=by_rule[:1]), overrides):
        ways.append("put fewer apps on this host")
    return DoesNotFitError(
        f"What this host runs may use {budget.total_mb} MB together, and it has {budget.ram_mb} MB of RAM (largest: {largest})",
        "a budget that fits the RAM",
        ", or ".join(ways) or "take a larger plan",
        budget,
    )


def _fits(host: HostShape, overrides: Mapping[str, object] | None) -> bool:
    try:
        return plan(host, overrides).budget.fits
    except SlipwayError:
        return False
