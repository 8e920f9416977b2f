#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Adapter: starts a unit that does one piece of work, and looks how far it is."""

from __future__ import annotations

DOCUMENTATION = r"""
module: unit_work
short_description: Starts a unit that does one piece of work and follows it to its end
version_added: "0.1.0"
description:
  - The work goes on on the host whatever becomes of the connection; its lines are shown as they come.
  - The action plugin of the same name asks again and again; one call of the module is one look.
attributes:
  check_mode:
    support: full
    description: Starts nothing.
  diff_mode:
    support: none
    description: Nothing to compare.
options:
  unit: {description: The unit., type: str, required: true}
  request: {description: Name of the request that the unit reads., type: str, default: ""}
  command:
    description: In place of a request, a command that is run as a unit made for it.
    type: list
    elements: str
    default: []
  arguments: {description: What the request says., type: dict, default: {}}
  good_codes:
    description: Exit codes that are no failure of the task; their meaning is left to the playbook.
    type: list
    elements: int
    default: [0]
  invocation: {description: The run to look at; empty starts one. The action plugin fills it in., type: str, default: ""}
  cursor: {description: Where the last look ended. The action plugin fills it in., type: str, default: ""}
  seconds: {description: How long one look waits. The action plugin fills it in., type: float, default: 15}
author: [Slipway maintainers (@slipway)]
"""

EXAMPLES = r"""
- name: Take a backup
  slipway.vps.unit_work:
    unit: slipway-backup.service
    request: backup
    arguments: {by: ops}
"""

RETURN = r"""
code: {description: Exit code of the work., type: int, returned: success}
lines: {description: What it said., type: list, elements: str, returned: success}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.vps.plugins.module_utils._ansible import run_adapter
from ansible_collections.slipway.vps.plugins.module_utils.slipway.host import following


def main(module: AnsibleModule) -> dict:
    """Start, or look."""
    params = module.params
    if module.check_mode:
        return {"changed": False, "running": False, "lines": [], "code": 0, "result": "success"}
    invocation = params["invocation"]
    if not invocation and params["command"]:
        invocation = following.start_command(params["unit"], params["command"])
    elif not invocation:
        invocation = following.start(params["unit"], params["request"], params["arguments"])
    seen = following.look(params["unit"], invocation, params["cursor"], params["seconds"])
    return {"changed": True, "invocation_id": invocation, **seen.__dict__}


if __name__ == "__main__":
    run_adapter(
        {
            "unit": {"type": "str", "required": True},
            "request": {"type": "str", "default": ""},
            "command": {"type": "list", "elements": "str", "default": []},
            "arguments": {"type": "dict", "default": {}},
            "good_codes": {"type": "list", "elements": "int", "default": [0]},
            "invocation": {"type": "str", "default": ""},
            "cursor": {"type": "str", "default": ""},
            "seconds": {"type": "float", "default": 15},
        },
        main,
    )
