#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Documentation of ``slipway.vps.say``; the work is in the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: say
short_description: Print a text as it is
version_added: "0.1.0"
description:
  - Prints on the control node, without the quoting and wrapping of M(ansible.builtin.debug), so that tables stay tables.
attributes:
  check_mode:
    support: full
    description: Changes nothing.
  diff_mode:
    support: none
    description: Changes nothing.
options:
  text:
    description: What to print; may have many lines.
    type: str
    required: true
author: [Slipway maintainers (@slipway)]
"""

EXAMPLES = r"""
- name: Show the memory budget
  slipway.vps.say:
    text: "{{ ansible_facts.slipway_host | slipway.vps.sizing_text(apps=slipway_apps) }}"
"""

RETURN = r"""# nothing but what every module returns"""
