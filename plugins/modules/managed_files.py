#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Adapter: many files in one round trip, landed together or not at all."""

from __future__ import annotations

DOCUMENTATION = r"""
module: managed_files
short_description: Manage many files, folders and links as one change
version_added: "0.1.0"
description:
  - Everything is staged and validated first, then renamed into place, then verified and applied.
    When a validator, a verification or an apply command objects, every path is put back.
  - One round trip for a whole role, where C(copy) and C(template) need one or two a file.
attributes:
  check_mode:
    support: full
    description: Can run without changing anything and says what would change.
  diff_mode:
    support: full
    description: Returns a diff per path; secret files show only that they changed.
options:
  files:
    description: The paths wished for.
    type: list
    elements: dict
    required: true
    suboptions:
      path: {description: Absolute path., type: path, required: true}
      state:
        description: What shall stand at the path.
        type: str
        choices: [file, directory, link, absent]
        default: file
      content: {description: The whole text of a file., type: str}
      mode: {description: "Permission bits as an octal string. Default 0644, folders 0755.", type: str}
      owner: {description: Owner., type: str, default: root}
      group: {description: Group., type: str, default: root}
      validate:
        description: Argument list of a program that must accept the staged file, written V(%s).
        type: list
        elements: str
      secret: {description: Keep the content out of the diff., type: bool, default: false}
      sealed:
        description: Name of a credential of systemd. The content is sealed to the host, and only units that load it see it. Implies O(files[].secret).
        type: str
      force: {description: With V(false) an existing path is left as it is., type: bool, default: true}
      target: {description: Where a link points., type: str}
  verify:
    description: Argument lists run after landing when anything changed. A failure puts everything back.
    type: list
    elements: list
    default: []
  apply:
    description: Argument lists run after O(verify) when anything changed. A failure puts everything back.
    type: list
    elements: list
    default: []
  units:
    description:
      - Systemd units brought to what is wished at the end, whether or not a file changed. See M(slipway.vps.units) for the
        keys they have in common. Systemd reads its files again first where one below C(/etc/systemd) changed.
      - When one fails to start, every path is put back, and what ran before runs again.
    type: list
    elements: dict
    default: []
    suboptions:
      name: {description: "Full name, such as V(ssh.service).", type: str, required: true}
      enabled: {description: Started at boot., type: bool}
      state: {description: Running now., type: str, choices: [started, stopped]}
      masked: {description: Cannot be started by anybody., type: bool}
      restart: {description: Restart it if it is already running., type: bool, default: false}
      reload: {description: Reload it if it is already running., type: bool, default: false}
      restart_on:
        description: Paths of which one has to change for O(units[].restart); one that ends with a slash stands for all below it.
        type: list
        elements: str
        default: []
      reload_on: {description: "As O(units[].restart_on), for O(units[].reload).", type: list, elements: str, default: []}
      missing_ok: {description: A unit that does not exist is as wished., type: bool, default: false}
  guard:
    description: Name of a dead-man guard armed before anything lands. M(slipway.vps.guard_confirm) disarms it.
    type: str
  guard_seconds:
    description: Seconds until an unconfirmed change is put back.
    type: int
    default: 60
  guard_restore:
    description: Argument lists that the guard runs after it has put the files back.
    type: list
    elements: list
    default: []
author: [Slipway maintainers (@slipway)]
"""

EXAMPLES = r"""
- name: Configure the example service
  slipway.vps.managed_files:
    files:
      - {path: /etc/example, state: directory, mode: "0750"}
      - path: /etc/sudoers.d/example
        content: "%example ALL=(root) NOPASSWD: /usr/bin/true\n"
        mode: "0440"
        validate: [visudo, -cf, "%s"]
    units:
      - {name: example.service, enabled: true, state: started, reload_on: [/etc/example/]}
"""

