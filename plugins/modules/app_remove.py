#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Adapter: removes an app from its host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: app_remove
short_description: Removes an app's containers, releases, images and settings from a host
version_added: "0.1.0"
description: The database stays. The journal keeps a line.
attributes:
  check_mode:
    support: full
    description: Says that it would, without doing so.
  diff_mode:
    support: none
    description: Nothing to compare.
options:
  app: {description: The app., type: str, required: true}
  operator: {description: Who asks; goes to the journal., type: str, required: true}
author: [Slipway maintainers (@slipway)]
"""

EXAMPLES = r"""
- name: Remove the app
  slipway.vps.app_remove:
    app: notes
    operator: alice
"""

RETURN = r""" # """

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.vps.plugins.module_utils._ansible import run_adapter
from ansible_collections.slipway.vps.plugins.module_utils.slipway.deploy import ctl as appctl
from ansible_collections.slipway.vps.plugins.module_utils.slipway.deploy.releases import Store


def main(module: AnsibleModule) -> dict:
    """Remove it."""
    store = Store(module.params["app"])
    there = store.home.exists() or store.wish.exists()
    if there and not module.check_mode:
        appctl.remove(store, module.params["operator"])
    return {"changed": there}


if __name__ == "__main__":
    run_adapter({"app": {"type": "str", "required": True}, "operator": {"type": "str", "required": True}}, main)
