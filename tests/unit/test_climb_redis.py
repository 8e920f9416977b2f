# SPDX-License-Identifier: Apache-2.0
"""The plan of adding Redis: what starts, what makes room, what goes and what is kept."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from slipway.climb import redis
from slipway.climb.plan import Plan, Row, Step, render
from slipway.climb.resize import RESTART

NOTHING = Plan("resize", "web1", "Resize", (), (), "", "", "")
ROOM = Plan(
    "resize",
    "web1",
    "Resize",
    (Row("postgres work_mem", "8MB", "8MB"), Row("app notes: memory limit", "277 MB", "190 MB", "blue-green release")),
    (
        Step("prepare", "the apps' new numbers are laid down"),
        Step("cut_over", "notes gets a release, blue-green (its secrets changed)"),
        Step("verify", "every figure of the table is read back from what runs"),
    ),
    "none that a user notices.",
    "",
    "",
)
CACHE = {
    "name": "notes-cache",
    "app": "notes",
    "purpose": "cache",
    "maxmemory_mb": 69,
    "limit_mb": 96,
    "policy": "allkeys-lru",
}
QUEUE = {**CACHE, "name": "notes-queue", "purpose": "queue"}


def seen(name: str, *, up: bool = True, mb: int = 69, keys: int = 0) -> dict[str, Any]:
    return {"name": name, "up": up, "maxmemory_mb": mb if up else 0, "keys": keys, "reason": ""}


def test_the_first_climb_starts_the_servers_before_the_apps_are_released() -> None:
    plan = redis.plan(ROOM, wished=[CACHE, QUEUE], seen=[], back="take it out")
    assert [(row.what, row.before, row.after) for row in plan.rows] == [
        ("redis cache of notes", "", "69 MB"),
        ("redis queue of notes", "", "69 MB"),
        ("app notes: memory limit", "277 MB", "190 MB"),
    ]
    assert [step.phase for step in plan.steps] == ["prepare", "prepare", "prepare", "cut_over", "verify"]
    assert (plan.due, plan.back, plan.impact) == (
        True,
        "take it out",
        "none that a user notices: the apps change by a blue-green release.",
    )
    assert "Redis beside the apps on web1" in render(plan)


def test_nothing_is_due_where_all_runs_as_wished() -> None:
    plan = redis.plan(NOTHING, wished=[CACHE], seen=[seen("notes-cache")])
    assert (plan.due, plan.steps, plan.impact) == (False, (), "")


def test_a_server_that_is_down_or_too_small_is_due_and_a_restart_is_told() -> None:
    assert redis.plan(NOTHING, wished=[CACHE], seen=[seen("notes-cache", up=False)]).due
    plan = redis.plan(NOTHING, wished=[CACHE], seen=[seen("notes-cache", mb=40)])
    assert plan.impact == "redis cache of notes is away for a second, and begins empty."
    assert "(its clients connect again)" in " ".join(render(plan).split())


def test_what_nobody_wishes_for_stops_after_the_release_and_jobs_left_in_it_are_told() -> None:
    plan = redis.plan(
        ROOM, wished=[CACHE], seen=[seen("notes-cache"), seen("notes-queue", keys=3)], kept=["notes-queue"]
    )
    assert [step.text for step in plan.steps if step.phase == "cut_over"][
        -1
    ] == "redis queue of notes stops, its data is kept"
    assert "redis queue of notes holds 3 keys" in plan.warnings[0]
    assert "-e redis_release_data=true" in plan.notes[0]


def test_taking_all_of_it_away_is_called_so_and_data_goes_only_when_released() -> None:
    assert redis.plan(ROOM, wished=[], seen=[seen("notes-cache")]).title == "Take Redis away"
    kept = redis.plan(NOTHING, wished=[], seen=[], kept=["notes-queue"])
    assert not kept.due
    assert len(kept.notes) == 1
    released = redis.plan(NOTHING, wished=[], seen=[], kept=["notes-queue"], release=True)
    assert [step.text for step in released.steps if step.phase == "cut_over"] == [
        "the data of notes-queue is deleted for good"
    ]
    assert released.notes == ()


def test_a_restart_of_the_database_is_not_hidden() -> None:
    room = Plan(
        "resize",
        "web1",
        "Resize",
        (Row("postgres shared_buffers", "1GB", "512MB", RESTART),),
        ROOM.steps,
        "requests wait.",
        "",
        "",
    )
    assert redis.plan(room, wished=[CACHE], seen=[]).impact == "requests wait."


def test_another_climb_tells_what_its_sizes_change_in_servers_that_are_there_and_starts_none() -> None:
    plan = redis.beside(ROOM, wished=[CACHE, QUEUE], seen=[seen("notes-cache", mb=40)])
    assert [row.what for row in plan.rows if row.what.startswith("redis")] == ["redis cache of notes"]
    assert [step.phase for step in plan.steps] == ["prepare", "cut_over", "cut_over", "verify"]
    assert plan.impact == "none that a user notices. redis cache of notes is away for a second, and begins empty."
    assert plan.title == "Resize"
    assert redis.beside(ROOM, wished=[CACHE], seen=[seen("notes-cache")]) == ROOM


servers = st.lists(
    st.sampled_from([CACHE, QUEUE, {**CACHE, "name": "shop-cache", "app": "shop"}]), unique_by=lambda one: one["name"]
)


@given(servers, servers)
def test_what_is_left_is_what_differs(wished: list[dict[str, Any]], there: list[dict[str, Any]]) -> None:
    found = redis.left(wished, [seen(one["name"]) for one in there])
    assert len(found) == len({one["name"] for one in wished} ^ {one["name"] for one in there})
    assert redis.plan(NOTHING, wished=wished, seen=[seen(one["name"]) for one in there]).due == bool(found)
