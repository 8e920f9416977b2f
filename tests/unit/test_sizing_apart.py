# SPDX-License-Identifier: Apache-2.0
"""The apps on one host, their database on another: the pools are the database's, the memory each host's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slipway.errors import InputError
from slipway.inventory.preflight import Wish, examine
from slipway.sizing.budget import PLANS_MB
from slipway.sizing.plan import APPS, DEDICATED, SHARED, AppShape, HostShape, plan, render_budget, size, size_from_facts

from console import budget
from console.hosts import Endpoint, Fleet

DISK = 80_000
DATABASE = {"ram_mb": 7900, "cores": 4, "disk_total_mb": DISK}
APP = {"ram_mb": 3900, "cores": 2, "disk_total_mb": DISK}
NOTES = [{"name": "notes"}, {"name": "shop", "redis": ["cache"]}, {"name": "old", "state": "absent"}]


def test_golden_pools_of_the_database_reach_the_apps() -> None:
    database = size_from_facts(DATABASE, role=DEDICATED, apps=NOTES)
    apps = size_from_facts(APP, role=APPS, apps=NOTES, database=DATABASE)
    assert database.pgbouncer
    assert apps.pgbouncer
    assert (apps.pgbouncer.pool_size, apps.pgbouncer.session_pool_size) == (28, 28)
    assert apps.pgbouncer.max_client_conn == 1000  # by the RAM of the host that the pooler is on
    assert apps.postgres == database.postgres
    assert [(app.name, app.server_pool) for app in apps.apps] == [("notes", 14), ("shop", 14)]
    assert {line.group for line in apps.budget.lines} == {"system", "docker", "caddy", "pgbouncer", "redis", "apps"}
    assert {line.group for line in database.budget.lines} == {"system", "postgres"}
    assert database.redis == ()


def test_the_apps_get_what_the_database_took_before() -> None:
    beside = size_from_facts(APP, apps=NOTES[:1])
    apart = size_from_facts(APP, role=APPS, apps=NOTES[:1], database=DATABASE)
    assert apart.apps[0].memory_mb >= beside.apps[0].memory_mb
    assert apart.budget.free_mb > beside.budget.free_mb + beside.postgres.shared_buffers_mb


def test_your_own_figures_hold_on_the_host_that_they_are_about() -> None:
    own = {"max_connections": 60, "pool_size": 20, "max_client_conn": 300, "redis_maxmemory": "128MB"}
    apps = size_from_facts(APP, role=APPS, apps=NOTES, overrides=own, database=DATABASE)
    assert apps.pgbouncer
    assert (apps.pgbouncer.pool_size, apps.pgbouncer.max_client_conn) == (20, 300)
    assert apps.postgres.max_connections == 60
    assert apps.redis_maxmemory_mb == 128


def test_the_view_says_where_the_database_is() -> None:
    apps = size_from_facts(APP, role=APPS, apps=NOTES, database=DATABASE)
    text = render_budget(apps)
    assert "apps, their database on a host of its own" in text
    assert "shared_buffers" not in text
    plain = apps.to_dict()
    assert plain["host"]["role"] == "apps"  # type: ignore[index]
    assert "database" not in plain["host"]  # type: ignore[operator]


@pytest.mark.parametrize("role", [SHARED, DEDICATED])
def test_only_the_apps_host_has_its_database_elsewhere(role: str) -> None:
    with pytest.raises(InputError, match="for its database"):
        HostShape(4096, 2, DISK, role=role, database=HostShape(4096, 2, DISK, role=DEDICATED))
    with pytest.raises(InputError, match="no host for its database"):
        HostShape(4096, 2, DISK, role=APPS)


def test_too_many_apps_for_the_databases_connections_are_refused() -> None:
    many = [{"name": f"app{n}"} for n in range(9)]
    with pytest.raises(InputError, match="9 apps share 5 pooled"):
        size_from_facts({**APP, "ram_mb": 16_000}, role=APPS, apps=many, overrides={"pool_size": 5}, database=DATABASE)


def test_preflight_judges_the_apps_host_by_both() -> None:
    seen = {**APP, "os": {"id": "debian", "version_id": "13"}, "arch": "x86_64", "disk_free_mb": 40_000}
    jobs = [{"name": "notes", "jobs": [{"name": "mail", "count": 7, "memory_mb": 128}]}]
    small = {"ram_mb": 981, "cores": 1, "disk_total_mb": DISK}

    def errors(database: dict[str, int] | None) -> list[str]:
        found = examine(seen, Wish(apps=jobs, database=database), controller_now=0)
        return [str(one) for one in found if one.level == "error"]

    assert errors({**DATABASE, "cores": 8}) == []
    assert "pooled connections" in errors(small)[0]
    assert errors({}) == []  # not seen yet


@given(
    st.sampled_from(PLANS_MB[2:12]), st.integers(1, 16), st.sampled_from(PLANS_MB[1:]), st.integers(1, 64),
    st.integers(1, 6),
)  # fmt: skip
def test_all_pools_fit_the_databases_connections(ram: int, cores: int, database: int, its: int, count: int) -> None:
    apps = tuple(AppShape(f"app{n}") for n in range(count))
    there = HostShape(database, its, DISK, role=DEDICATED, apps=apps)
    sizing = plan(HostShape(ram, cores, DISK, role=APPS, apps=apps, database=there))
    assert sizing.pgbouncer
    assert sizing.pgbouncer.pool_size + sizing.pgbouncer.session_pool_size + 10 <= sizing.postgres.max_connections
    assert sum(app.server_pool for app in sizing.apps) == sizing.pgbouncer.pool_size
    assert min(app.session_pool for app in sizing.apps) >= 1
    assert sizing.postgres == plan(there).postgres
    clients = 2 * sum(app.workers * (app.client_pool + app.client_overflow) for app in sizing.apps)
    assert clients + sizing.pgbouncer.session_pool_size <= sizing.pgbouncer.max_client_conn
    assert size(there).budget.fits


def test_fab_sizing_shows_both_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = {"app1": APP, "db1": DATABASE}
    two = (Endpoint("app1", "192.0.2.1", groups=("app", "edge")), Endpoint("db1", "192.0.2.2", groups=("db",)))
    fleet = Fleet(Path("inventories/two"), "lab", two, tuple(NOTES), {})
    monkeypatch.setattr(budget, "_fleet", lambda *_, **__: fleet)
    monkeypatch.setattr(budget, "look", lambda host, *_: {"system": measured[host.name]})
    text = budget.show("two")
    assert text.startswith("app1\nMemory budget: 4096 MB RAM, 2 cores, apps, their database on a host of its own")
    assert "\n\ndb1\nMemory budget: 8192 MB RAM, 4 cores, database alone" in text
    assert json.loads(budget.show("two", as_json=True))["db1"]["host"]["role"] == "dedicated"
