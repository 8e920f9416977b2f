#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Adapter: waits for a phase of a deploy, or for its end."""

from __future__ import annotations

DOCUMENTATION = r"""
module: app_follow
short_description: Follows a deploy phase by phase
version_added: "0.1.0"
description:
  - Waits until a deploy or one of its phases has ended, and fails with one message when the deploy did, with the last lines of
    the container's log.
  - The action plugin of the same name asks again and again and says which phases are over, so that a person sees how far it is
    and a cut connection only costs a moment.
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
    choices: ["", image, release_command, start, health, jobs, switch, drain, cleanup, watch]
    default: ""
  seconds: {description: How long one look waits. The action plugin fills it in., type: float, default: 7200}
  told: {description: How many ended phases are known already. The action plugin fills it in., type: int, default: 0}
author: [Slipway maintainers (@slipway)]
"""

EXAMPLES = r"""
- name: Follow the deploy to its end
  slipway.vps.app_follow:
    app: notes
    request: "{{ started.request }}"

- name: Follow it until the new release serves
  slipway.vps.app_follow:
    app: notes
    request: "{{ started.request }}"
    phase: switch
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
phases:
  description: The phases that have ended, each with C(name), C(status), C(detail) and C(duration) in seconds.
  type: list
  elements: dict
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.vps.plugins.module_utils._ansible import run_adapter
from ansible_collections.slipway.vps.plugins.module_utils.slipway.deploy import ctl as appctl
from ansible_collections.slipway.vps.plugins.module_utils.slipway.deploy.releases import Store

PHASES = ["", "image", "release_command", "start", "health", "jobs", "switch", "drain", "cleanup", "watch"]


# A look that has something to tell waits this long for more: most phases of a deploy are over in a second.
GATHER_SECONDS = 2.0


def main(module: AnsibleModule) -> dict:
    """Wait for it."""
    params = module.params
    if module.check_mode:
        return {"changed": False, "skipped": True, "waiting": False, "phases": []}
    store, request, wanted = Store(params["app"]), params["request"], params["phase"]
    record = appctl.wait(store, request, phase=wanted, phases=params["told"] + 1, seconds=params["seconds"])
    if record is None:
        return {"changed": False, "waiting": True, "phases": []}
    record = appctl.wait(store, request, phase=wanted, seconds=GATHER_SECONDS) or record
    if record.over and record.result not in ("succeeded", "superseded"):
        raise appctl.failure(record)
    ended = [phase for phase in record.phases if phase.status != "running"]
    return {
        "changed": any(phase.status != "skipped" for phase in ended),
        "waiting": not record.over and (not wanted or all(phase.name != wanted for phase in ended)),
        "release": record.release,
        "result": record.result or "",
        "phases": [
            {
                "name": phase.name,
                "status": phase.status,
                "detail": phase.detail,
                "duration": round(phase.ended - phase.started, 1),
            }
            for phase in ended
        ],
    }


if __name__ == "__main__":
    run_adapter(
        {
            "app": {"type": "str", "required": True},
            "request": {"type": "str", "required": True},
            "phase": {"type": "str", "choices": PHASES, "default": ""},
            "seconds": {"type": "float", "default": 7200},
            "told": {"type": "int", "default": 0},
        },
        main,
    )
