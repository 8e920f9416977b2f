#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Adapter: packages in the background, in several transactions."""

from __future__ import annotations

DOCUMENTATION = r"""
module: packages
short_description: Install packages in the background, and wait for those that are needed now
version_added: "0.1.0"
description:
  - With O(transactions) one unit of systemd on the host is started that installs them in turn. It outlives the connection.
  - With O(job) and O(wait) the module returns when the packages of that transaction are installed.
  - What C(apt) cannot do. There a task holds all packages that are installed while other tasks go on, and nobody knows which are there.
attributes:
  check_mode:
    support: full
    description: Starts nothing, waits for nothing.
  diff_mode:
    support: none
    description: The packages are the task's own parameters.
options:
  transactions:
    description: The transactions, in their order.
    type: list
    elements: dict
    suboptions:
      name: {description: What to wait for it by., type: str, required: true}
      packages: {description: Names of packages., type: list, elements: str, required: true}
  bare:
    description: Nobody uses the host yet. Daemons are not started by their packages, and dpkg does not wait for the disk after each file.
    type: bool
    default: false
  job: {description: The unit that was started., type: str}
  wait: {description: Name of the transaction to wait for., type: str}
  seconds: {description: How long to wait., type: float, default: 3600}
author: [Slipway maintainers (@slipway)]
"""

EXAMPLES = r"""
- name: Start to install
  slipway.vps.packages:
    transactions:
      - {name: engine, packages: [docker.io]}
      - {name: database, packages: [postgresql-17]}
  register: installing

- name: Wait for the engine
  slipway.vps.packages:
    job: "{{ installing.job }}"
    wait: engine
"""

RETURN = r"""
job:
  description: The unit that was started.
  type: str
  returned: when O(transactions) is given, not in check mode
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.vps.plugins.module_utils._ansible import run_adapter
from ansible_collections.slipway.vps.plugins.module_utils.slipway.host import packages

BATCH_SPEC = {
    "name": {"type": "str", "required": True},
    "packages": {"type": "list", "elements": "str", "required": True},
}


def main(module: AnsibleModule) -> dict:
    """Start, or wait."""
    params = module.params
    if params["transactions"] is None:
        if not module.check_mode:
            packages.wait(params["job"], params["wait"], params["seconds"])
        return {"changed": False}
    batches = [packages.Batch.parse(raw) for raw in params["transactions"]]
    if module.check_mode or not batches:
        return {"changed": bool(batches)}
    return {"changed": True, "job": packages.start(batches, bare=params["bare"])}


if __name__ == "__main__":
    run_adapter(
        {
            "transactions": {"type": "list", "elements": "dict", "options": BATCH_SPEC},
            "bare": {"type": "bool", "default": False},
            "job": {"type": "str"},
            "wait": {"type": "str"},
            "seconds": {"type": "float", "default": 3600},
        },
        main,
        required_one_of=[("transactions", "job")],
        mutually_exclusive=[("transactions", "job")],
        required_together=[("job", "wait")],
    )
