#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Adapter: the record of a climb on its host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: climb_record
short_description: Keeps the record of a climb on its host
version_added: "0.1.0"
description:
  - Looks whether a climb of this kind is at work on the host, begins a phase of it, or ends it.
  - The file is replaced whole and is on disk when the module returns, so that a run after a crash knows where to go on.
  - The end adds a line to the host's journal.
attributes:
  check_mode: {support: full, description: Looks and writes nothing.}
  diff_mode: {support: none, description: Nothing to compare.}
options:
  climb: {description: "Which climb: resize, add_redis ...", type: str, required: true}
  phase: {description: "The phase that begins: prove, prepare, cut_over, verify. Empty looks alone.", type: str, default: ""}
  end: {description: "How it ended, which ends it: done, or returned. Empty ends nothing.", type: str, default: ""}
  plan: {description: "The plan as it was shown, where this run may open a new record.", type: dict}
  facts: {description: What was measured., type: dict, default: {}}
  host: {description: The host's name in the inventory., type: str, default: ""}
  who: {description: Who runs it., type: str, default: unknown}
  run: {description: "This run of the playbook, as no other is called; the controller's side of the module sets it.", type: str, default: ""}
  after: {description: "The run in whose hands the climb was seen and is now taken from; in any other's it stays.", type: str, default: ""}
author: [Slipway maintainers (@slipway)]
"""

EXAMPLES = r"""
- name: Begin the cut-over
  slipway.vps.climb_record:
    climb: resize
    phase: cut_over
    who: ops
"""

RETURN = r"""
record:
  description: "The record that is open, or was just ended: C(id), C(phase), C(run), C(phases), C(plan), C(facts), C(result). Null where none is."
  type: dict
  returned: success
others: {description: Climbs of other kinds that have begun on this host and not ended., type: list, elements: str, returned: success}
held_by: {description: "Another run that has the climb in hand and lives, or may: its machine cannot be asked. Empty where none.", type: str, returned: success}
"""

from datetime import UTC, datetime

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.vps.plugins.module_utils._ansible import run_adapter
from ansible_collections.slipway.vps.plugins.module_utils.slipway.climb.record import Records


def main(module: AnsibleModule) -> dict:
    """Look, begin a phase, or end the climb."""
    params, records = module.params, Records()
    found = records.open_one(params["climb"])
    writes = bool(params["phase"] or params["end"]) and not module.check_mode
    now = datetime.now(UTC)
    if writes and params["phase"]:
        found = records.enter(
            params["climb"], params["phase"], who=params["who"], now=now, host=params["host"], plan=params["plan"],
            run=params["run"], after=params["after"],
        )  # fmt: skip
    if writes and params["end"]:
        found = records.end(params["climb"], who=params["who"], now=now, result=params["end"], facts=params["facts"])
    return {"changed": writes, "record": found and found.to_dict(), "others": records.others(params["climb"])}


if __name__ == "__main__":
    run_adapter(
        {
            "climb": {"type": "str", "required": True},
            "phase": {"type": "str", "default": ""},
            "end": {"type": "str", "default": ""},
            "plan": {"type": "dict"},
            "facts": {"type": "dict", "default": {}},
            "host": {"type": "str", "default": ""},
            "who": {"type": "str", "default": "unknown"},
            "run": {"type": "str", "default": ""},
            "after": {"type": "str", "default": ""},
        },
        main,
    )
