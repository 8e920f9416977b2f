#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Adapter: what is to be done for the apps of a host, all in one round trip."""

from __future__ import annotations

DOCUMENTATION = r"""
module: app_info
short_description: Says which apps of a host need a deploy, and how each one is
version_added: "0.1.0"
description:
  - Reads state, containers and images; changes nothing. Works on a host without Docker, where every app needs a deploy.
attributes:
  check_mode:
    support: full
    description: It only looks.
  diff_mode:
    support: none
    description: It only looks.
options:
  apps:
    description: The apps wished for.
    type: list
    elements: dict
    default: []
    suboptions:
      name: {description: Its name., type: str, required: true}
      wish: {description: What identifies its settings and image., type: str, default: ""}
      reference: {description: Its image's name on the host., type: str, default: ""}
      source: {description: Where the image comes from., type: str, default: registry}
      stable_port: {description: The port that the proxy dials., type: int, default: 0}
  status:
    description: Whether to add each app's status (what C(slipway app status --json) says).
    type: bool
    default: false
author: [Slipway maintainers (@slipway)]
"""

EXAMPLES = r"""
- name: Look at the apps
  slipway.vps.app_info:
    apps: [{name: notes, wish: 0123456789abcdef, reference: "registry.example.com/notes:1.4.2", stable_port: 18000}]
  register: found
"""

RETURN = r"""
apps:
  description: For each app, in order, C(app), C(release), C(deploy), C(why), C(held), C(problem), C(image_present).
  type: list
  elements: dict
  returned: success
present:
  description: Names of all apps that this host knows.
  type: list
  elements: str
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.vps.plugins.module_utils._ansible import run_adapter
from ansible_collections.slipway.vps.plugins.module_utils.slipway.deploy import ctl as appctl
from ansible_collections.slipway.vps.plugins.module_utils.slipway.deploy.wish import decide
from ansible_collections.slipway.vps.plugins.module_utils.slipway.deploy.docker import Docker
from ansible_collections.slipway.vps.plugins.module_utils.slipway.deploy.releases import STATES, Store

APP = {
    "name": {"type": "str", "required": True},
    "wish": {"type": "str", "default": ""},
    "reference": {"type": "str", "default": ""},
    "source": {"type": "str", "default": "registry"},
    "stable_port": {"type": "int", "default": 0},
}

SPEC = {
    "apps": {"type": "list", "elements": "dict", "default": [], "options": APP},
    "status": {"type": "bool", "default": False},
}


def main(module: AnsibleModule) -> dict:
    """Look at each app."""
    docker, found = Docker(), []
    for app in module.params["apps"]:
        store = Store(app.pop("name"))
        one = decide(store, docker, **app)
        if module.params["status"]:
            one["status"] = appctl.status(store, docker)
        found.append(one)
    present = sorted(path.name for path in STATES.iterdir() if path.is_dir()) if STATES.is_dir() else []
    return {"changed": False, "apps": found, "present": present}


if __name__ == "__main__":
    run_adapter(SPEC, main)
