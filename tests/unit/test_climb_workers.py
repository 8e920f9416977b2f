# SPDX-License-Identifier: Apache-2.0
"""The plan of the climb that adds workers: the table, the steps, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
from slipway.climb import resize, workers
from slipway.climb.plan import Row
from slipway.climb.workers import JobNow, Wish
from slipway.errors import InputError
from slipway.postgres.conf import Running
from slipway.sizing.model import JobShape
from slipway.sizing.plan import AppShape, HostShape, size

MAIL = JobShape("mail", 2, 200)


def wish(*jobs: JobShape, cores: int = 2, count: int | None = None, releases: dict[str, str] | None = None) -> Wish:
    """What shall run on a host with app notes."""
    sizing = size(HostShape(4096, cores, 40_960, apps=(AppShape("notes", workers=count, jobs=jobs),))).to_dict()
    env = {"notes": {"WORKERS": "2", "LOG_LEVEL": "info"}}
    return workers.from_sizing(sizing, env=env, releases=releases or {}, settings={})


def running(found: Wish, **more: Any) -> resize.Now:
    """A host on which exactly this runs."""
    settings = {name: Running(value) for name, value in found.then.settings.items()}
    return resize.Now(settings, {}, found.then.pools, found.then.apps, **more)


def planned(now: resize.Now, jobs: workers.Jobs, found: Wish) -> Any:
    """The plan, and its rows by name."""
    plan = workers.plan(now, jobs, found, title="Workers", back="take them out", room=("room",))
    return plan, {row.what: row for row in plan.rows}


def test_new_workers_are_shown_beside_what_runs_and_come_with_a_release() -> None:
    before, after = wish(), wish(MAIL, releases={"notes": "its image or settings changed"})
    plan, rows = planned(running(before), {}, after)
    job = rows["app notes: background job mail"]
    assert (job.before, job.after, job.effect) == ("", "2 x 200 MB", "new containers")
    assert rows["app notes: connections they may hold"].after == "2 of 12"
    limits = [before.then.apps["notes"].memory_mb, after.then.apps["notes"].memory_mb]
    assert rows["app notes: memory of all its containers"] == Row(
        "app notes: memory of all its containers", f"{limits[0]} MB", f"{limits[1] + 400} MB"
    )
    assert [step.phase for step in plan.steps] == ["prepare", "cut_over", "verify"]
    assert plan.due
    assert plan.impact == "none that a user notices."


def test_what_runs_already_leaves_nothing_to_do() -> None:
    now = wish(MAIL)
    plan, _ = planned(running(now), {"notes": {"mail": JobNow(2, 200)}}, now)
    assert workers.left(plan) == []
    assert not plan.due


def test_one_worker_missing_is_left_to_do() -> None:
    now = wish(MAIL)
    plan, _ = planned(running(now), {"notes": {"mail": JobNow(1, 200)}}, now)
    assert "app notes: background job mail" in workers.left(plan)


def test_taking_them_away_says_what_ends() -> None:
    before, after = wish(MAIL), wish(releases={"notes": "its image or settings changed"})
    plan, rows = planned(running(before), {"notes": {"mail": JobNow(2, 200)}}, after)
    assert (rows["app notes: background job mail"].before, rows["app notes: background job mail"].after) == (
        "2 x 200 MB",
        "",
    )
    assert any("mail of notes ends after the job in hand" in step.text for step in plan.steps)


def test_an_inventory_without_jobs_is_told_where_they_go() -> None:
    now = wish()
    plan, _ = planned(running(now), {}, now)
    assert not plan.due
    assert any("slipway_apps" in note for note in plan.notes)


def test_more_web_workers_than_the_cores_carry_are_refused() -> None:
    assert wish(count=5, cores=2).then.apps
    with pytest.raises(InputError, match=r"6 workers on 2 cores.*at most 5.*resize\.yml"):
        wish(count=6, cores=2)


def test_a_server_of_another_size_is_resized_first() -> None:
    found = wish(MAIL, releases={"notes": "its image or settings changed"})
    now = running(wish())
    settings = {**now.settings, "shared_buffers": Running("65536", "8kB", "integer", "postmaster")}
    with pytest.raises(InputError, match=r"shared_buffers of PostgreSQL.*resize\.yml first"):
        planned(resize.Now(settings, {}, now.pools, now.apps), {}, found)
