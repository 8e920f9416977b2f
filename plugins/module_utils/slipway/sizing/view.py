# SPDX-License-Identifier: Apache-2.0
"""The sizing as text for a terminal: the budget as a table with bars, the main settings, notes and warnings. Pure."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from .budget import Line, bar

if TYPE_CHECKING:
    from .model import Sizing

WIDTH = 96
NAME_WIDTH, MB_WIDTH, BAR_WIDTH = 35, 6, 12
ROLES = {
    "shared": "apps and database on one host",
    "dedicated": "database alone",
    "apps": "apps, their database on a host of its own",
}
SHOWN = (
    ("shared_buffers", "effective_cache_size", "work_mem", "maintenance_work_mem", "max_connections"),
    ("max_wal_size", "max_slot_wal_keep_size", "autovacuum_max_workers", "autovacuum_work_mem"),
)


def render_budget(sizing: Sizing) -> str:
    """The budget in MB, line by line with a bar, its total against the RAM, what was decided, notes and warnings.

    At most 96 columns wide, without colour codes and without a trailing newline.
    """
    host, budget = sizing.host, sizing.budget
    cores = "1 core" if host.cores == 1 else f"{host.cores} cores"
    with_apps = ROLES[host.role]
    parts = [f"Memory budget: {budget.ram_mb} MB RAM, {cores}, {with_apps}, PostgreSQL {host.postgres_major}", ""]
    parts += [_row(line, budget.ram_mb) for line in budget.lines]
    parts.append("  " + "─" * (NAME_WIDTH + MB_WIDTH + 4))
    percent = round(100 * budget.total_mb / budget.ram_mb)
    parts.append(_figure("all of it at once", budget.total_mb) + f"{percent} % of RAM")
    if budget.fits:
        parts.append(_figure("left over, for the page cache", budget.free_mb))
    else:
        parts.append(_figure("MISSING", -budget.free_mb) + "does not fit")
    parts += ["", *_decided(sizing)]
    parts += _sentences("note", sizing.notes) + _sentences("warning", sizing.warnings)
    return "\n".join(part.rstrip() for part in parts)


def _figure(name: str, mb: int) -> str:
    return f"  {name:<{NAME_WIDTH}}{mb:>{MB_WIDTH}} MB  "


def _row(line: Line, ram_mb: int) -> str:
    name = f"{line.group}: {line.name}" if line.group in ("postgres", "system") else line.name
    name = textwrap.shorten(name, NAME_WIDTH, placeholder="…") if len(name) > NAME_WIDTH else name
    return f"{_figure(name, line.mb)}{bar(line.mb, ram_mb, BAR_WIDTH):<{BAR_WIDTH}}  {line.detail}"


def _decided(sizing: Sizing) -> list[str]:
    settings = sizing.postgres.settings
    decided = ", ".join(f"{name} {settings[name]}" for names in SHOWN for name in names)
    lines = [] if sizing.host.database else [_named("Postgres", decided)]
    if sizing.pgbouncer:
        pools = sizing.pgbouncer
        text = f"{pools.pool_size} pooled and {pools.session_pool_size} session connections for up to {pools.max_client_conn} clients"
        lines.append(_named("PgBouncer", text))
    for app in sizing.apps:
        text = f"{app.workers} x {app.concurrency} requests at once, at most {app.memory_mb} MB"
        if app.client_pool:
            text += f", client pool {app.client_pool} + {app.client_overflow} for each worker"
        lines.append(_named(f"App {app.name}", text))
    for server in sizing.redis:
        of = f"{server.purpose} of {server.app}" if server.app else server.purpose
        lines.append(
            _named(f"Redis, {of}", f"maxmemory {server.maxmemory_mb} MB, its process at most {server.limit_mb} MB")
        )
    return lines


def _named(name: str, text: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent=f"  {name}: ", subsequent_indent="    ", break_long_words=False)


def _sentences(kind: str, sentences: tuple[str, ...]) -> list[str]:
    return [
        textwrap.fill(sentence, WIDTH, initial_indent=f"  {kind}: ", subsequent_indent="    ", break_long_words=False)
        for sentence in sentences
    ]
