#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Adapter: a program of the host, run without a shell."""

from __future__ import annotations

DOCUMENTATION = r"""
module: program
short_description: Run a program without a shell
version_added: "0.1.0"
description:
  - As M(ansible.builtin.command) with O(argv) alone, run by the library that is on the host already, which saves Ansible's own being compiled there.
  - A task says by C(changed_when) whether it changed anything; the module itself says that it did.
attributes:
  check_mode:
    support: none
    description: Is skipped.
  diff_mode:
    support: none
    description: Nothing to show.
options:
  argv:
    description: The program and its arguments. Never a secret.
    type: list
    elements: str
    required: true
author: [Slipway maintainers (@slipway)]
"""

EXAMPLES = r"""
- name: Read what sshd really does
  slipway.vps.program:
    argv: [sshd, -T]
  changed_when: false
  register: sshd
"""

RETURN = r"""
stdout: {description: What it wrote., type: str, returned: success}
stdout_lines: {description: The same by lines., type: list, elements: str, returned: success}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.vps.plugins.module_utils._ansible import run_adapter
from ansible_collections.slipway.vps.plugins.module_utils.slipway.commands import run

SPEC = {"argv": {"type": "list", "elements": "str", "required": True}}


def main(module: AnsibleModule) -> dict:
    """Run it; a code other than 0 is a failure in its own words."""
    if module.check_mode:
        return {"changed": False, "skipped": True, "msg": "Not run in check mode."}
    stdout = run(module.params["argv"]).stdout.rstrip("\n")
    return {"changed": True, "stdout": stdout, "stdout_lines": stdout.splitlines()}


if __name__ == "__main__":
    run_adapter(SPEC, main)
