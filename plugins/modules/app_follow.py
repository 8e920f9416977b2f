#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Adapter: waits for a phase of a deploy, or for its end."""

from __future__ import annotations

DOCUMENTATION = r"""
module: app_follow
short_description: Follows a deploy phase by phase
version_added: "0.1.0"
description:
  - Waits until a phase of a deploy has ended, and fails with one message when the deploy did, with the last lines of the
    container's log.
  - The action plugin of the same name asks again and again, so that a cut connection only costs a moment.
attributes:
  check_mode:
    support: full
    description: Returns at once; there is nothing to follow.
  diff_mode:
    support: none
    description: Nothing to compare.
options:
  app: {description: The app., type: str, required: true}
  request: {description: What M(slipway.vps.app_deploy) returned., type: str, required: true}
  phase:
    description: The phase to wait for. Empty waits for the end.
    type: str
    choices: ["", image, release_command, start, health, switch, drain, cleanup, watch]
    default: ""
  seconds: {description: How long one look waits. The action plugin fills it in., type: float, default: 7200}
author: [Slipway maintainers (@slipway)]
"""

EXAMPLES = r"""
- name: Health gate
  slipway.vps.app_follow:
    app: notes
    request: "{{ started.request }}"
    phase: health
"""

RETURN = r"""
release:
  description: The release.
  type: str
  returned: success
result:
  description: How the whole ended, empty while it runs.
  type: str
  returned: success
detail:
  description: How the phase went.
  type: str
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.vps.plugins.module_utils._ansible import run_adapter
from ansible_collections.slipway.vps.plugins.module_utils.slipway.deploy import ctl as appctl
from ansible_collections.slipway.vps.plugins.module_utils.slipway.deploy.releases import Store

PHASES = ["", "image", "release_command", "start", "health", "switch", "drain", "cleanup", "watch"]


def main(module: AnsibleModule) -> dict:
    """Wait for it."""
    params = module.params
    if module.check_mode:
        return {"changed": False, "skipped": True, "waiting": False}
    record = appctl.wait(Store(params["app"]), params["request"], phase=params["phase"], seconds=params["seconds"])
    if record is None:
        return {"changed": False, "waiting": True}
    if record.over and record.result not in ("succeeded", "superseded"):
        raise appctl.failure(record)
    phase = record.find(params["phase"]) if params["phase"] else record.phase
    skipped = phase is None or phase.status == "skipped"
    return {
        "changed": bool(params["phase"]) and not skipped,
        "waiting": False,
        "release": record.release,
        "result": record.result or "",
        "status": phase.status if phase else "skipped",
        "detail": phase.detail if phase else "not needed",
        "duration": round(phase.ended - phase.started, 1) if phase else 0,
    }


if __name__ == "__main__":
    run_adapter(
        {
            "app": {"type": "str", "required": True},
            "request": {"type": "str", "required": True},
            "phase": {"type": "str", "choices": PHASES, "default": ""},
            "seconds": {"type": "float", "default": 7200},
        },
        main,
    )