RETURN = r"""
changed_paths:
  description: Paths that changed, or would in check mode.
  type: list
  elements: str
  returned: success
steps:
  description: The systemctl steps taken for O(units), or that would be.
  type: list
  elements: str
  returned: when O(units) is given
guard_pending:
  description: Whether the guard waits for its confirmation, from this run or from an earlier one that broke off.
  type: bool
  returned: when O(guard) is given
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.vps.plugins.module_utils._ansible import UNIT_SPEC, run_adapter
from ansible_collections.slipway.vps.plugins.module_utils.slipway.host import guard, systemd
from ansible_collections.slipway.vps.plugins.module_utils.slipway.errors import SlipwayError
from ansible_collections.slipway.vps.plugins.module_utils.slipway.host.files import (
    FileSpec,
    Transaction,
    inspect,
    owner_ids,
    plan,
    run_all,
)
from ansible_collections.slipway.vps.plugins.module_utils.slipway.host.sealed import settle

FILE_SPEC = {
    "path": {"type": "path", "required": True},
    "state": {"type": "str", "choices": ["file", "directory", "link", "absent"], "default": "file"},
    "content": {"type": "str"},
    "mode": {"type": "str"},
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str", "default": "root"},
    "validate": {"type": "list", "elements": "str"},
    "secret": {"type": "bool", "default": False},
    "sealed": {"type": "str"},
    "force": {"type": "bool", "default": True},
    "target": {"type": "str"},
}
PATHS = {"type": "list", "elements": "str", "default": []}
COMMANDS = {"type": "list", "elements": "list", "default": []}


def _without_secrets(params: dict) -> list[dict]:
    """The files as given; in ``params``, which Ansible shows with -vvv, secret content is blotted out."""
    given = [dict(raw) for raw in params["files"]]
    for raw in params["files"]:
        if (raw["secret"] or raw["sealed"]) and raw["content"] is not None:
            raw["content"] = "(secret)"
    return given


def _with_units(
    result: dict, specs: list[systemd.UnitSpec], taken: list[systemd.Step] | None = None, *, dry_run: bool = False
) -> dict:
    """``result`` with the steps of the units, which are carried out; ``taken`` gets them first, in case one fails."""
    if not specs:
        return result
    found = systemd.show(spec.name for spec in specs)
    steps = [step for spec in specs for step in systemd.plan(spec, found[spec.name])]
    if taken is not None:
        taken += steps
    if steps and not dry_run:
        systemd.apply(steps, daemon_reload=False)
    listed = [str(step) for step in steps]
    shown = [{"before": "", "after": "".join(f"systemctl {step}\n" for step in listed)}] if steps else []
    return {
        **result,
        "changed": result["changed"] or bool(steps),
        "steps": listed,
        "diff": result["diff"] + shown,
    }


SPEC = {
    "files": {"type": "list", "elements": "dict", "required": True, "options": FILE_SPEC},
    "verify": COMMANDS,
    "apply": COMMANDS,
    "units": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {**UNIT_SPEC, "restart_on": PATHS, "reload_on": PATHS},
    },
    "guard": {"type": "str"},
    "guard_seconds": {"type": "int", "default": 60},
    "guard_restore": COMMANDS,
}


def main(module: AnsibleModule) -> dict:
    """Plan every path, then apply all changes or none."""
    params = module.params
    changes = []
    for wish in [FileSpec.parse(raw) for raw in _without_secrets(params)]:
        found = inspect(wish.path)
        spec = settle(wish, found, dry_run=module.check_mode)
        if change := plan(spec, found, owner_ids(spec)):
            changes.append(change)
    result = {
        "changed": bool(changes),
        "changed_paths": [change.spec.path for change in changes],
        "diff": [change.diff for change in changes],
    }
    if params["guard"]:
        # A run that broke off may have left one: what landed then is undone unless this run confirms it.
        result["guard_pending"] = guard.is_pending(params["guard"])
        undone = None if module.check_mode else guard.take_report(params["guard"])
        if undone:
            module.warn(undone.sentence())
    specs = [systemd.UnitSpec.parse(raw, result["changed_paths"]) for raw in params["units"]]
    if not changes or module.check_mode:
        return _with_units(result, specs, dry_run=module.check_mode)
    transaction = Transaction(changes)
    guarded = False
    found = systemd.show(spec.name for spec in specs)
    steps: list[systemd.Step] = []
    try:
        transaction.stage()
        if params["guard"]:
            guard.arm(params["guard"], result["changed_paths"], params["guard_restore"], params["guard_seconds"])
            guarded = True
        transaction.land()
        run_all(params["verify"], "Verification")
        run_all(params["apply"], "Putting the change to use")
        if specs and systemd.reread(result["changed_paths"]):
            systemd.run(["systemctl", "daemon-reload"])
        result = _with_units(result, specs, steps)
    except (SlipwayError, OSError):
        transaction.roll_back()
        if steps:
            systemd.take_back(steps, found)
        if guarded:
            guard.disarm(params["guard"])
        raise
    transaction.commit()
    return {**result, "guard_pending": guarded} if guarded else result


if __name__ == "__main__":
    run_adapter(SPEC, main)
