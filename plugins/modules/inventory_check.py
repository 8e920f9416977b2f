#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Documentation of ``slipway.vps.inventory_check``; the work is in the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: inventory_check
short_description: Refuses an inventory with misspelled, wrong or unsafe settings
version_added: "0.1.0"
description:
  - Runs on the controller and opens no connection.
  - Finds unknown variables and groups (with a suggestion), wrong types and values in C(slipway_*) settings, secrets in
    plain text, placeholders nobody filled in, and applications that collide.
  - Known are the C(slipway_*) settings, every role's public variables, C(vault_*), Ansible's connection variables, and
    the names under C(slipway_extra_variables).
options:
  playbook_variables:
    description: Names that may be given by C(-e) to the calling playbook, beside the known ones.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    support: full
    description: It only looks.
  diff_mode:
    support: none
    description: It only looks.
author:
  - Slipway maintainers
"""

EXAMPLES = r"""
- name: Check the inventory
  slipway.vps.inventory_check:
  run_once: true
"""

RETURN = r""" # """
