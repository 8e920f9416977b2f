# SPDX-License-Identifier: Apache-2.0
"""Filter ``slipway.vps.resolve_apps``: thin wrapper on :func:`slipway.apps.resolve`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.slipway.vps.plugins.module_utils.slipway.deploy.apps import Network, resolve
from ansible_collections.slipway.vps.plugins.module_utils.slipway.errors import SlipwayError

DOCUMENTATION = r"""
name: resolve_apps
short_description: From slipway_apps to what each role needs
version_added: "0.1.0"
description: Gives every app its ports, database addresses and numbers, as lists C(apps), C(sites), C(databases) and C(redis).
positional: sizing, vault
options:
  _input: {description: The list C(slipway_apps)., type: list, elements: dict, required: true}
  sizing: {description: "What the filter P(slipway.vps.sizing#filter) returned.", type: dict, required: true}
  vault: {description: "The mapping C(vault_apps).", type: dict, required: true}
  gateway: {description: The host's address on the app network., type: str}
  pooler_port: {description: PgBouncer's port., type: int, default: 6432}
"""

EXAMPLES = r"""
- name: Show the sites
  ansible.builtin.debug:
    msg: "{{ (slipway_apps | slipway.vps.resolve_apps(sizing, vault_apps)).sites }}"
"""

RETURN = r"""
_value: {description: "Lists C(apps), C(sites), C(databases) and C(redis).", type: dict}
"""


def resolve_apps(
    apps: list[dict[str, Any]],
    sizing: dict[str, Any],
    vault: dict[str, Any],
    gateway: str = "",
    pooler_port: int = 6432,
) -> dict[str, Any]:
    """See DOCUMENTATION."""
    try:
        network = Network(gateway, pooler_port) if gateway else Network(pooler_port=pooler_port)
        return resolve(apps, sizing, vault, network)
    except SlipwayError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function."""
        return {"resolve_apps": resolve_apps}
