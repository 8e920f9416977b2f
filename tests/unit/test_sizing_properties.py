# SPDX-License-Identifier: Apache-2.0
"""Sizing: what holds for every host, by hypothesis."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import example, given
from hypothesis import strategies as st
from slipway.errors import InputError, SlipwayError
from slipway.sizing.budget import PLANS_MB, plan_ram_mb, share_out
from slipway.sizing.plan import (
    DEDICATED,
    SHARED,
    AppShape,
    DoesNotFitError,
    HostShape,
    Sizing,
    plan,
    render_budget,
    size,
)

maybe = st.none()
any_ram = st.integers(256, 300_000)
app_shapes = st.builds(
    AppShape,
    name=st.just("app"),
    workers=maybe | st.integers(1, 16),
    concurrency=maybe | st.integers(1, 500),
    memory_mb=maybe | st.integers(64, 4096),
    database=st.booleans(),
    redis=st.sampled_from([(), ("cache",), ("queue",), ("cache", "queue")]),
)
several = st.lists(app_shapes, max_size=6).map(
    lambda apps: tuple(replace(app, name=f"app{i}") for i, app in enumerate(apps))
)
by_rule = st.integers(0, 6).map(lambda n: tuple(AppShape(f"app{i}") for i in range(n)))


def hosts(
    apps: st.SearchStrategy[tuple[AppShape, ...]], ram: st.SearchStrategy[int] = any_ram
) -> st.SearchStrategy[HostShape]:
    return st.builds(
        HostShape,
        ram_mb=ram,
        cores=st.integers(1, 128),
        disk_mb=st.integers(6_144, 4_000_000),
        role=st.sampled_from([SHARED, DEDICATED]),
        postgres_major=st.integers(13, 18),
        pooler=st.booleans(),
        apps=apps,
        redis=st.booleans(),
    )


overrides = st.fixed_dictionaries(
    {},
    optional={
        "shared_buffers": st.integers(16, 8192).map(lambda mb: f"{mb}MB"),
        "work_mem": st.integers(64, 200_000).map(lambda kb: f"{kb}kB"),
        "maintenance_work_mem": st.integers(1, 4096).map(lambda mb: f"{mb}MB"),
        "autovacuum_work_mem": st.just(-1) | st.integers(1, 2048).map(lambda mb: f"{mb}MB"),
        "max_connections": st.integers(5, 1000),
        "pool_size": st.integers(1, 300),
        "session_pool_size": st.integers(1, 100),
        "max_client_conn": st.integers(10, 5000),
    },
)


def sized(host: HostShape, own: dict[str, object] | None = None) -> Sizing | None:
    try:
        return size(host, own)
    except SlipwayError:
        return None


@given(hosts(several), overrides)
def test_it_fits_the_ram_or_is_refused_with_a_way_out(host: HostShape, own: dict[str, object]) -> None:
    refusal: SlipwayError | None = None
    try:
        sizing = size(host, own)
    except (DoesNotFitError, InputError) as error:
        refusal = error
    if refusal:
        assert refusal.found
        assert refusal.remedy
        assert "\n" not in str(refusal)
        return
    assert sizing.budget.fits
    # What the machine really has: the plan less what firmware and kernel keep, which is a line of its own.
    kept = sum(line.mb for line in sizing.budget.lines if line.name == "kept by firmware and kernel")
    assert sizing.budget.total_mb - kept <= host.ram_mb
    assert all(line.mb >= 0 for line in sizing.budget.lines)
    assert render_budget(sizing)


@given(hosts(several), overrides)
def test_client_pools_never_exceed_what_the_pooler_admits(host: HostShape, own: dict[str, object]) -> None:
    sizing = sized(host, own)
    if sizing is None:
        return
    both_colours = 2 * sum(app.workers * (app.client_pool + app.client_overflow) for app in sizing.apps)
    admitted = sizing.pgbouncer.max_client_conn if sizing.pgbouncer else sizing.postgres.max_connections
    assert both_colours <= admitted
    for app, shape in zip(sizing.apps, host.apps, strict=host.role == SHARED):
        assert (app.client_pool >= 1) == shape.database


@given(hosts(several), overrides)
def test_the_apps_shares_of_the_pool_are_the_pool(host: HostShape, own: dict[str, object]) -> None:
    sizing = sized(host, own)
    if sizing is None or not sizing.pgbouncer or not any(app.server_pool for app in sizing.apps):
        return
    assert sum(app.server_pool for app in sizing.apps) == sizing.pgbouncer.pool_size
    assert sum(app.session_pool for app in sizing.apps) == sizing.pgbouncer.session_pool_size
    assert min(app.session_pool for app in sizing.apps if app.server_pool) >= 1


@given(hosts(several))
def test_the_bounds_of_every_rule_hold(host: HostShape) -> None:
    try:
        sizing = plan(host)
    except InputError:
        return
    postgres, ram = sizing.postgres, sizing.plan_ram_mb
    assert host.ram_mb <= ram <= host.ram_mb / 0.88
    assert postgres.shared_buffers_mb == ram // 4
    assert 4 <= postgres.work_mem_mb <= 64
    assert 64 <= postgres.maintenance_work_mem_mb <= 2048
    assert postgres.autovacuum_workers * postgres.autovacuum_work_mem_mb <= postgres.maintenance_work_mem_mb
    assert postgres.max_connections in (50, 100, 200)
    assert 32 <= postgres.min_wal_size_mb <= postgres.max_wal_size_mb <= 4096
    assert postgres.max_slot_wal_keep_size_mb <= max(256, host.disk_mb // 10)
    assert all(
        1 <= app.workers <= max(host.cores, shape.workers or 1)
        for app, shape in zip(sizing.apps, host.apps, strict=False)
    )
    servers = sizing.redis
    assert bool(servers) == host.redis
    assert all(server.maxmemory_mb >= 32 for server in servers)
    assert sum(server.maxmemory_mb for server in servers) <= max(256, 32 * len(servers))
    assert sizing.budget.group_mb("redis") == sum(server.limit_mb for server in servers)
    assert not [text for text in sizing.warnings if not text.startswith("App ")]
    if sizing.pgbouncer:
        assert 8 <= sizing.pgbouncer.pool_size <= 100
        assert sizing.pgbouncer.pool_size + sizing.pgbouncer.session_pool_size + 10 <= postgres.max_connections


@given(hosts(by_rule, st.integers(2048, 300_000)))
def test_postgres_stays_within_its_share_where_work_mem_is_above_its_floor(host: HostShape) -> None:
    sizing = plan(host)
    if sizing.postgres.work_mem_mb > 4:
        share = 0.5 if host.role == SHARED else 0.9
        assert sizing.budget.group_mb("postgres") <= share * sizing.plan_ram_mb


@given(hosts(by_rule), st.sampled_from(PLANS_MB), st.sampled_from(PLANS_MB))
@example(HostShape(2048, 1, 40_000), 2048, 4096)
def test_a_larger_plan_never_gets_less(host: HostShape, one: int, other: int) -> None:
    # Without a pooler every one of max_connections counts as active, and the table doubles them at 2 and 4 GB.
    host = replace(host, pooler=True)
    small, large = sized(replace(host, ram_mb=min(one, other))), sized(replace(host, ram_mb=max(one, other)))
    if small is None:
        return
    assert large is not None, "a larger plan is refused where a smaller one fits"
    for name in ("shared_buffers_mb", "effective_cache_size_mb", "maintenance_work_mem_mb", "max_connections"):
        assert getattr(large.postgres, name) >= getattr(small.postgres, name)
    if small.pgbouncer and large.pgbouncer:
        assert large.pgbouncer.pool_size >= small.pgbouncer.pool_size
        assert large.pgbouncer.max_client_conn >= small.pgbouncer.max_client_conn
        if large.pgbouncer.pool_size == small.pgbouncer.pool_size:  # a larger pool rightly shares work_mem among more
            assert large.postgres.work_mem_mb >= small.postgres.work_mem_mb
    for before, after in zip(small.apps, large.apps, strict=True):
        assert after.workers >= before.workers


@given(hosts(by_rule), st.integers(1, 128))
def test_more_cores_never_get_a_smaller_pool_or_fewer_workers(host: HostShape, cores: int) -> None:
    few, many = sorted((host.cores, cores))
    one, other = plan(replace(host, cores=few)), plan(replace(host, cores=many))
    assert other.postgres.active >= one.postgres.active
    assert int(other.settings["max_worker_processes"]) >= int(one.settings["max_worker_processes"])
    for before, after in zip(one.apps, other.apps, strict=True):
        assert after.concurrency >= before.concurrency


@given(hosts(by_rule))
def test_no_host_that_fits_is_refused_for_having_more_cores(host: HostShape) -> None:
    if sized(replace(host, cores=2)) is not None:
        assert sized(host) is not None


@given(hosts(several))
def test_its_own_answer_as_overrides_gives_the_same_answer_without_a_warning(host: HostShape) -> None:
    first = sized(host)
    if first is None:
        return
    second = size(host, dict(first.settings))
    assert second.settings == first.settings
    assert second.budget == first.budget
    assert second.warnings == first.warnings


@given(hosts(several), overrides)
def test_the_same_host_gets_the_same_answer(host: HostShape, own: dict[str, object]) -> None:
    assert sized(host, own) == sized(host, dict(reversed(own.items())))


@given(st.integers(1, 2_000_000))
def test_rounding_to_a_plan_is_idempotent_and_never_gives_less(measured: int) -> None:
    plan_mb = plan_ram_mb(measured)
    assert plan_ram_mb(plan_mb) == plan_mb >= measured
    assert plan_ram_mb(measured + 1) >= plan_mb


@given(st.integers(0, 1000), st.integers(1, 50))
def test_shares_add_up_and_differ_by_one_at_most(total: int, parts: int) -> None:
    shares = share_out(total, parts)
    assert sum(shares) == total
    assert max(shares) - min(shares) <= 1
