# SPDX-License-Identifier: Apache-2.0
"""Warnings for overrides that break a bound of the sizing rules. Pure: the user's figures win, and are told the cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .model import HostShape, PgBouncerSizing, PostgresSizing
from .settings import Value

CONNECTIONS_KEPT = 10
"""Connections beside the pools: 3 for superusers, the rest for auth_query, psql, metrics and backups."""


def override_warnings(
    overrides: Mapping[str, Value],
    *,
    host: HostShape,
    plan_mb: int,
    postgres: PostgresSizing,
    pgbouncer: PgBouncerSizing | None,
    work_mem_rule_mb: int,
) -> list[str]:
    """One sentence for each override that breaks a bound: the figure, the bound, and what may come of it."""
    checks: list[Callable[[], str | None]] = [
        lambda: _shared_buffers(plan_mb, postgres),
        lambda: _cache_size(plan_mb, postgres),
        lambda: _connections(postgres, pgbouncer),
        lambda: _work_mem(plan_mb, postgres, work_mem_rule_mb),
        lambda: _maintenance(plan_mb, postgres),
        lambda: _autovacuum(plan_mb, postgres),
        lambda: _wal(host, postgres),
        lambda: _slots(host, postgres),
        lambda: _workers(overrides, postgres),
    ]
    found = [text for text in (check() for check in checks) if text]
    return found + _plain(overrides)


def _shared_buffers(plan_mb: int, postgres: PostgresSizing) -> str | None:
    bound = plan_mb * 2 // 5
    if postgres.shared_buffers_mb <= bound:
        return None
    return (
        f"shared_buffers is {postgres.shared_buffers_mb} MB, more than 40 % of RAM ({bound} MB): "
        "what Postgres keeps the kernel cannot cache, and everything else gets tighter."
    )


def _cache_size(plan_mb: int, postgres: PostgresSizing) -> str | None:
    if postgres.effective_cache_size_mb <= plan_mb:
        return None
    return (
        f"effective_cache_size is {postgres.effective_cache_size_mb} MB, more than the RAM of {plan_mb} MB: "
        "the planner will choose index scans that read from disk."
    )


def _connections(postgres: PostgresSizing, pgbouncer: PgBouncerSizing | None) -> str | None:
    if not pgbouncer:
        return None
    pools = pgbouncer.pool_size + pgbouncer.session_pool_size
    if postgres.max_connections >= pools + CONNECTIONS_KEPT:
        return None
    below = "below" if postgres.max_connections < pgbouncer.pool_size else "too few for"
    return (
        f"max_connections is {postgres.max_connections}, {below} the pool: PgBouncer may open {pgbouncer.pool_size} pooled "
        f"and {pgbouncer.session_pool_size} session connections, and {CONNECTIONS_KEPT} are kept for administration; "
        f"{pools + CONNECTIONS_KEPT} would do."
    )


def _work_mem(plan_mb: int, postgres: PostgresSizing, rule_mb: int) -> str | None:
    if postgres.work_mem_mb <= rule_mb:
        return None
    worst = round(3 * postgres.active * postgres.work_mem_mb)
    return (
        f"work_mem is {postgres.work_mem_mb:g} MB, the rule gives {rule_mb} MB: {postgres.active} connections sorting "
        f"at once may take {worst} MB (3 x work_mem each), {round(100 * worst / plan_mb)} % of RAM."
    )


def _maintenance(plan_mb: int, postgres: PostgresSizing) -> str | None:
    bound = max(64, min(2048, plan_mb // 8))
    if postgres.maintenance_work_mem_mb <= bound:
        return None
    return (
        f"maintenance_work_mem is {postgres.maintenance_work_mem_mb} MB, more than {bound} MB: "
        "each index build or vacuum by hand may take that much, and parallel builds share it only among themselves."
    )


def _autovacuum(plan_mb: int, postgres: PostgresSizing) -> str | None:
    total = postgres.autovacuum_workers * postgres.autovacuum_work_mem_mb
    bound = max(64, plan_mb // 8)
    if total <= bound:
        return None
    return (
        f"autovacuum may take {total} MB ({postgres.autovacuum_workers} workers of "
        f"{postgres.autovacuum_work_mem_mb} MB), more than {bound} MB."
    )


def _wal(host: HostShape, postgres: PostgresSizing) -> str | None:
    if postgres.min_wal_size_mb > postgres.max_wal_size_mb:
        return f"min_wal_size is {postgres.min_wal_size_mb} MB, above max_wal_size ({postgres.max_wal_size_mb} MB)."
    bound = max(128, host.disk_mb * 8 // 100)
    if postgres.max_wal_size_mb <= bound:
        return None
    return f"max_wal_size is {postgres.max_wal_size_mb} MB, more than 8 % of the disk ({bound} MB): WAL may fill it."


def _slots(host: HostShape, postgres: PostgresSizing) -> str | None:
    keep = postgres.max_slot_wal_keep_size_mb
    if keep == -1:
        return "max_slot_wal_keep_size is -1: a replica that stays away fills the disk, and Postgres stops."
    if keep <= max(256, host.disk_mb // 5):
        return None
    return f"max_slot_wal_keep_size is {keep} MB, more than a fifth of the disk: a replica that stays away may fill it."


def _workers(overrides: Mapping[str, Value], postgres: PostgresSizing) -> str | None:
    gather, worker_processes = (
        int(postgres.settings[name]) for name in ("max_parallel_workers_per_gather", "max_worker_processes")
    )
    if "max_parallel_workers_per_gather" not in overrides and "max_worker_processes" not in overrides:
        return None
    if gather <= worker_processes:
        return None
    return f"max_parallel_workers_per_gather is {gather}, more than max_worker_processes ({worker_processes}) can give."


_PLAIN: Mapping[tuple[str, str], str] = {
    (
        "huge_pages",
        "on",
    ): "huge_pages is on: Postgres will not start unless the kernel has reserved enough of them (try falls back).",
    (
        "io_method",
        "io_uring",
    ): "io_method is io_uring, which many hosts and container runtimes block: Postgres may not start there.",
    ("idle_in_transaction_session_timeout", "0"): (
        "idle_in_transaction_session_timeout is 0: a forgotten transaction holds its locks, and its pool connection, for ever."
    ),
}


def _plain(overrides: Mapping[str, Value]) -> list[str]:
    return [text for (name, value), text in _PLAIN.items() if name in overrides and overrides[name].text == value]
