#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Adapter: say over a new connection that a guarded change may stay."""

from __future__ import annotations

DOCUMENTATION = r"""
module: guard_confirm
short_description: Confirm a guarded change over a new connection
version_added: "0.1.0"
description:
  - Disarms the dead-man guard that M(slipway.vps.managed_files) armed with O(slipway.vps.managed_files#module:guard).
  - Run it over a new SSH connection, with C(ansible_control_path) set to V(none) in the task's C(vars); a connection
    that is older than the change proves nothing and is refused.
  - Fails, once, when the host has put the old state back already.
attributes:
  check_mode:
    support: full
    description: Only looks whether a guard is pending.
  diff_mode:
    support: none
    description: Nothing to show.
options:
  name:
    description: Name of the guard.
    type: str
    required: true
author: [Slipway maintainers (@slipway)]
"""

EXAMPLES = r"""
- name: Confirm over a new connection that the door is still open
  slipway.vps.guard_confirm:
    name: sshd
  vars:
    ansible_control_path: none
"""

RETURN = r"""
confirmed:
  description: Whether a guard was pending.
  type: bool
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.vps.plugins.module_utils._ansible import run_adapter
from ansible_collections.slipway.vps.plugins.module_utils.slipway.host import guard


def main(module: AnsibleModule) -> dict:
    """Confirm, or in check mode say whether there is something to confirm. Never a change: the guarded one was it."""
    name = module.params["name"]
    if module.check_mode:
        waiting = any(item["name"] == name and item["state"] == "armed" for item in guard.pending())
        return {"changed": False, "confirmed": waiting}
    return {"changed": False, "confirmed": guard.confirm(name, guard.connection_since())}


if __name__ == "__main__":
    run_adapter({"name": {"type": "str", "required": True}}, main)
