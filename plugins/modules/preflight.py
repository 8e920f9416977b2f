#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Documentation of ``slipway.vps.preflight``; the work is in the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight
short_description: Decides whether a host can carry what the inventory asks of it
version_added: "0.1.0"
description:
  - Runs on the controller with the facts that M(slipway.vps.host_info) took; opens no connection.
  - Refuses an unsupported system or processor, missing root rights, a wrong clock, too little RAM or disk for the
    sizing, and public ports that another program has.
  - Warns of what is not tested, of the user's own figures that break a bound, and of domains that do not point here.
options:
  facts:
    description: What host_info returned as C(ansible_facts.slipway_host).
    type: dict
    required: true
  apps:
    description: The applications, as in C(slipway_apps).
    type: list
    elements: dict
    default: []
  overrides:
    description: The user's own PostgreSQL settings.
    type: dict
    default: {}
  dedicated:
    description: Whether the database is alone on the host.
    type: bool
    default: false
  database:
    description: The facts of the database's own host, where it is another one; empty where they are not known yet.
    type: dict
  edge:
    description: Whether the host takes the public's traffic.
    type: bool
    default: true
  check_dns:
    description: Whether to look up the applications' domains, from the controller.
    type: bool
    default: false
  address:
    description: The host's address or name, which the domains should lead to.
    type: str
  allow_overcommit:
    description: Whether a budget beyond the RAM is a warning only.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: It only looks.
  diff_mode:
    support: none
    description: It only looks.
author: [Slipway maintainers (@slipway)]
"""

EXAMPLES = r"""
- name: Check that the host can carry this
  slipway.vps.preflight:
    facts: "{{ ansible_facts.slipway_host }}"
    apps: "{{ slipway_apps }}"
"""

RETURN = r""" # """
