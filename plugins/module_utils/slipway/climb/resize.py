# SPDX-License-Identifier: Apache-2.0
"""The plan of a resize: what PostgreSQL, PgBouncer and the apps really run with, against what the sizing says. Pure.

Going down, what takes connections goes first (apps, pooler, server); going up, what gives them (server, pooler, apps).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..postgres.conf import Running, same
from .plan import Plan, Row, Step

RESTART, RELOAD = "PostgreSQL restarts", "reload"
RELEASE = "blue-green release"
ENVIRONMENT = {
    "WORKERS": "workers",
    "CONCURRENCY": "requests at once per worker",
    "POOL_SIZE": "client pool",
    "POOL_OVERFLOW": "client pool overflow",
}
"""Variables of an app that the sizing decides, and what they are called in the table."""
SHOWN = (
    "shared_buffers",
    "effective_cache_size",
    "work_mem",
    "maintenance_work_mem",
    "max_connections",
    "autovacuum_max_workers",
    "max_worker_processes",
    "max_parallel_workers_per_gather",
)
"""Settings that are shown also where they stay."""


@dataclass(frozen=True)
class AppNow:
    """An app's container as Docker runs it: memory limit in MB, and those of its variables that the sizing decides."""

    memory_mb: int
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Now:
    """What really runs. ``settings``: pg_settings; ``pooler``: SHOW CONFIG; ``pools``: entry -> pool size; ``apps`` by name."""

    settings: Mapping[str, Running] = field(default_factory=dict)
    pooler: Mapping[str, str] = field(default_factory=dict)
    pools: Mapping[str, int] = field(default_factory=dict)
    apps: Mapping[str, AppNow] = field(default_factory=dict)


@dataclass(frozen=True)
class Then:
    """What shall run. ``releases``: apps that get a release, and why, as the deploy engine decided."""

    settings: Mapping[str, str] = field(default_factory=dict)
    pooler: Mapping[str, str] = field(default_factory=dict)
    pools: Mapping[str, int] = field(default_factory=dict)
    apps: Mapping[str, AppNow] = field(default_factory=dict)
    releases: Mapping[str, str] = field(default_factory=dict)


def rows(now: Now, then: Then) -> list[Row]:
    """The before/after table: whatever changes, and the main figures also where they stay."""
    found = []
    for name in dict.fromkeys([*SHOWN, *sorted(then.settings)]):
        if name not in then.settings:
            continue
        running, wished = now.settings.get(name), then.settings[name]
        if running is not None and same(wished, running):
            if name in SHOWN:
                found.append(Row(f"postgres {name}", wished, wished))
            continue
        effect = RESTART if running is not None and running.context == "postmaster" else RELOAD
        found.append(Row(f"postgres {name}", running.shown if running else "", wished, effect))
    for name, wished in sorted(then.pooler.items()):
        found.append(Row(f"pgbouncer {name}", now.pooler.get(name, ""), wished, RELOAD))
    for name, size in sorted(then.pools.items()):
        before = now.pools.get(name)
        found.append(Row(f"pool of {name}", "" if before is None else str(before), str(size), RELOAD))
    for name, app in sorted(then.apps.items()):
        found += _app_rows(name, now.apps.get(name), app)
    return found


def _app_rows(name: str, now: AppNow | None, then: AppNow) -> list[Row]:
    before = f"{now.memory_mb} MB" if now else ""
    found = [Row(f"app {name}: memory limit", before, f"{then.memory_mb} MB", RELEASE)]
    for variable, words in ENVIRONMENT.items():
        if variable in then.env:
            found.append(Row(f"app {name}: {words}", now.env.get(variable, "") if now else "", then.env[variable], RELEASE))  # fmt: skip
    return found


def shrinks(now: Now, then: Then) -> bool:
    """Whether PostgreSQL will admit fewer connections than now: then what takes them goes first."""
    running, wished = now.settings.get("max_connections"), then.settings.get("max_connections")
    return running is not None and wished is not None and int(wished) < int(running.setting)


def steps(found: Sequence[Row], then: Then, *, down: bool) -> list[Step]:
    """What is to be done, in the order in which it is."""
    changed = [row for row in found if row.changes]
    server = [row for row in changed if row.what.startswith("postgres ")]
    pooler = [row for row in changed if row.what.startswith(("pgbouncer ", "pool of "))]
    restart = [row.what.removeprefix("postgres ") for row in server if row.effect == RESTART]
    parts = []
    if restart:
        parts.append(
            Step("cut_over", f"PostgreSQL restarts for {', '.join(restart)}; the pooler holds requests meanwhile",
                 "requests that need the database wait a second or two, none fails")
        )  # fmt: skip
    elif server:
        parts.append(Step("cut_over", "PostgreSQL reads its settings again"))
    if pooler:
        parts.append(Step("cut_over", "PgBouncer reads its pools again"))
    for name, why in sorted(then.releases.items()):
        parts.append(Step("cut_over", f"{name} gets a release, blue-green ({why})"))
    if down:
        parts = [part for part in parts if " gets a release" in part.text] + [
            part for part in reversed(parts) if " gets a release" not in part.text
        ]
    if not parts:
        return []
    first = [Step("prepare", "the apps' new numbers are laid down, their images sent where the host lacks them")]
    last = [Step("verify", "every figure of the table is read back from what runs")]
    return [*(first if then.releases else []), *parts, *last]


def plan(now: Now, then: Then, *, title: str, back: str, notes: Sequence[str] = ()) -> Plan:
    """The whole plan; host, proof and price are added by what all climbs share."""
    found = rows(now, then)
    down = shrinks(now, then)
    todo = steps(found, then, down=down)
    impact = (
        "requests that need the database wait while PostgreSQL restarts (1 to 5 seconds); none fails. Sessions of the direct "
        "kind (psql, migrations, LISTEN) are cut off."
        if any(row.changes and row.effect == RESTART for row in found)
        else "none that a user notices."
    )
    return Plan("resize", "", title, tuple(found), tuple(todo), impact if todo else "", "", back, notes=tuple(notes))


def restarts(plan: Plan) -> bool:
    """Whether PostgreSQL has to restart for it."""
    return any(row.changes and row.effect == RESTART for row in plan.rows)
