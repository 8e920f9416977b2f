# SPDX-License-Identifier: Apache-2.0
"""The plan of a resize: what differs, what that takes, and in which order."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from slipway.climb.resize import RELEASE, RELOAD, RESTART, AppNow, Now, Then, plan, restarts, rows, shrinks, steps
from slipway.climb.running import container
from slipway.postgres.conf import Running
from slipway.sizing.plan import HostShape, size


def megabytes(count: int, context: str = "user") -> Running:
    return Running(str(count * 1024), "kB", "integer", context)


def server(ram: int, cores: int) -> dict[str, str]:
    return dict(size(HostShape(ram, cores, 40_960)).postgres.settings)


def as_running(settings: dict[str, str]) -> dict[str, Running]:
    """A server that runs with ``settings``: only those that take a restart are told apart, as the table asks for."""
    fixed = ("shared_buffers", "max_connections", "max_worker_processes", "autovacuum_max_workers")
    return {
        name: Running(value, "", "integer" if value.isdigit() else "string", "postmaster" if name in fixed else "user")
        for name, value in settings.items()
    }


NOW = Now(
    {"shared_buffers": Running("65536", "8kB", "integer", "postmaster"), "work_mem": megabytes(4),
     "max_connections": Running("50", "", "integer", "postmaster")},
    {"max_client_conn": "500"}, {"notes": 11}, {"notes": AppNow(316, {"WORKERS": "2", "POOL_SIZE": "10"})},
)  # fmt: skip
THEN = Then(
    {"shared_buffers": "1024MB", "work_mem": "14MB", "max_connections": "100"}, {"max_client_conn": "1000"}, {"notes": 12},
    {"notes": AppNow(808, {"WORKERS": "2", "POOL_SIZE": "15"})}, {"notes": "its settings changed"},
)  # fmt: skip
SAME = Then(
    {"shared_buffers": "512MB", "work_mem": "4MB", "max_connections": "50"}, {"max_client_conn": "500"}, {"notes": 11},
    {"notes": AppNow(316, {"WORKERS": "2", "POOL_SIZE": "10"})},
)  # fmt: skip


def test_each_figure_says_what_it_takes() -> None:
    found = {row.what: (row.before, row.after, row.effect) for row in rows(NOW, THEN) if row.changes}
    assert found == {
        "postgres shared_buffers": ("512MB", "1024MB", RESTART),
        "postgres work_mem": ("4MB", "14MB", RELOAD),
        "postgres max_connections": ("50", "100", RESTART),
        "pgbouncer max_client_conn": ("500", "1000", RELOAD),
        "pool of notes": ("11", "12", RELOAD),
        "app notes: memory limit": ("316 MB", "808 MB", RELEASE),
        "app notes: client pool": ("10", "15", RELEASE),
    }


def test_going_up_the_server_comes_first_and_the_apps_last() -> None:
    cut = [step.text for step in plan(NOW, THEN, title="x", back="y").steps if step.phase == "cut_over"]
    assert [text.split(" ")[0] for text in cut] == ["PostgreSQL", "PgBouncer", "notes"]


def test_going_down_the_apps_come_first_and_the_server_last() -> None:
    small = replace(THEN, settings={**THEN.settings, "shared_buffers": "256MB", "max_connections": "30"})
    assert shrinks(NOW, small)
    cut = [step.text for step in plan(NOW, small, title="x", back="y").steps if step.phase == "cut_over"]
    assert [text.split(" ")[0] for text in cut] == ["notes", "PgBouncer", "PostgreSQL"]


def test_without_a_restart_no_impact_is_promised_and_none_is_planned() -> None:
    gentle = replace(SAME, settings={**SAME.settings, "work_mem": "8MB"})
    made = plan(NOW, gentle, title="x", back="y")
    assert not restarts(made)
    assert made.impact == "none that a user notices."
    assert [step.text for step in made.steps if step.phase == "cut_over"] == ["PostgreSQL reads its settings again"]


def test_what_runs_as_it_should_is_nothing_to_do() -> None:
    made = plan(NOW, SAME, title="x", back="y")
    assert not made.due
    assert made.impact == ""
    assert [row for row in made.rows if row.changes] == []


def test_an_app_that_was_never_deployed_and_a_pool_that_is_new_have_no_before() -> None:
    found = {row.what: row.before for row in rows(Now(), THEN)}
    assert found["app notes: memory limit"] == found["pool of notes"] == ""


def test_of_a_containers_environment_only_the_sizings_variables_are_read() -> None:
    data = {
        "Config": {"Env": ["POOL_SIZE=15", "DATABASE_URL=postgresql://notes:planted-secret@x/notes", "WORKERS=2=3"]},
        "HostConfig": {"Memory": 808 * 2**20},
    }
    found = container(data)
    assert found == AppNow(808, {"POOL_SIZE": "15", "WORKERS": "2=3"})
    assert "planted-secret" not in repr(found)


SIZES = st.tuples(st.sampled_from([2048, 4096, 8192, 16384]), st.integers(1, 4))


@given(SIZES, SIZES)
def test_there_and_back_is_the_same_table_the_other_way_round(small: tuple[int, int], large: tuple[int, int]) -> None:
    one, two = server(*small), server(*large)
    up = {row.what: (row.before, row.after) for row in rows(Now(as_running(one)), Then(two)) if row.changes}
    down = {row.what: (row.after, row.before) for row in rows(Now(as_running(two)), Then(one)) if row.changes}
    assert up == down
    assert (up == {}) == (one == two)


@given(SIZES, SIZES)
def test_a_step_restarts_the_server_exactly_when_a_figure_of_the_postmaster_changes(
    before: tuple[int, int], after: tuple[int, int]
) -> None:
    now, then = Now(as_running(server(*before))), Then(server(*after))
    found = rows(now, then)
    texts = [step.text for step in steps(found, then, down=shrinks(now, then))]
    fixed = [row for row in found if row.changes and row.effect == RESTART]
    assert any("restarts" in text for text in texts) == bool(fixed)
    assert bool(texts) == any(row.changes for row in found)
