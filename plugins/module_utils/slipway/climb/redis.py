# SPDX-License-Identifier: Apache-2.0
"""The plan of adding Redis, or of taking it away: servers that run against those wished, and what makes room for them. Pure.

What PostgreSQL, the pooler and the apps give up (or get back) is the plan of a resize; here it gets the servers beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from .plan import Plan, Row, Step
from .resize import RELEASE, restarts

STARTS, RESTARTS, STOPS = "starts", "restarts", "stops, its data is kept"


def rows(wished: Iterable[Mapping[str, Any]], seen: Iterable[Mapping[str, Any]]) -> list[Row]:
    """A row for each server. ``wished``: :meth:`Server.public`; ``seen``: ``name``, ``up``, ``maxmemory_mb``, ``keys``."""
    there = {str(one["name"]): one for one in seen}
    found = []
    for one in wished:
        now = there.pop(str(one["name"]), None)
        before = f"{now['maxmemory_mb']} MB" if now and now["up"] else ""
        effect = RESTARTS if before else STARTS
        found.append(Row(f"redis {one['purpose']} of {one['app']}", before, f"{one['maxmemory_mb']} MB", effect))
    for name, now in sorted(there.items()):
        app, _, purpose = name.rpartition("-")
        before = f"{now['maxmemory_mb']} MB" if now["up"] else "stopped"
        found.append(Row(f"redis {purpose} of {app}", before, "", STOPS))
    return found


def plan(
    resize: Plan,
    *,
    wished: Sequence[Mapping[str, Any]],
    seen: Sequence[Mapping[str, Any]],
    kept: Sequence[str] = (),
    release: bool = False,
    back: str = "",
) -> Plan:
    """The whole plan. ``kept``: servers that are gone and whose data is there; with ``release`` it is deleted for good."""
    servers = rows(wished, seen)
    changed = [row for row in servers if row.changes]
    prepare = [
        Step("prepare", f"{row.what} {row.effect} with {row.after}, proved from the host", "its clients connect again" if row.effect == RESTARTS else "")
        for row in changed
        if row.after
    ]  # fmt: skip
    gone = [row for row in changed if not row.after]
    todo = [step for step in resize.steps if step.phase == "cut_over"]
    todo += [Step("cut_over", f"{row.what} {row.effect}") for row in gone]
    todo += [Step("cut_over", f"the data of {name} is deleted for good") for name in kept if release]
    if prepare or todo:
        todo = [
            *prepare,
            *(step for step in resize.steps if step.phase == "prepare"),
            *todo,
            Step(
                "verify", "each app's Redis is asked from within its container; every figure of the table is read back"
            ),
        ]
    return replace(
        resize,
        climb="add_redis",
        title="Redis beside the apps" if wished else "Take Redis away",
        rows=(*servers, *(row for row in resize.rows if row.changes)),
        steps=tuple(todo),
        impact=_impact(resize, changed) if todo else "",
        back=back,
        notes=(*resize.notes, *_notes(kept, release=release)),
        warnings=(*resize.warnings, *_warnings(gone, seen)),
    )


def beside(climb: Plan, *, wished: Sequence[Mapping[str, Any]], seen: Sequence[Mapping[str, Any]]) -> Plan:
    """Another climb's plan with what its new sizes change in the servers of Redis that are there already."""
    there = {str(one["name"]) for one in seen}
    changed = [row for row in rows([one for one in wished if one["name"] in there], seen) if row.changes and row.after]
    if not changed:
        return climb
    todo = [
        Step("cut_over", f"{row.what} {row.effect} with {row.after}", "its clients connect again") for row in changed
    ]
    last = [step for step in climb.steps if step.phase == "verify"]
    return replace(
        climb,
        rows=(*climb.rows, *changed),
        steps=(*(step for step in climb.steps if step.phase != "verify"), *todo, *last),
        impact=" ".join([climb.impact, *_away(changed)]).strip(),
    )


def _away(changed: Sequence[Row]) -> list[str]:
    return [
        f"{row.what} is away for a second{', and begins empty' if ' cache ' in row.what else ''}."
        for row in changed
        if row.effect == RESTARTS and row.before
    ]


def _impact(resize: Plan, changed: Sequence[Row]) -> str:
    told = [resize.impact] if restarts(resize) else []
    told += _away(changed)
    return " ".join(told) or f"none that a user notices: the apps change by a {RELEASE}."


def _notes(kept: Sequence[str], *, release: bool) -> list[str]:
    if release or not kept:
        return []
    return [f"the data of {', '.join(kept)} is kept in /var/lib/redis; -e redis_release_data=true deletes it for good."]


def _warnings(gone: Sequence[Row], seen: Sequence[Mapping[str, Any]]) -> list[str]:
    """Jobs that nobody would work off."""
    names = {f"redis queue of {str(one['name']).rpartition('-')[0]}": int(one["keys"]) for one in seen if str(one["name"]).endswith("-queue")}  # fmt: skip
    return [
        f"{row.what} holds {names[row.what]} keys, which nobody will work off: stop what adds jobs and let the workers finish first."
        for row in gone
        if names.get(row.what)
    ]


def left(wished: Sequence[Mapping[str, Any]], seen: Sequence[Mapping[str, Any]]) -> list[str]:
    """What does not run as wished."""
    return [row.what for row in rows(wished, seen) if row.changes]
