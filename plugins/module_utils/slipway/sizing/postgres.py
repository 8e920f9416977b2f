# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL's and PgBouncer's numbers, before anything else on the host is counted. Pure.

The formulas' sources stand in :mod:`sizing`, which puts all parts together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .bounds import CONNECTIONS_KEPT
from .budget import POSTGRES_REST_MB, WAL_BUFFERS_MAX_MB, Line
from .model import SHARED, HostShape, PgBouncerSizing
from .settings import POSTGRES_SETTINGS, Value, memory_text

POOL_LEAST, POOL_MOST = 8, 100
WORK_MEM_LEAST_MB, WORK_MEM_MOST_MB = 4, 64
BACKEND_MB = 8


@dataclass(frozen=True)
class Memory:
    """Postgres' memory figures before work_mem, in MB."""

    ram: int
    share: float  # f: the part of RAM that Postgres may take
    shared_buffers: int
    connections: int
    maintenance: int
    autovacuum_workers: int
    autovacuum: int

    def backends(self, active: int) -> int:
        """Memory of the backends themselves: twice the active ones, as session-mode and idle ones come on top."""
        return BACKEND_MB * min(self.connections, 2 * active)

    def without_work_mem(self, active: int) -> int:
        """Everything of Postgres but the sorts and hashes."""
        vacuum = self.autovacuum_workers * self.autovacuum + self.maintenance
        return self.shared_buffers + self.backends(active) + vacuum + POSTGRES_REST_MB

    def left(self, active: int) -> float:
        """What work_mem may share out among ``active`` connections."""
        return self.share * self.ram - self.without_work_mem(active)


