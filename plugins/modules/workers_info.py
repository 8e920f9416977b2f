#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Adapter: which workers the apps run with, held against the wish and the sizing."""

from __future__ import annotations

DOCUMENTATION = r"""
module: workers_info
short_description: Plans more workers from what really runs
version_added: "0.2.0"
description:
  - Reads the running containers, C(pg_settings) and PgBouncer's pools, and compares them with what the sizing says of the apps and their
    background jobs. Changes nothing.
attributes:
  check_mode: {support: full, description: Only looks.}
  diff_mode: {support: none, description: Nothing changes.}
options:
  sizing: {description: "What the filter P(slipway.vps.sizing#filter) says of the host.", type: dict, required: true}
  env: {description: "The plain environment of each app, by name.", type: dict, default: {}}
  releases: {description: "Apps that get a release, name to the reason.", type: dict, default: {}}
  database: {description: Whether PostgreSQL is on this host., type: bool, default: true}
  settings: {description: "The user's own settings of PostgreSQL.", type: dict, default: {}}
  port: {description: "PostgreSQL's port.", type: int, default: 5432}
  pooler_port: {description: "PgBouncer's port.", type: int, default: 6432}
  title: {description: What the plan is called., type: str, default: Workers}
  back: {description: The way back., type: str, default: ""}
author: [Slipway maintainers (@slipway)]
"""

EXAMPLES = r"""
- name: Compare the workers with the wish
  slipway.vps.workers_info:
    sizing: "{{ my_sizing }}"
"""

RETURN = r"""
plan: {description: "The plan: C(rows), C(steps), C(impact), C(due) ...", type: dict, returned: success}
left: {description: "Names of what runs otherwise than it shall.", type: list, elements: str, returned: success}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.vps.plugins.module_utils._ansible import run_adapter
from ansible_collections.slipway.vps.plugins.module_utils.slipway.climb import running, workers


def main(module: AnsibleModule) -> dict:
    """Look, and plan."""
    params = module.params
    sizing = params["sizing"]
    wish = workers.from_sizing(
        sizing,
        env=params["env"],
        releases=params["releases"],
        settings=params["settings"] if params["database"] else None,
    )
    budget = sizing["budget"]
    room = f"Memory, all of it at once: {budget['total_mb']} of {budget['ram_mb']} MB ('fab sizing' shows each line)."
    plan = workers.plan(
        running.look(wish.then, port=params["port"], pooler_port=params["pooler_port"]),
        running.jobs(wish.then.apps),
        wish,
        title=params["title"],
        back=params["back"],
        room=(room, *sizing["notes"]),
        warnings=tuple(sizing["warnings"]),
    )
    return {"changed": False, "plan": plan.to_dict(), "left": workers.left(plan)}


if __name__ == "__main__":
    run_adapter(
        {
            "sizing": {"type": "dict", "required": True},
            "env": {"type": "dict", "default": {}},
            "releases": {"type": "dict", "default": {}},
            "database": {"type": "bool", "default": True},
            "settings": {"type": "dict", "default": {}},
            "port": {"type": "int", "default": 5432},
            "pooler_port": {"type": "int", "default": 6432},
            "title": {"type": "str", "default": "Workers"},
            "back": {"type": "str", "default": ""},
        },
        main,
    )
