#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Adapter: what PostgreSQL, PgBouncer and the apps run with, held against the sizing."""

from __future__ import annotations

DOCUMENTATION = r"""
module: resize_info
short_description: Plans a resize from what really runs
version_added: "0.1.0"
description:
  - Reads C(pg_settings), PgBouncer's console and the limits of the running containers, and compares them with what the sizing says.
    Changes nothing.
attributes:
  check_mode: {support: full, description: Only looks.}
  diff_mode: {support: none, description: Nothing changes.}
options:
  settings: {description: "PostgreSQL's settings as they shall be; empty where no database is on the host.", type: dict, default: {}}
  port: {description: "PostgreSQL's port.", type: int, default: 5432}
  pooler: {description: "PgBouncer's settings as they shall be; empty where there is none on the host.", type: dict, default: {}}
  pools: {description: "Pool size of each of PgBouncer's entries.", type: dict, default: {}}
  pooler_port: {description: "PgBouncer's port.", type: int, default: 6432}
  apps:
    description: The apps as they shall be.
    type: list
    elements: dict
    default: []
    suboptions:
      name: {description: Its name., type: str, required: true}
      memory_mb: {description: Its memory limit in MB., type: int, required: true}
      env: {description: Its environment without secrets., type: dict, default: {}}
  releases: {description: "Apps that get a release, name to the reason.", type: dict, default: {}}
  notes: {description: "What else the plan should say, one sentence each.", type: list, elements: str, default: []}
  longest_transaction: {description: "Seconds that a transaction may have been open when PostgreSQL must restart; 0 does not look.", type: int, default: 0}
  title: {description: What the plan is called., type: str, default: Resize}
  back: {description: The way back., type: str, default: ""}
author: [Slipway maintainers (@slipway)]
"""

EXAMPLES = r"""
- name: Compare what runs with the sizing
  slipway.vps.resize_info:
    settings: {shared_buffers: 1GB}
"""

RETURN = r"""
plan: {description: "The plan: C(rows), C(steps), C(impact), C(due) ...", type: dict, returned: success}
left: {description: "Names of what runs otherwise than it shall.", type: list, elements: str, returned: success}
shrinks: {description: Whether PostgreSQL will admit fewer connections than now., type: bool, returned: success}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.vps.plugins.module_utils._ansible import run_adapter
from ansible_collections.slipway.vps.plugins.module_utils.slipway.climb import resize, running

APP = {
    "name": {"type": "str", "required": True},
    "memory_mb": {"type": "int", "required": True},
    "env": {"type": "dict", "default": {}},
}


def main(module: AnsibleModule) -> dict:
    """Look, and plan."""
    params = module.params
    then = resize.Then(
        {name: str(value) for name, value in params["settings"].items()},
        {name: str(value) for name, value in params["pooler"].items()},
        {name: int(value) for name, value in params["pools"].items()},
        {
            app["name"]: resize.AppNow(
                app["memory_mb"], {key: str(app["env"][key]) for key in resize.ENVIRONMENT if key in app["env"]}
            )
            for app in params["apps"]
        },
        params["releases"],
    )
    now = running.look(then, port=params["port"], pooler_port=params["pooler_port"])
    plan = resize.plan(now, then, title=params["title"], back=params["back"], notes=params["notes"])
    if params["longest_transaction"] and resize.restarts(plan):
        running.refuse_long_transactions(params["port"], params["longest_transaction"])
    left = [row.what for row in plan.rows if row.changes]
    return {"changed": False, "plan": plan.to_dict(), "left": left, "shrinks": resize.shrinks(now, then)}


if __name__ == "__main__":
    run_adapter(
        {
            "settings": {"type": "dict", "default": {}},
            "port": {"type": "int", "default": 5432},
            "pooler": {"type": "dict", "default": {}},
            "pools": {"type": "dict", "default": {}},
            "pooler_port": {"type": "int", "default": 6432},
            "apps": {"type": "list", "elements": "dict", "default": [], "options": APP},
            "releases": {"type": "dict", "default": {}},
            "notes": {"type": "list", "elements": "str", "default": []},
            "longest_transaction": {"type": "int", "default": 0},
            "title": {"type": "str", "default": "Resize"},
            "back": {"type": "str", "default": ""},
        },
        main,
    )
