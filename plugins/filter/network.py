# SPDX-License-Identifier: Apache-2.0
"""Filters on the private network: thin wrappers on :mod:`slipway.network`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.slipway.vps.plugins.module_utils.slipway.errors import SlipwayError
from ansible_collections.slipway.vps.plugins.module_utils.slipway.network import plan as network
from ansible_collections.slipway.vps.plugins.module_utils.slipway.network.examine import examine, interface_of

DOCUMENTATION = r"""
name: network_plan
short_description: From the inventory to what a host of the private network needs
version_added: "0.2.0"
description: "Works out C(address), C(kind), C(mtu), C(port), C(peers), C(admitted) (what its firewall lets in) and C(sources)."
positional: hosts, groups, host
options:
  _input: {description: The setting C(slipway_private_network)., type: dict, required: true}
  hosts: {description: "C(hostvars), or each host's variables by name.", type: dict, required: true}
  groups: {description: The inventory's groups., type: dict, required: true}
  host: {description: Name of the host., type: str, required: true}
  redis_ports: {description: Ports that servers of Redis may have., type: list, elements: int, default: []}
"""

EXAMPLES = r"""
- name: Show whom this host lets in
  ansible.builtin.debug:
    msg: "{{ slipway_private_network | slipway.vps.network_plan(hostvars, groups, inventory_hostname) }}"
"""

RETURN = r"""
_value: {description: What the host needs., type: dict}
"""
_READ = ("slipway_private_address", "slipway_public_address", "ansible_host")


def network_plan(
    raw: Mapping[str, Any], hosts: Mapping[str, Any], groups: Mapping[str, Any], host: str, redis_ports: Iterable[int] = ()
) -> dict[str, Any]:  # fmt: skip
    """See DOCUMENTATION."""
    try:
        settings = network.Settings.parse(raw)
        # Only what is read: a host's variables are many, and each is a template.
        found = network.members(
            {name: {key: hosts[name][key] for key in _READ if key in hosts[name]} for name in groups["all"]}, settings
        )
    except SlipwayError as error:
        raise AnsibleFilterError(str(error)) from error
    own = next(one for one in found if one.name == host)
    tunnelled = settings.kind == "wireguard"
    return {
        "kind": settings.kind,
        "address": own.address,
        "prefix": settings.subnet.prefixlen,
        "interface": network.TUNNEL if tunnelled else settings.interface,
        "port": settings.port,
        "mtu": settings.mtu,
        "peers": network.peers(found, settings, host),
        "sources": [one.public for one in found if one.name != host] if tunnelled else [],
        "admitted": network.admitted(found, network.pairs(groups, list(redis_ports)), host),
    }


def network_interface(plan: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """The interface of the private network on this host; for the provider's, the one that bears the address."""
    return str(plan["interface"]) or interface_of(facts.get("interfaces") or {}, str(plan["address"]))


def network_findings(raw: Mapping[str, Any], facts: Mapping[str, Any], address: str) -> list[str]:
    """Why the host cannot be part of that network, a message each."""
    return [str(one) for one in examine(facts, network.Settings.parse(raw), address)]


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function."""
        return {
            "network_plan": network_plan,
            "network_interface": network_interface,
            "network_findings": network_findings,
        }
