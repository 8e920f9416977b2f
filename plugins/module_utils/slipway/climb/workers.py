# SPDX-License-Identifier: Apache-2.0
"""The plan of the climb that adds workers: more processes for requests, and containers for background jobs. Pure.

What runs comes from the containers, what shall run from the sizing, which has refused what the memory or the pool do not carry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import InputError
from . import resize
from .plan import Plan, Row, Step

WEB_MOST = 2
"""Worker processes for each core, and one more, are as many as the cores carry: the rest only waits."""
STARTS, ENDS = "new containers", "they end after what they have in hand"


@dataclass(frozen=True)
class JobNow:
    """The containers of one background job: how many, and the memory limit of each in MB."""

    count: int
    memory_mb: int

    def __str__(self) -> str:
        return f"{self.count} x {self.memory_mb} MB" if self.count else ""


Jobs = Mapping[str, Mapping[str, JobNow]]
"""App -> job -> its containers."""


@dataclass(frozen=True)
class Wish:
    """What shall run, from the sizing and the user: :class:`resize.Then`, the jobs, and each app's part of the pool."""

    then: resize.Then
    jobs: Jobs = field(default_factory=dict)
    pools: Mapping[str, int] = field(default_factory=dict)


def from_sizing(
    sizing: Mapping[str, Any],
    *,
    env: Mapping[str, Mapping[str, Any]],
    releases: Mapping[str, str],
    settings: Mapping[str, Any] | None = None,
    pooler: bool = True,
) -> Wish:
    """The wish of a host. ``sizing`` is :meth:`Sizing.to_dict`, ``env`` each app's plain environment, ``releases`` what the deploy engine
    decided; ``settings`` are the user's own for PostgreSQL, None where there is none on the host.

    Raises InputError for more web workers than the cores carry.
    """
    apps, cores = sizing["apps"], int(sizing["host"]["cores"])
    for name, app in apps.items():
        if app["workers"] > WEB_MOST * cores + 1:
            raise InputError(
                f"App {name} is to have {app['workers']} workers on {cores} core{'s' if cores > 1 else ''}",
                f"at most {WEB_MOST * cores + 1} (2 for each core, and one)",
                f"set workers of {name} to auto, which is {cores} here, or give the server more cores (playbooks/grow/resize.yml)",
            )
    with_pool = {name: app for name, app in apps.items() if app["server_pool"]} if pooler else {}
    pools = {name: int(app["server_pool"]) for name, app in with_pool.items()}
    sessions = {f"{name}_session": int(app["session_pool"]) for name, app in with_pool.items()}
    then = resize.Then(
        {}
        if settings is None
        else {**sizing["postgres"]["settings"], **{key: str(value) for key, value in settings.items()}},
        {},
        {**pools, **sessions},
        {
            name: resize.AppNow(
                int(app["memory_mb"]),
                {key: str(env[name][key]) for key in resize.ENVIRONMENT if key in env.get(name, {})},
            )
            for name, app in apps.items()
        },
        releases,
    )
    jobs = {
        name: {job["name"]: JobNow(job["count"], job["memory_mb"]) for job in app["jobs"]} for name, app in apps.items()
    }
    return Wish(then, jobs, pools)


def rows(now: resize.Now, jobs: Jobs, wish: Wish) -> list[Row]:
    """The before/after table: apps and jobs whether they change or not, of database and pooler what changes."""
    found = [row for row in resize.rows(now, wish.then) if row.changes or row.what.startswith("app ")]
    for app in wish.then.apps:
        before, after = jobs.get(app, {}), wish.jobs.get(app, {})
        for job in sorted({*before, *after}):
            old, new = (str(side[job]) if job in side else "" for side in (before, after))
            found.append(Row(f"app {app}: background job {job}", old, new, STARTS if new else ENDS))
        counts = [sum(one.count for one in side.values()) for side in (before, after)]
        if any(counts) and app in wish.pools:
            of = f"of {wish.pools[app]}"
            found.append(Row(f"app {app}: connections they may hold", f"{counts[0]} {of}", f"{counts[1]} {of}"))
        if any(counts):
            limits = [now.apps[app].memory_mb if app in now.apps else 0, wish.then.apps[app].memory_mb]
            sums = [
                limit + sum(one.count * one.memory_mb for one in side.values())
                for limit, side in zip(limits, (before, after), strict=True)
            ]
            found.append(Row(f"app {app}: memory of all its containers", f"{sums[0]} MB", f"{sums[1]} MB"))
    return found


def plan(
    now: resize.Now,
    jobs: Jobs,
    wish: Wish,
    *,
    title: str,
    back: str,
    room: tuple[str, ...] = (),
    warnings: tuple[str, ...] = (),
) -> Plan:
    """The whole plan; ``room`` says how full the memory will be, and what gives way. Host, proof and price are added by what all climbs share.

    Raises InputError where PostgreSQL would have to restart: then the server's size changed, which is another climb.
    """
    found = rows(now, jobs, wish)
    restart = [row.what.removeprefix("postgres ") for row in found if row.changes and row.effect == resize.RESTART]
    if restart:
        raise InputError(
            f"{', '.join(restart)} of PostgreSQL would change too, which restarts it",
            "a server that is sized for what it has",
            "run playbooks/grow/resize.yml first, then this again; nothing was changed",
        )
    steps = resize.steps([row for row in found if not row.what.startswith("app ")], wish.then, down=False)
    notes = list(room)
    if not any(wish.jobs.values()) and not any(jobs.values()):
        notes.append(
            "No app of the inventory has background jobs: name them under jobs in slipway_apps (docs/jobs.md)."
        )
    elif steps:
        notes.append(
            "They fit on the server you have, which costs nothing more; the price is that of one with more cores."
        )
    ending = [f"{job} of {app}" for app, each in jobs.items() for job in each if job not in wish.jobs.get(app, {})]
    if ending:
        steps.append(
            Step("cut_over", f"{', '.join(ending)} ends after the job in hand; what waits in its queue waits on")
        )
    order = {"prepare": 0, "cut_over": 1, "verify": 2}
    steps.sort(key=lambda step: order[step.phase])
    impact = "none that a user notices." if steps else ""
    return Plan("add_workers", "", title, tuple(found), tuple(steps), impact, "", back, "", tuple(notes), warnings)


def left(found: Plan) -> list[str]:
    """What still runs otherwise than wished."""
    return [row.what for row in found.rows if row.changes]
