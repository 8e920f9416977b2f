# SPDX-License-Identifier: Apache-2.0
"""Sizing with background workers: counted in memory, clients and pool, and refused where the host does not carry them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slipway.errors import InputError, SlipwayError
from slipway.sizing.apps import switch_mb
from slipway.sizing.model import JobShape
from slipway.sizing.plan import AppShape, DoesNotFitError, HostShape, Sizing, plan, render_budget, size

DISK = 40_960
MAIL = JobShape("mail", count=2, memory_mb=200)

jobs = st.lists(
    st.builds(JobShape, name=st.just("job"), count=st.integers(1, 4), memory_mb=st.integers(32, 600)), max_size=3
).map(lambda found: tuple(replace(job, name=f"job{i}") for i, job in enumerate(found)))
apps = st.lists(
    st.builds(
        AppShape,
        name=st.just("app"),
        workers=st.none() | st.integers(1, 8),
        memory_mb=st.none() | st.integers(64, 2048),
        database=st.booleans(),
        jobs=jobs,
    ),
    min_size=1,
    max_size=4,
).map(lambda found: tuple(replace(app, name=f"app{i}") for i, app in enumerate(found)))
hosts = st.builds(
    HostShape, ram_mb=st.integers(1024, 70_000), cores=st.integers(1, 16), disk_mb=st.just(DISK), apps=apps
)


def sized(host: HostShape) -> Sizing | None:
    """The sizing, or None where the host is refused."""
    try:
        return size(host)
    except SlipwayError:
        return None


def with_jobs(ram: int, cores: int, *found: JobShape, **more: object) -> HostShape:
    """A host with one app that has these jobs."""
    return HostShape(ram, cores, DISK, apps=(AppShape("notes", jobs=found, **more),))  # type: ignore[arg-type]


def test_each_job_has_its_line_and_both_colours_are_counted() -> None:
    sizing = size(with_jobs(4096, 2, MAIL, JobShape("index")))
    lines = {line.name: line for line in sizing.budget.lines}
    assert (lines["job mail of notes"].mb, lines["job mail of notes"].detail) == (400, "2 x 200 MB")
    assert lines["job index of notes"].mb == 256
    app = sizing.apps[0]
    assert lines["second colour in a switch"].mb == app.memory_mb + 656
    assert "job mail of notes" in render_budget(sizing)
    assert sizing.to_dict()["apps"]["notes"]["jobs"][0] == {"name": "mail", "count": 2, "memory_mb": 200}  # type: ignore[index]


def test_the_database_keeps_what_it_had_where_the_rest_carries_the_jobs() -> None:
    before, after = size(with_jobs(4096, 2)), size(with_jobs(4096, 2, MAIL))
    assert after.settings == before.settings
    assert after.apps[0].workers == before.apps[0].workers
    assert after.apps[0].memory_mb < before.apps[0].memory_mb


def test_workers_that_the_memory_does_not_carry_are_refused_with_ways_out_that_work() -> None:
    host = with_jobs(2048, 1, JobShape("mail", count=2, memory_mb=1024))
    with pytest.raises(DoesNotFitError) as caught:
        size(host)
    assert "lower count or memory_mb in jobs of notes" in caught.value.remedy
    assert "take a plan of" in caught.value.remedy
    assert size(with_jobs(2048, 1, JobShape("mail", count=1, memory_mb=128))).budget.fits


def test_workers_that_could_keep_every_connection_busy_are_refused() -> None:
    assert size(with_jobs(2048, 1, JobShape("mail", 3, 64))).apps[0].server_pool == 8
    with pytest.raises(InputError, match=r"4 background containers of app notes.*all of its 8 pooled.*at most 3"):
        size(with_jobs(2048, 1, JobShape("mail", 4, 64)))
    assert size(with_jobs(4096, 1, JobShape("mail", 4, 64), database=False)).budget.fits, "they need no connection"


def test_many_workers_on_few_cores_are_warned_of() -> None:
    sizing = size(with_jobs(8192, 1, JobShape("mail", 5, 64), database=False))
    assert any("5 background containers on 1 core:" in warning for warning in sizing.warnings)
    assert not size(with_jobs(8192, 2, JobShape("mail", 5, 64), database=False)).warnings


@pytest.mark.parametrize(("field", "value"), [("count", 0), ("memory_mb", 0), ("count", "two")])
def test_a_job_that_cannot_be_is_refused(field: str, value: object) -> None:
    with pytest.raises(InputError, match=field):
        AppShape.from_mapping({"name": "notes", "jobs": [{"name": "mail", field: value}]})


def test_what_an_inventory_says_becomes_a_shape() -> None:
    shape = AppShape.from_mapping({"name": "notes", "jobs": [{"name": "mail", "command": ["x"], "count": 3}]})
    assert shape.jobs == (JobShape("mail", 3, 256),)
    assert (shape.job_count, shape.jobs_mb) == (3, 768)


@given(hosts)
def test_everything_at_once_fits_or_is_refused(host: HostShape) -> None:
    sizing = sized(host)
    if sizing is None:
        return
    limits = [app.memory_mb + app.jobs_mb for app in sizing.apps]
    assert sizing.budget.group_mb("apps") == switch_mb(limits)
    assert sizing.budget.total_mb <= sizing.budget.ram_mb


@given(hosts)
def test_clients_of_web_workers_and_jobs_stay_within_what_the_pooler_admits(host: HostShape) -> None:
    sizing = sized(host)
    if sizing is None or sizing.pgbouncer is None:
        return
    web = sum(app.workers * (app.client_pool + app.client_overflow) for app in sizing.apps)
    background = sum(2 * app.job_count for app in host.apps if app.database)
    assert 2 * (web + background) <= sizing.pgbouncer.max_client_conn
    for app, shape in zip(sizing.apps, host.apps, strict=True):
        assert not shape.database or not shape.job_count or 2 * shape.job_count < app.server_pool


@given(hosts)
def test_jobs_never_give_the_rest_more(host: HostShape) -> None:
    without = plan(replace(host, apps=tuple(replace(app, jobs=()) for app in host.apps)))
    sizing = sized(host)
    if sizing is None:
        return
    assert int(sizing.postgres.active) <= int(without.postgres.active)
    for before, after in zip(without.apps, sizing.apps, strict=True):
        assert after.workers <= before.workers
