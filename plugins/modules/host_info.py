#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Adapter: what a host is, in one cheap round trip."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_info
short_description: Facts Slipway needs of a host
version_added: "0.1.0"
description:
  - Measures RAM, cores, disk, system, virtualisation, installed packages and who listens on the public ports.
  - Takes a tenth of the time of full fact gathering. The facts are returned as C(ansible_facts.slipway_host).
  - C(ansible_facts.slipway_agent) is the version of the library that the agent has put there, by which other modules of this collection run.
attributes:
  check_mode:
    support: full
    description: Only looks.
  diff_mode:
    support: none
    description: Nothing changes.
options:
  packages:
    description: Debian packages whose installed versions are wanted; all of them when none is named.
    type: list
    elements: str
    default: []
  ports:
    description: TCP ports whose listeners are wanted.
    type: list
    elements: int
    default: [22, 80, 443]
author: [Slipway maintainers (@slipway)]
"""

EXAMPLES = r"""
- name: Look at the host
  slipway.vps.host_info:
    packages: [postgresql-17, caddy]
"""

RETURN = r"""
ansible_facts:
  description: The facts, under C(slipway_host).
  type: dict
  returned: success
  contains:
    slipway_agent: {description: "Version of the agent's library; empty where there is none.", type: str, returned: success}
    slipway_host:
      description: "Keys: os, kernel, arch, ram_mb, ram_plan_mb, cores, disk_total_mb, disk_free_mb, virt, container, packages, ports, interfaces, default_interface, wireguard, users, groups, admins, postgres_major, data."
      type: dict
      returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.vps.plugins.module_utils._ansible import run_adapter
from ansible_collections.slipway.vps.plugins.module_utils.slipway import agentfiles
from ansible_collections.slipway.vps.plugins.module_utils.slipway.host.facts import gather

SPEC = {
    "packages": {"type": "list", "elements": "str", "default": []},
    "ports": {"type": "list", "elements": "int", "default": [22, 80, 443]},
}


def main(module: AnsibleModule) -> dict:
    """Gather and return."""
    facts = gather(module.params["packages"], module.params["ports"])
    return {"changed": False, "ansible_facts": {"slipway_host": facts, "slipway_agent": agentfiles.current()}}


if __name__ == "__main__":
    run_adapter(SPEC, main)
