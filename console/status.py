# SPDX-License-Identifier: Apache-2.0
"""``fab status``: one screen for all hosts, one round trip each."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from slipway.errors import SlipwayError

from .hosts import Endpoint, Fleet
from .judge import Report, apps_by_name, rows_of, rung
from .remote import look_at_all
from .style import Style, clean, pad

MARKS = {"good": "✓", "warn": "!", "bad": "✗", "quiet": " "}
Looker = Callable[[Sequence[Endpoint], Sequence[str]], list[dict[str, Any] | SlipwayError]]


def reports(fleet: Fleet, looker: Looker = look_at_all) -> list[Report]:
    """Look at every host at once and judge what was seen."""
    names = [str(app["name"]) for app in fleet.apps if app.get("state", "present") == "present"]
    found = []
    for host, seen in zip(fleet.hosts, looker(fleet.hosts, fleet.domains), strict=True):
        if isinstance(seen, SlipwayError):
            found.append(Report(host.name, host.address, host.groups, error=clean(seen)))
            continue
        if "edge" not in host.groups:
            seen["certificates"] = []
        found_rows = rows_of(seen, names if "app" in host.groups else [])
        rows = [replace(row, hint=row.hint.replace("{inventory}", str(fleet.inventory))) for row in found_rows]
        found.append(Report(host.name, host.address, host.groups, tuple(rows), seen=seen))
    return found


def summary(fleet: Fleet, found: Sequence[Report]) -> dict[str, Any]:
    """The whole screen as plain data: inventory, environment, rung, level, hosts."""
    groups: dict[str, list[str]] = {}
    for host in fleet.hosts:
        for group in host.groups:
            groups.setdefault(group, []).append(host.name)
    ram = [int((report.seen.get("system") or {}).get("ram_mb", 0)) for report in found]
    jobs = any(app.get("jobs") for report in found for app in apps_by_name(report.seen.get("apps")).values())
    number, name = rung(groups, ram, jobs=jobs)
    levels = [report.level for report in found]
    return {
        "inventory": str(fleet.inventory),
        "environment": fleet.environment,
        "rung": {"number": number, "name": name},
        "level": "bad" if "bad" in levels else "warn" if "warn" in levels else "good",
        "hosts": [report.to_dict() for report in found],
    }


def render(fleet: Fleet, found: Sequence[Report], style: Style) -> str:
    """The screen as text."""
    whole = summary(fleet, found)
    place = (
        f"{fleet.inventory.name} ({fleet.environment})"
        if fleet.environment != fleet.inventory.name
        else fleet.inventory.name
    )
    lines = [style.paint(f"Slipway  {place}", "bold") + f"  rung {whole['rung']['number']} {whole['rung']['name']}"]
    columns = max([len(row.label) for report in found for row in report.rows] + [11]) + 2
    for report in found:
        groups = " ".join(group for group in report.groups if group != "all")
        lines += ["", style.paint(report.host, "bold", "cyan") + f"  {report.address}  " + style.paint(groups, "dim")]
        if report.error:
            lines.append("  " + style.level(f"{MARKS['bad']} unreachable: {report.error}", "bad"))
        for row in report.rows:
            mark = style.level(MARKS[row.level], row.level)
            text = style.level(clean(row.text), row.level) if row.level in ("warn", "bad") else clean(row.text)
            hint = style.paint(f"   → {row.hint}", "dim") if row.hint and row.level in ("warn", "bad") else ""
            lines.append(f"  {mark} {pad(row.label, columns)}{text}{hint}")
    return "\n".join(lines)


def as_json(fleet: Fleet, found: Sequence[Report]) -> str:
    """The screen as JSON."""
    return json.dumps(summary(fleet, found), indent=2, ensure_ascii=False)
