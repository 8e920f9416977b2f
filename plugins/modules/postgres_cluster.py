#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Adapter: a PostgreSQL cluster that runs with exactly the settings it was given."""

from __future__ import annotations

DOCUMENTATION = r"""
module: postgres_cluster
short_description: Run a Debian PostgreSQL cluster with checksums and the settings given
version_added: "0.1.0"
description:
  - Starts the cluster, has it read changed files again, restarts it only when a setting that needs it really differs,
    and then compares every setting with C(pg_settings) and every listening address with what is allowed.
  - When the server does not start with new settings, the last that worked are put back.
  - Data checksums are enabled in a cluster without data; one with data is refused with the way to do it.
attributes:
  check_mode: {support: full, description: Compares with the running server and says what would be done.}
  diff_mode: {support: full, description: Lists the settings that differ.}
options:
  version: {description: PostgreSQL major., type: int, required: true}
  cluster: {description: Debian's name of the cluster., type: str, default: main}
  port: {description: TCP port and suffix of the socket., type: int, default: 5432}
  settings: {description: "Settings as written in the file, name to value.", type: dict, required: true}
  conf: {description: The file that holds O(settings)., type: path, required: true}
  checksums: {description: Demand data checksums., type: bool, default: true}
  listen: {description: Addresses it may listen on., type: list, elements: str, default: [localhost]}
  daemon_reload: {description: Have systemd read its unit files again first., type: bool, default: false}
  restart: {description: Restart it whether or not a setting asks for it., type: bool, default: false}
  pooler_port: {description: "PgBouncer's port on this host, 0 for none. It holds back new transactions during a restart.", type: int, default: 0}
  pause_seconds:
    description: Seconds that transactions get to end before a restart; those still at work then end the run, and nothing restarts.
      With 0 they get a while and are cut off.
    type: int
    default: 0
  restart_allowed: {description: With V(false) settings that need a restart stay pending., type: bool, default: true}
author: [Slipway maintainers (@slipway)]
"""

EXAMPLES = r"""
- name: Run PostgreSQL
  slipway.vps.postgres_cluster:
    version: 17
    conf: /etc/postgresql/17/main/conf.d/10-slipway.conf
    settings: {shared_buffers: 512MB, jit: "off"}
"""

RETURN = r"""
steps: {description: "What was done, or would be.", type: list, elements: str, returned: success}
held_seconds: {description: For how long the pooler held transactions back., type: float, returned: success}
listening: {description: Addresses the server listens on., type: list, elements: str, returned: success}
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.vps.plugins.module_utils._ansible import run_adapter
from ansible_collections.slipway.vps.plugins.module_utils.slipway.commands import run
from ansible_collections.slipway.vps.plugins.module_utils.slipway.postgres.cluster import Wish, converge

SPEC = {
    "version": {"type": "int", "required": True},
    "cluster": {"type": "str", "default": "main"},
    "port": {"type": "int", "default": 5432},
    "settings": {"type": "dict", "required": True},
    "conf": {"type": "path", "required": True},
    "checksums": {"type": "bool", "default": True},
    "listen": {"type": "list", "elements": "str", "default": ["localhost"]},
    "daemon_reload": {"type": "bool", "default": False},
    "restart": {"type": "bool", "default": False},
    "pooler_port": {"type": "int", "default": 0},
    "pause_seconds": {"type": "int", "default": 0},
    "restart_allowed": {"type": "bool", "default": True},
}


def main(module: AnsibleModule) -> dict:
    """Converge the cluster, or say what would be done."""
    params = module.params
    wish = Wish(
        major=params["version"],
        name=params["cluster"],
        port=params["port"],
        settings={name: str(value) for name, value in params["settings"].items()},
        conf=Path(params["conf"]),
        checksums=params["checksums"],
        listen=tuple(params["listen"]),
        restart=params["restart"],
        restart_allowed=params["restart_allowed"],
        pooler_port=params["pooler_port"],
        pause_seconds=params["pause_seconds"],
    )
    if params["daemon_reload"] and not module.check_mode:
        run(["systemctl", "daemon-reload"])
    outcome = converge(wish, dry_run=module.check_mode)
    for warning in outcome.warnings:
        module.warn(warning)
    return {
        "changed": bool(outcome.steps),
        "steps": outcome.steps,
        "held_seconds": outcome.held_seconds,
        "listening": outcome.listening,
        "diff": {
            "before": "".join(f"{name} = {value}\n" for name, value in sorted(outcome.before.items())),
            "after": "".join(f"{name} = {value}\n" for name, value in sorted(outcome.after.items())),
        },
    }


if __name__ == "__main__":
    run_adapter(SPEC, main)
