#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Documentation of ``slipway.vps.app_wish``; the work is in the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: app_wish
short_description: Lays down what the apps of a host shall be, and says which need a deploy
version_added: "0.1.0"
description:
  - Works out each app's specification and environment on the control node (a source folder by its content), looks at the
    host, and writes C(app.json) and C(app.env) for all apps. Two round trips in all. Nothing is deployed.
  - Refuses before anything is written when an app would take another app's place.
attributes:
  check_mode:
    support: full
    description: Looks and says what would change.
  diff_mode:
    support: full
    description: Shows the specifications; environments only as changed.
options:
  apps:
    description: The apps, as role C(app) documents them.
    type: list
    elements: dict
    required: true
  defaults:
    description: What an app gets that says nothing else.
    type: dict
    default: {}
  network:
    description: Name, subnet and gateway of the apps' network.
    type: dict
    default: {}
  tag:
    description: A tag to use in place of the one each app names.
    type: str
    default: ""
author: [Slipway maintainers (@slipway)]
"""

EXAMPLES = r"""
- name: Lay down what the apps shall be
  slipway.vps.app_wish:
    apps: "{{ app_apps }}"
  register: wishes
"""

RETURN = r"""
apps:
  description: For each app C(app), C(wish), C(reference), C(source), C(deploy), C(why), C(held), C(image_present).
  type: list
  elements: dict
  returned: success
"""
