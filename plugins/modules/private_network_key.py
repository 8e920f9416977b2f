#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Adapter: a host's own key of WireGuard, made there; only its public half ever leaves."""

from __future__ import annotations

DOCUMENTATION = r"""
module: private_network_key
short_description: Make a host's key of WireGuard where it is missing, and return its public half
version_added: "0.2.0"
description:
  - Makes the secret half on the host, readable by root alone. It is in no argument, result, log or diff.
  - Tells as well which peers' public keys the host knows, so that a run on some hosts alone keeps the others.
attributes:
  check_mode: {support: full, description: "Makes nothing; a key that is missing is returned as a text that says so."}
  diff_mode: {support: full, description: Says that a key is made.}
options:
  folder:
    description: Where the key and the peers lie.
    type: path
    default: /etc/slipway/private_network
author: [Slipway maintainers (@slipway)]
"""

EXAMPLES = r"""
- name: Make this host's key
  slipway.vps.private_network_key:
  register: made
"""

RETURN = r"""
public_key: {description: The public half., type: str, returned: success}
known: {description: Public keys of the peers that the host knows by name., type: dict, returned: success}
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.vps.plugins.module_utils._ansible import run_adapter
from ansible_collections.slipway.vps.plugins.module_utils.slipway.network.keys import (
    FUTURE,
    KEY,
    PEERS,
    make,
    public_half,
)
from ansible_collections.slipway.vps.plugins.module_utils.slipway.network.plan import known_keys

SPEC = {"folder": {"type": "path", "default": "/etc/slipway/private_network"}}


def main(module: AnsibleModule) -> dict:
    """Make the key where there is none."""
    folder = Path(module.params["folder"])
    key, peers = folder / KEY, folder / PEERS
    missing = not key.exists()
    if missing and not module.check_mode:
        make(key)
    shown = [{"before_header": str(key), "after_header": str(key), "before": "", "after": "(secret)\n"}]
    return {
        "changed": missing,
        "public_key": FUTURE if missing and module.check_mode else public_half(key),
        "known": known_keys(peers.read_text()) if peers.exists() else {},
        "diff": shown if missing else [],
    }


if __name__ == "__main__":
    run_adapter(SPEC, main)
