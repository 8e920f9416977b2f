#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Adapter: which hosts of the private network answer."""

from __future__ import annotations

DOCUMENTATION = r"""
module: private_network_probe
short_description: Which hosts of the private network answer this one
version_added: "0.2.0"
description: Asks every peer by its private address, all at once and again until it answers or the time is over.
attributes:
  check_mode: {support: full, description: Only looks.}
  diff_mode: {support: none, description: Nothing changes.}
options:
  peers: {description: Private address of each peer by its name., type: dict, required: true}
  seconds: {description: How long to go on asking., type: int, default: 15}
author: [Slipway maintainers (@slipway)]
"""

EXAMPLES = r"""
- name: See who answers
  slipway.vps.private_network_probe:
    peers: {db1: 10.214.7.9}
"""

RETURN = r"""
silent: {description: Names of the peers that did not answer., type: list, elements: str, returned: success}
"""

import time
from concurrent.futures import ThreadPoolExecutor

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.vps.plugins.module_utils._ansible import run_adapter
from ansible_collections.slipway.vps.plugins.module_utils.slipway.commands import run


def answers(address: str, deadline: float) -> bool:
    """Whether ``address`` answers a ping before ``deadline`` (monotonic seconds)."""
    while True:
        started = time.monotonic()
        if run(["ping", "-n", "-q", "-c", "1", "-W", "1", address], check=False).ok:
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(max(0.0, 0.5 - (time.monotonic() - started)))


SPEC = {"peers": {"type": "dict", "required": True}, "seconds": {"type": "int", "default": 15}}


def main(module: AnsibleModule) -> dict:
    """Ask all of them."""
    peers = module.params["peers"]
    deadline = time.monotonic() + module.params["seconds"]
    with ThreadPoolExecutor(max_workers=16) as pool:
        heard = dict(zip(peers, pool.map(lambda name: answers(peers[name], deadline), peers), strict=True))
    return {"changed": False, "silent": sorted(name for name, there in heard.items() if not there)}


if __name__ == "__main__":
    run_adapter(SPEC, main)