def decide_memory(host: HostShape, ram: int, overrides: Mapping[str, Value]) -> Memory:
    """Memory, connections and autovacuum by the table; the user's figures before the rules, so that all else follows them."""

    def mb(name: str, rule: int) -> int:
        return overrides[name].mb if name in overrides else rule

    def number(name: str, rule: int) -> int:
        return int(overrides[name].number) if name in overrides else rule

    maintenance = mb("maintenance_work_mem", max(64, min(2048, ram // (32 if host.role == SHARED else 16))))
    workers = number("autovacuum_max_workers", 2 if host.cores <= 2 else 3)
    autovacuum = mb("autovacuum_work_mem", max(1, maintenance // workers))
    return Memory(
        ram=ram,
        share=0.5 if host.role == SHARED else 0.9,
        shared_buffers=mb("shared_buffers", ram // 4),
        connections=number("max_connections", 50 if ram <= 2048 else 100 if ram <= 4096 else 200),
        maintenance=maintenance,
        autovacuum_workers=workers,
        autovacuum=maintenance if autovacuum == -1 else autovacuum,  # -1: as much as maintenance_work_mem
    )


def decide_clients(ram: int, overrides: Mapping[str, Value]) -> int:
    """Clients that PgBouncer admits: 500 up to 2 GB, 1000 up to 4 GB, 2000 above."""
    if "max_client_conn" in overrides:
        return int(overrides["max_client_conn"].number)
    return 500 if ram <= 2048 else 1000 if ram <= 4096 else 2000


def decide_pools(
    host: HostShape,
    memory: Memory,
    overrides: Mapping[str, Value],
    *,
    others_mb: int,
    notes: list[str],
    warnings: list[str],
) -> PgBouncerSizing:
    """PgBouncer's pools: by cores, yet no more than Postgres' share of RAM, what the other services leave (``others_mb`` is
    the least they need), and max_connections carry, at 4 MB of work_mem each.

    What it must be lowered for goes into ``notes``, or ``warnings`` where the user's own max_connections is the reason.
    The user's memory figures leave the pool alone: it follows from the host. Every app with a database gets one connection at least.
    """
    users = max(1, sum(app.database for app in host.apps))
    rule = max(POOL_LEAST, min(POOL_MOST, (4 if host.role == SHARED else 6) * host.cores + 4))
    least = max(POOL_LEAST, users)
    pool = max(rule, least)
    by_rule = decide_memory(host, memory.ram, {})
    room = memory.ram - others_mb
    while (
        pool > least and min(by_rule.left(pool), room - by_rule.without_work_mem(pool)) < 3 * WORK_MEM_LEAST_MB * pool
    ):
        pool -= 1
    by_memory = pool
    pool = min(pool, max(1, memory.connections - CONNECTIONS_KEPT - users))
    if "pool_size" in overrides:
        pool = int(overrides["pool_size"].number)
    elif pool < rule:
        instead = f"{pool} connections instead of {rule}"
        if pool < by_memory and memory.connections < by_rule.connections:
            warnings.append(
                f"max_connections is {memory.connections}, below what the pool needs: it shrinks to {instead}, "
                f"as {CONNECTIONS_KEPT} are kept for administration."
            )
        else:
            reason = f"{memory.ram} MB of RAM" if pool == by_memory else f"max_connections {memory.connections}"
            notes.append(f"Pool of {instead} by cores: {reason} carries no more.")
    session = max(1, min(pool, memory.connections - CONNECTIONS_KEPT - pool))
    return PgBouncerSizing(
        pool_size=pool,
        session_pool_size=int(overrides["session_pool_size"].number) if "session_pool_size" in overrides else session,
        max_client_conn=decide_clients(memory.ram, overrides),
    )


def work_mem_ceiling_mb(ram_mb: int) -> int:
    """The users' own targets as the ceiling: 8 MB up to 2 GB, 32 MB at 4 GB, 64 MB from 8 GB; in proportion between."""
    if ram_mb <= 2048:
        return 8
    if ram_mb <= 4096:
        return 8 + 24 * (ram_mb - 2048) // 2048
    return min(WORK_MEM_MOST_MB, ram_mb // 128)


def work_mem_rule_mb(memory: Memory, active: int) -> int:
    """work_mem by the table, in whole MB: for ``active`` connections that all sort at once."""
    share = int(memory.left(active) // (3 * active))
    return min(work_mem_ceiling_mb(memory.ram), max(WORK_MEM_LEAST_MB, min(WORK_MEM_MOST_MB, share)))


def decide_settings(
    host: HostShape, memory: Memory, work_mem: float, overrides: Mapping[str, Value]
) -> tuple[dict[str, str], dict[str, int]]:
    """Every PostgreSQL setting as text, and the sizes by disk and cache in MB."""
    max_wal = (
        overrides["max_wal_size"].mb if "max_wal_size" in overrides else max(128, min(4096, host.disk_mb * 8 // 100))
    )
    rules = {
        "effective_cache_size": memory.ram * 3 // 4,
        "max_wal_size": max_wal,
        "min_wal_size": max(32, max_wal // 4),
        "max_slot_wal_keep_size": max(256, host.disk_mb // 10),
    }
    sizes = {name: overrides[name].mb if name in overrides else rule for name, rule in rules.items()}
    gather = 0 if host.cores <= 2 else min(4, host.cores // 2, 2 if host.role == SHARED else 4)
    settings = {
        "shared_buffers": memory_text(memory.shared_buffers),
        "effective_cache_size": memory_text(sizes["effective_cache_size"]),
        "max_connections": str(memory.connections),
        "work_mem": memory_text(work_mem),
        "maintenance_work_mem": memory_text(memory.maintenance),
        "autovacuum_max_workers": str(memory.autovacuum_workers),
        "autovacuum_work_mem": memory_text(memory.autovacuum),
        "autovacuum_vacuum_scale_factor": "0.05",
        "autovacuum_analyze_scale_factor": "0.02",
        "autovacuum_naptime": "30s",
        "max_wal_size": memory_text(sizes["max_wal_size"]),
        "min_wal_size": memory_text(sizes["min_wal_size"]),
        "checkpoint_timeout": "15min",
        "checkpoint_completion_target": "0.9",
        "wal_compression": "lz4" if host.postgres_major >= 15 else "on",
        "max_slot_wal_keep_size": memory_text(sizes["max_slot_wal_keep_size"]),
        "random_page_cost": "1.1",
        "max_worker_processes": str(max(8, host.cores)),
        "max_parallel_workers_per_gather": str(gather),
        "huge_pages": "try",
        "jit": "off",
        "idle_in_transaction_session_timeout": "10min",
    }
    if host.postgres_major < 18:
        settings["effective_io_concurrency"] = "200"
    else:
        settings["io_method"] = "worker"
    settings.update({name: value.text for name, value in overrides.items() if name in POSTGRES_SETTINGS})
    return settings, sizes


def postgres_lines(memory: Memory, active: int, work_mem: float) -> list[Line]:
    """Postgres' part of the budget."""
    wal_buffers = max(1, min(WAL_BUFFERS_MAX_MB, memory.shared_buffers // 32))
    connections = min(memory.connections, 2 * active)
    return [
        Line("postgres", "shared_buffers", memory.shared_buffers),
        Line("postgres", "connections", memory.backends(active), f"{connections} x {BACKEND_MB} MB"),
        Line(
            "postgres", "work_mem, all active", round(3 * active * work_mem), f"{active} active x 3 x {work_mem:g} MB"
        ),
        Line("postgres", "maintenance_work_mem", memory.maintenance),
        Line(
            "postgres",
            "autovacuum",
            memory.autovacuum_workers * memory.autovacuum,
            f"{memory.autovacuum_workers} x {memory.autovacuum} MB",
        ),
        Line("postgres", "WAL buffers", wal_buffers),
        Line("postgres", "postmaster and helpers", POSTGRES_REST_MB - wal_buffers, "lock tables, background processes"),
    ]
