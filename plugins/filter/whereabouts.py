# SPDX-License-Identifier: Apache-2.0
"""Filter ``slipway.vps.data_place``: thin wrapper on :func:`slipway.postgres.whereabouts.judge`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.slipway.vps.plugins.module_utils.slipway.postgres.whereabouts import Seen, judge

DOCUMENTATION = r"""
name: data_place
short_description: Whether the databases are where the inventory has them
version_added: "0.2.0"
description: "Gives C(kind) (V(as_wished), V(split), V(split_back), V(two), V(open), V(elsewhere)) and C(message), empty for the first."
positional: hosts, apps, database, app
options:
  _input: {description: Names of the hosts to look at., type: list, elements: str, required: true}
  hosts: {description: "C(hostvars), with the facts of those hosts.", type: dict, required: true}
  apps: {description: "The applications, as in C(slipway_apps).", type: list, elements: dict, required: true}
  database: {description: The host that the inventory has the database on., type: str, required: true}
  app: {description: The host of the apps., type: str, required: true}
"""

EXAMPLES = r"""
- name: Show where the databases are
  ansible.builtin.debug:
    msg: "{{ (groups['all'] | slipway.vps.data_place(hostvars, slipway_apps, 'db1', 'web1')).kind }}"
"""

RETURN = r"""
_value: {description: "C(kind) and C(message).", type: dict}
"""


def data_place(
    names: Iterable[str], hosts: Mapping[str, Any], apps: Iterable[Mapping[str, Any]], database: str, app: str
) -> dict[str, str]:
    """See DOCUMENTATION."""
    seen = {}
    for name in names:
        facts = hosts[name].get("ansible_facts", {})
        if "slipway_host" in facts and "data" in facts["slipway_host"]:
            seen[name] = Seen.parse(facts["slipway_host"]["data"])
    wished = [str(one["name"]) for one in apps if one.get("database", True) and one.get("state") != "absent"]
    verdict = judge(seen, wished, database=database, app=app)
    return {"kind": verdict.kind, "message": str(verdict)}


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function."""
        return {"data_place": data_place}
