#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Adapter: roles, databases and the pooler's lookup function of a PostgreSQL server, in one round trip."""

from __future__ import annotations

DOCUMENTATION = r"""
module: postgres_objects
short_description: Databases of apps with least privilege
version_added: "0.1.0"
description:
  - Each database has an owner that owns nothing else and is the only role that may connect to it. Nothing is ever dropped.
  - A password is compared with the stored SCRAM verifier, and changed by sending a verifier, so that it is in no log of the server.
  - Runs as root on the database host and becomes the user postgres for the connection.
attributes:
  check_mode: {support: full, description: Compares with the running server and says what would be done.}
  diff_mode: {support: full, description: "Lists the statements by name, never their text."}
options:
  databases:
    description: The databases wished for.
    type: list
    elements: dict
    default: []
    suboptions:
      name: {description: Name., type: str, required: true}
      owner: {description: "Role that owns it, by default of the same name.", type: str}
      password: {description: The owner's password., type: str, required: true}
      extensions: {description: Extensions in it., type: list, elements: str, default: []}
      connection_limit: {description: "Largest number of connections, -1 for no limit.", type: int, default: -1}
      settings: {description: "PostgreSQL settings of the owner in this database, name to value.", type: dict, default: {}}
  extensions: {description: Extensions in the database postgres., type: list, elements: str, default: []}
  pooler: {description: "PgBouncer's login role, empty for none.", type: str, default: ""}
  superusers:
    description: Roles that may do everything and have no password; each is one user of the host's own system.
    type: list
    elements: dict
    default: []
    suboptions:
      role: {description: Role in the server., type: str, required: true}
      system_user: {description: "User of the host that may be it, by the identity map of the server.", type: str, required: true}
  port: {description: Suffix of the server's Unix socket., type: int, default: 5432}
author: [Slipway maintainers (@slipway)]
"""

EXAMPLES = r"""
- name: Give each app its database
  slipway.vps.postgres_objects:
    pooler: pgbouncer
    extensions: [pg_stat_statements]
    databases:
      - {name: notes, password: "{{ vault_apps.notes.database_password }}", extensions: [citext]}
"""

RETURN = r"""
steps: {description: "What was done, or would be, without any secret.", type: list, elements: str, returned: success}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.vps.plugins.module_utils._ansible import run_adapter
from ansible_collections.slipway.vps.plugins.module_utils.slipway.postgres import (
    objects as pgobjects,
    server as pgserver,
)

DATABASE_SPEC = {
    "name": {"type": "str", "required": True},
    "owner": {"type": "str"},
    "password": {"type": "str", "required": True, "no_log": True},
    "extensions": {"type": "list", "elements": "str", "default": []},
    "connection_limit": {"type": "int", "default": -1},
    "settings": {"type": "dict", "default": {}},
}

PEER_SPEC = {"role": {"type": "str", "required": True}, "system_user": {"type": "str", "required": True}}

SPEC = {
    "databases": {"type": "list", "elements": "dict", "default": [], "options": DATABASE_SPEC},
    "extensions": {"type": "list", "elements": "str", "default": []},
    "pooler": {"type": "str", "default": ""},
    "superusers": {"type": "list", "elements": "dict", "default": [], "options": PEER_SPEC},
    "port": {"type": "int", "default": 5432},
}


def main(module: AnsibleModule) -> dict:
    """Look, plan, apply, and look again: after applying, nothing may be left to do."""
    params = module.params
    specs = pgobjects.parse(params["databases"])
    port, names = params["port"], [spec.name for spec in specs]
    peers = [pgobjects.PeerSpec.parse(raw) for raw in params["superusers"]]
    wish = {"pooler": params["pooler"], "extensions": params["extensions"], "peers": peers}
    try:
        steps = pgobjects.plan(specs, pgserver.look(port, names), **wish)
    except pgserver.ServerError:
        if not module.check_mode:
            raise
        # Before the first converge there is no server: everything is still to be done.
        steps = pgobjects.plan(specs, pgobjects.Found(), **wish)
    if steps and not module.check_mode:
        pgserver.apply(steps, port)
        left = pgobjects.plan(specs, pgserver.look(port, names), **wish)
        if left:
            raise pgserver.ServerError(
                f"PostgreSQL took every statement, and yet remains to be done: {', '.join(step.label for step in left)}",
                "objects as they were wished",
                "look for event triggers or other tools that change roles and databases",
            )
    labels = [step.label for step in steps]
    return {
        "changed": bool(steps),
        "steps": labels,
        "diff": {"before": "", "after": "".join(f"{label}\n" for label in labels)},
    }


if __name__ == "__main__":
    run_adapter(SPEC, main)
