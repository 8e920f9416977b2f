#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Adapter: which servers of Redis are on the host, and which data of servers that are gone."""

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_info
short_description: Looks at the servers of Redis that role redis has set up
version_added: "0.2.0"
description:
  - Asks each server for its memory and keys as the user that may do no more, and lists data that was kept.
    Changes nothing.
attributes:
  check_mode: {support: full, description: Only looks.}
  diff_mode: {support: none, description: Nothing changes.}
options:
  wished: {description: "Names of the servers that shall be there, such as V(notes-cache).", type: list, elements: str, default: []}
author: [Slipway maintainers (@slipway)]
"""

EXAMPLES = r"""
- name: Look at the servers
  slipway.vps.redis_info:
"""

RETURN = r"""
servers:
  description: "Each server that is set up: C(name), C(up), C(maxmemory_mb), C(keys), C(reason)."
  type: list
  elements: dict
  returned: success
kept: {description: Names of servers that are gone or not wished for and whose data is there., type: list, elements: str, returned: success}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.vps.plugins.module_utils._ansible import run_adapter
from ansible_collections.slipway.vps.plugins.module_utils.slipway.redis.ctl import summary
from ansible_collections.slipway.vps.plugins.module_utils.slipway.redis.retire import leftovers

SPEC = {"wished": {"type": "list", "elements": "str", "default": []}}


def main(module: AnsibleModule) -> dict:
    """Look."""
    kept = [one.name for one in leftovers(module.params["wished"]) if one.folder]
    return {"changed": False, "servers": summary(), "kept": kept}


if __name__ == "__main__":
    run_adapter(SPEC, main)
