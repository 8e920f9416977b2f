# SPDX-License-Identifier: Apache-2.0
"""``fab sizing``: the sizing of a live host, or of one that is only thought of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from slipway.errors import InputError
from slipway.sizing.plan import Sizing, render_budget, size_from_facts

from . import hosts
from .remote import look


def show(
    inventory: str, *, ram: int = 0, cores: int = 0, disk_gb: int = 40, dedicated: bool = False, as_json: bool = False
) -> str:
    """The budget as text or JSON. ``ram`` in MB and ``cores`` describe a host that need not exist.

    Without them the inventory's database host is measured, and the apps' host too where that is another one. Raises SlipwayError: too small, unreachable, no inventory.
    """
    role = "dedicated" if dedicated else "shared"
    fleet = _fleet(inventory, needed=not ram)
    apps: list[Mapping[str, Any]] = list(fleet.apps) if fleet else []
    if ram or cores:
        if ram < 1 or cores < 1 or disk_gb < 1:
            raise InputError(
                "A host that is only thought of needs its RAM and its cores",
                "--ram in MB and --cores",
                "such as: fab sizing --ram 4096 --cores 2",
            )
        facts: dict[str, Any] = {"ram_mb": ram, "cores": cores, "disk_total_mb": disk_gb * 1024}
        apps = apps or [{"name": "app"}]
    else:
        assert fleet is not None  # noqa: S101  (_fleet raises otherwise)
        database = fleet.host(group="db")
        facts = look(database, [], "system")["system"]
        if "db" in database.groups and "app" not in database.groups:
            return _apart(fleet, database.name, facts, as_json=as_json)
    sizing = size_from_facts(
        facts, role=role, apps=[] if dedicated else apps, overrides=fleet.overrides if fleet else {}
    )
    return json.dumps(sizing.to_dict(), indent=2) if as_json else text_of(sizing)


def _apart(fleet: hosts.Fleet, database: str, facts: Mapping[str, Any], *, as_json: bool) -> str:
    """The apps' host and the database's, each with its own budget."""
    front = fleet.host(group="app")
    own: dict[str, Any] = {"apps": list(fleet.apps), "overrides": fleet.overrides}
    both = {
        front.name: size_from_facts(look(front, [], "system")["system"], role="apps", database=facts, **own),
        database: size_from_facts(facts, role="dedicated", **own),
    }
    if as_json:
        return json.dumps({name: sizing.to_dict() for name, sizing in both.items()}, indent=2)
    return "\n\n".join(f"{name}\n{text_of(sizing)}" for name, sizing in both.items())


def _fleet(inventory: str, *, needed: bool) -> hosts.Fleet | None:
    """The inventory's hosts and apps; None where none is needed and none was named or can be chosen."""
    try:
        return hosts.read_fleet(hosts.choose_inventory(inventory))
    except InputError:
        if needed or inventory:
            raise
        return None


def text_of(sizing: Sizing) -> str:
    """The library's own view."""
    return render_budget(sizing)
