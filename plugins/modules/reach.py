#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Documentation of ``slipway.vps.reach``; the work is in the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: reach
short_description: Finds out who can log in to a host
version_added: "0.1.0"
description:
  - Runs on the controller. Tries the users in turn by a new SSH connection each, with the host's own connection settings
    (address, port, key, SSH arguments), and returns the first who is let in and is root or can become root.
  - When nobody is let in, one message says why and what to do. A wrong key, a changed host key, a name without an
    address, a closed port, a host that does not answer and a missing Python are told apart.
options:
  users:
    description:
      - Users to try, in this order. A user that a cloud image names when it refuses root is tried as well.
    type: list
    elements: str
    default: [root]
  note:
    description: A sentence added to the message when nobody is let in, such as what has not been changed.
    type: str
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
- name: Find out who can log in
  slipway.vps.reach:
    users: [ops, root]
  register: first_contact

- name: Go on as that user
  ansible.builtin.set_fact:
    ansible_user: "{{ first_contact.user }}"
    ansible_become: "{{ not first_contact.root }}"
"""

RETURN = r"""
user:
  description: The user to go on as.
  type: str
  returned: success
root:
  description: Whether that user is root.
  type: bool
  returned: success
probed:
  description: Whether a login was tried. False where the connection is not SSH, or only a password is left.
  type: bool
  returned: success
"""
