#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Adapter: servers of Redis that nobody wishes for are stopped; their data stays until it is released."""

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_retire
short_description: Stop servers of Redis that are no longer wished for
version_added: "0.2.0"
description:
  - Finds the servers that role redis has set up, stops and disables those not among O(wished), and removes their settings.
    Their folders below C(/var/lib/redis) stay.
  - With O(release) those folders go too, for good.
attributes:
  check_mode: {support: full, description: Can run without changing anything and says what would change.}
  diff_mode: {support: none, description: The sentences of RV(done) say it.}
options:
  wished: {description: "Names of the servers that stay, such as V(notes-cache).", type: list, elements: str, required: true}
  release: {description: Delete the data of those that go., type: bool, default: false}
author: [Slipway maintainers (@slipway)]
"""

EXAMPLES = r"""
- name: Stop what no app wants any more
  slipway.vps.redis_retire:
    wished: [notes-cache]
"""

RETURN = r"""
done: {description: "What was done, or would be.", type: list, elements: str, returned: success}
kept: {description: Names of servers whose data is kept though nobody wishes for them., type: list, elements: str, returned: success}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.vps.plugins.module_utils._ansible import run_adapter
from ansible_collections.slipway.vps.plugins.module_utils.slipway.redis.retire import leftovers, retire

SPEC = {
    "wished": {"type": "list", "elements": "str", "required": True},
    "release": {"type": "bool", "default": False},
}


def main(module: AnsibleModule) -> dict:
    """Look, and retire what is left over."""
    params = module.params
    found = leftovers(params["wished"])
    done = retire(found, keep=len(params["wished"]), release=params["release"], dry_run=module.check_mode)
    kept = [] if params["release"] else [one.name for one in found if one.folder]
    return {"changed": bool(done), "done": done, "kept": kept}


if __name__ == "__main__":
    run_adapter(SPEC, main)
