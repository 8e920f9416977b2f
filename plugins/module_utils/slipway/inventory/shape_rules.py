# SPDX-License-Identifier: Apache-2.0
"""Which hosts may do what: one host for all, or the database on a host of its own. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .schema import Problem

PARTS = ("edge", "app", "db")


def apart(groups: Mapping[str, Sequence[str]]) -> bool:
    """Whether the database has a host of its own: one host for edge and app, another one for db."""
    edge, app, db = (set(groups.get(name, ())) for name in PARTS)
    return edge == app and len(app) == len(db) == 1 and not app & db


def check_shape(groups: Mapping[str, Sequence[str]]) -> Iterator[Problem]:
    """Groups that share hosts in a way that no playbook can set up."""
    parts = {name: sorted(groups.get(name, ())) for name in PARTS}
    if not any(parts.values()) or len({tuple(hosts) for hosts in parts.values()}) == 1 or apart(groups):
        return
    shape = ", ".join(f"{name}: {' '.join(hosts) or 'none'}" for name, hosts in parts.items())
    yield Problem(
        f"edge, app and db are on hosts that do not go together ({shape})",
        "put one host into all three; or one into edge and app and another one into db (docs/database_host.md). other shapes "
        "are a later rung",
    )


def check_database_host(groups: Mapping[str, Sequence[str]], network: Any) -> Iterator[Problem]:
    """A database on a host of its own that the apps could not reach. ``network``: ``slipway_private_network``."""
    if apart(groups) and network is None:
        yield Problem(
            f"the database is on {groups['db'][0]}, the apps are on {groups['app'][0]}, and no network joins them",
            "set slipway_private_network in group_vars/all/main.yml: {kind: wireguard}, or your provider's (docs/private_network.md)",
        )
