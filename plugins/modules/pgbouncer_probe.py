#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Adapter: proof that apps can log in through PgBouncer and that it runs with what its files say."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pgbouncer_probe
short_description: Prove that PgBouncer serves the apps
version_added: "0.1.0"
description:
  - Logs in as each app to its transaction and its session entry and runs a prepared statement, compares the running settings with
    those wished, and checks where the pooler listens. Changes nothing.
  - Passwords travel in the module's arguments by SSH, never on a command line.
attributes:
  check_mode: {support: full, description: Only looks.}
  diff_mode: {support: none, description: Nothing changes.}
options:
  databases:
    description: Databases to log in to. Those without a password are passed over.
    type: list
    elements: dict
    default: []
    suboptions:
      name: {description: Name., type: str, required: true}
      owner: {description: "Role to log in as, by default of the same name.", type: str}
      password: {description: Its password., type: str}
  port: {description: The pooler's port., type: int, default: 6432}
  listen: {description: Addresses it may listen on. The first is used to log in., type: list, elements: str, required: true}
  settings: {description: Settings it must run with., type: dict, default: {}}
author: [Slipway maintainers (@slipway)]
"""

EXAMPLES = r"""
- name: Prove that the app can log in
  slipway.vps.pgbouncer_probe:
    listen: [127.0.0.1]
    databases:
      - {name: notes, password: "{{ vault_apps.notes.database_password }}"}
"""

RETURN = r"""
listening: {description: Addresses the pooler listens on., type: list, elements: str, returned: success}
logins: {description: Databases that could be used., type: list, elements: str, returned: success}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.vps.plugins.module_utils._ansible import run_adapter
from ansible_collections.slipway.vps.plugins.module_utils.slipway.postgres.pooler import Client, prove

SPEC = {
    "databases": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "owner": {"type": "str"},
            "password": {"type": "str", "no_log": True},
        },
    },
    "port": {"type": "int", "default": 6432},
    "listen": {"type": "list", "elements": "str", "required": True},
    "settings": {"type": "dict", "default": {}},
}


def main(module: AnsibleModule) -> dict:
    """Prove it, or say what was found instead."""
    params = module.params
    clients = [
        Client(raw["name"], raw["owner"] or raw["name"], raw["password"])
        for raw in params["databases"]
        if raw["password"]
    ]
    settings = {name: str(value) for name, value in params["settings"].items()}
    listening = prove(clients, port=params["port"], listen=params["listen"], settings=settings)
    return {"changed": False, "listening": listening, "logins": [client.database for client in clients]}


if __name__ == "__main__":
    run_adapter(SPEC, main)
