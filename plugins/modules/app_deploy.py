#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Adapter: asks the deploy engine of a host for a deploy or a rollback."""

from __future__ import annotations

DOCUMENTATION = r"""
module: app_deploy
short_description: Starts a deploy or a rollback on the host itself
version_added: "0.1.0"
description:
  - The work is done by a systemd unit on the host, so it goes on when this connection ends. M(slipway.vps.app_follow) follows.
  - A running deploy of the same thing is joined, a watched window is ended early, anything else that runs is an error that
    says who is at work since when.
attributes:
  check_mode:
    support: full
    description: Says that it would start one, without doing so.
  diff_mode:
    support: none
    description: Nothing to compare.
options:
  app: {description: The app., type: str, required: true}
  kind: {description: What to do., type: str, choices: [deploy, rollback], default: deploy}
  operator: {description: Who asks; goes to the journal., type: str, required: true}
  release: {description: The release to go back to. Empty is the previous good one., type: str, default: ""}
  revision: {description: The revision of the source; goes to the release's record., type: str, default: ""}
  force: {description: Deploy also what serves already., type: bool, default: false}
  watch: {description: Watch the new release after the switch., type: bool, default: true}
  run_release_command: {description: Run the release command before the switch., type: bool, default: true}
author: [Slipway maintainers (@slipway)]
"""

EXAMPLES = r"""
- name: Start the deploy
  slipway.vps.app_deploy:
    app: notes
    operator: alice
  register: started
"""

RETURN = r"""
request:
  description: What M(slipway.vps.app_follow) is given. Empty in check mode.
  type: str
  returned: success
joined:
  description: Whose running deploy of the same thing is followed. Empty when a new one was started.
  type: str
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.vps.plugins.module_utils._ansible import run_adapter
from ansible_collections.slipway.vps.plugins.module_utils.slipway.deploy import ctl as appctl
from ansible_collections.slipway.vps.plugins.module_utils.slipway.deploy.releases import Store


def main(module: AnsibleModule) -> dict:
    """Ask for it."""
    params = dict(module.params)
    app = params.pop("app")
    if module.check_mode:
        return {"changed": True, "request": "", "joined": "", "msg": f"Would start a {params['kind']} of {app}."}
    request, joined = appctl.ask(Store(app), params.pop("kind"), params.pop("operator"), **params)
    return {"changed": True, "request": request, "joined": joined}


if __name__ == "__main__":
    run_adapter(
        {
            "app": {"type": "str", "required": True},
            "kind": {"type": "str", "choices": ["deploy", "rollback"], "default": "deploy"},
            "operator": {"type": "str", "required": True},
            "release": {"type": "str", "default": ""},
            "revision": {"type": "str", "default": ""},
            "force": {"type": "bool", "default": False},
            "watch": {"type": "bool", "default": True},
            "run_release_command": {"type": "bool", "default": True},
        },
        main,
    )
