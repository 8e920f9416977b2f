#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Adapter: many systemd units in one round trip."""

from __future__ import annotations

DOCUMENTATION = r"""
module: units
short_description: Enable, start, restart and mask many systemd units at once
version_added: "0.1.0"
description:
  - Brings all units to what is wished with one look and as few systemctl calls as possible.
  - In check mode a unit that is not there yet counts as a change, not as an error, since its package may come with the same run.
attributes:
  check_mode:
    support: full
    description: Can run without changing anything and says what would change.
  diff_mode:
    support: full
    description: Lists the steps it would take.
options:
  units:
    description: The units wished for.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: "Full name, such as V(ssh.service).", type: str, required: true}
      enabled: {description: Started at boot., type: bool}
      state: {description: Running now., type: str, choices: [started, stopped]}
      masked: {description: Cannot be started by anybody., type: bool}
      restart: {description: Restart it if it is already running., type: bool, default: false}
      reload: {description: Reload it if it is already running., type: bool, default: false}
      missing_ok: {description: A unit that does not exist is as wished., type: bool, default: false}
  daemon_reload:
    description: Have systemd read its unit files again first.
    type: bool
    default: false
author: [Slipway maintainers (@slipway)]
"""

EXAMPLES = r"""
- name: Run the example service
  slipway.vps.units:
    daemon_reload: "{{ __example_files is changed }}"
    units:
      - {name: example.service, enabled: true, state: started, restart: "{{ __example_files is changed }}"}
      - {name: rpcbind.socket, enabled: false, state: stopped, masked: true, missing_ok: true}
"""

RETURN = r"""
steps:
  description: The systemctl steps taken, or that would be.
  type: list
  elements: str
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.vps.plugins.module_utils._ansible import UNIT_SPEC, run_adapter
from ansible_collections.slipway.vps.plugins.module_utils.slipway.host import systemd

SPEC = {
    "units": {"type": "list", "elements": "dict", "required": True, "options": UNIT_SPEC},
    "daemon_reload": {"type": "bool", "default": False},
}


def main(module: AnsibleModule) -> dict:
    """Look at all units once, plan, and carry the steps out."""
    specs = [systemd.UnitSpec.parse(raw) for raw in module.params["units"]]
    daemon_reload = module.params["daemon_reload"]
    if daemon_reload and not module.check_mode:
        systemd.run(["systemctl", "daemon-reload"])
    found = systemd.show(spec.name for spec in specs)
    steps = [step for spec in specs for step in systemd.plan(spec, found[spec.name])]
    if steps and not module.check_mode:
        systemd.apply(steps, daemon_reload=False)
    listed = [str(step) for step in steps]
    return {
        "changed": bool(steps),
        "steps": listed,
        "diff": {"before": "", "after": "".join(f"systemctl {step}\n" for step in listed)},
    }


if __name__ == "__main__":
    run_adapter(SPEC, main)
