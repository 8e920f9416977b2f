#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Adapter: proof that apps can use their Redis, can do no harm there, and are kept out of each other's."""

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_probe
short_description: Prove that servers of Redis serve their apps, and them alone
version_added: "0.2.0"
description:
  - Logs in as each app, writes and reads a key, compares memory, eviction policy and persistence with those wished, tries the
    dangerous commands, and tries to get in without a password and as another app. Leaves nothing behind.
  - Passwords travel in the module's arguments by SSH, and to the client by its environment, never on a command line.
attributes:
  check_mode: {support: full, description: Only looks.}
  diff_mode: {support: none, description: Nothing changes.}
options:
  servers:
    description: The servers.
    type: list
    elements: dict
    required: true
    suboptions:
      app: {description: The app they serve., type: str, required: true}
      purpose: {description: What for., type: str, choices: [cache, queue], required: true}
      port: {description: Its port., type: int, required: true}
      password: {description: The app's password., type: str, required: true}
      maxmemory_mb: {description: What it may keep., type: int, required: true}
      limit_mb: {description: What its unit may take., type: int, required: true}
  listen:
    description: Addresses they listen on. The first is asked from the host, the last from within containers.
    type: list
    elements: str
    required: true
  containers:
    description: Ask from within the network of each app's serving container, as the app does.
    type: bool
    default: false
author: [Slipway maintainers (@slipway)]
"""

EXAMPLES = r"""
- name: Prove that the servers serve their apps
  slipway.vps.redis_probe:
    servers: "{{ redis_servers }}"
    listen: [127.0.0.1, 10.213.87.1]
"""

RETURN = r"""
proved: {description: "What was seen, a sentence for each server.", type: list, elements: str, returned: success}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.vps.plugins.module_utils._ansible import run_adapter
from ansible_collections.slipway.vps.plugins.module_utils.slipway.redis.containers import processes
from ansible_collections.slipway.vps.plugins.module_utils.slipway.redis.probe import prove
from ansible_collections.slipway.vps.plugins.module_utils.slipway.redis.server import Server

SPEC = {
    "servers": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "app": {"type": "str", "required": True},
            "purpose": {"type": "str", "choices": ["cache", "queue"], "required": True},
            "port": {"type": "int", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
            "maxmemory_mb": {"type": "int", "required": True},
            "limit_mb": {"type": "int", "required": True},
        },
    },
    "listen": {"type": "list", "elements": "str", "required": True},
    "containers": {"type": "bool", "default": False},
}


def main(module: AnsibleModule) -> dict:
    """Prove it, or say what was found instead."""
    params = module.params
    servers = [Server.parse(raw) for raw in params["servers"]]
    inside = processes({server.app for server in servers}) if params["containers"] else {}
    return {"changed": False, "proved": prove(servers, params["listen"], inside=inside)}


if __name__ == "__main__":
    run_adapter(SPEC, main)
