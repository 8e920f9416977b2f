# SPDX-License-Identifier: Apache-2.0
"""What an inventory says of the private network: the setting, each host's addresses, and whether they fit. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import InputError
from ..network.plan import MTU, PORT, SUBNET, Settings, clashes, members
from .schema import Field, Problem

NETWORK = Field(
    "mapping",
    "the private network between your hosts; not set: there is none. With one host nothing is done",
    fields={
        "kind": Field(
            "string",
            "wireguard (encrypted, over the public network) or provider (an interface that your provider gives)",
            default="wireguard",
            choices=("wireguard", "provider"),
        ),
        "subnet": Field("string", "the network's addresses (IPv4)", default=SUBNET, form="address"),
        "interface": Field("string", "provider: its name, such as enp7s0; else found by the address", default=""),
        "port": Field("integer", "wireguard: the UDP port", default=PORT, minimum=1024, maximum=65535),
        "mtu": Field(
            "integer", "wireguard: bytes of a packet inside the tunnel", default=MTU, minimum=1280, maximum=8920
        ),
        "keepalive": Field(
            "integer",
            "wireguard: seconds between two signs of life, where a host is behind NAT (25); 0: none",
            default=0,
            minimum=0,
            maximum=3600,
        ),
    },
)
NETWORK_SETTINGS: dict[str, Field] = {
    "slipway_private_network": NETWORK,
    "slipway_private_address": Field(
        "string", "a host's address in the private network (provider: needed; wireguard: worked out from its name)",
        default="", literals=("",), form="address",
    ),
    "slipway_public_address": Field(
        "string", "where a host's tunnel is reached, where ansible_host is a name", default="", literals=("",), form="address"
    ),
}  # fmt: skip
_AT = ("slipway_private_network",)
# Slipway's own; tests/unit/test_network.py holds them to the role's defaults.
DOCKER = {
    "10.213.86.0/24": "Docker's bridge (docker_bridge_address)",
    "10.213.87.0/24": "the applications' network (docker_app_subnet)",
    "10.213.96.0/19": "Docker's other networks (docker_address_pools)",
}


def check_network(hosts: Mapping[str, Mapping[str, Any]], taken: Mapping[str, str] = DOCKER) -> Iterator[Problem]:
    """What is wrong with the network as a whole. ``hosts``: each one's variables; ``taken``: networks used otherwise, with their use."""
    given = {name: own.get("slipway_private_network") for name, own in hosts.items()}
    raw = next((one for one in given.values() if one is not None), None)
    if not isinstance(raw, Mapping):
        return
    if any(one != raw for one in given.values()):
        odd = next(name for name, one in given.items() if one != raw)
        yield Problem(f"the host '{odd}' has another value than the others", "set it once, for all hosts", _AT)
        return
    try:
        settings = Settings.parse(raw)
    except (InputError, TypeError, ValueError) as error:
        yield Problem(str(error), "", (*_AT, "subnet"))
        return
    yield from _check_subnet(settings, taken)
    if len(hosts) < 2:
        return
    room = settings.subnet.num_addresses - 3
    if len(hosts) > room:
        yield Problem(
            f"{len(hosts)} hosts for the subnet {settings.subnet}, which has room for {max(room, 0)}",
            f"take a larger one, such as {SUBNET}", (*_AT, "subnet"),
        )  # fmt: skip
        return
    yield from _check_members(hosts, settings)


def _check_subnet(settings: Settings, taken: Mapping[str, str]) -> Iterator[Problem]:
    at = (*_AT, "subnet")
    if not settings.subnet.is_private:
        yield Problem(f"{settings.subnet} is a public network", f"take a private one, such as {SUBNET}", at)
    for network, use in taken.items():
        if settings.subnet.overlaps(ipaddress.IPv4Network(network)):
            yield Problem(f"{settings.subnet} overlaps {network}: {use}", f"take another one, such as {SUBNET}", at)


def _check_members(hosts: Mapping[str, Mapping[str, Any]], settings: Settings) -> Iterator[Problem]:
    found = members(hosts, settings)
    for one in found:
        at = ("slipway_private_address",)
        if not one.address:
            yield Problem(
                f"the host '{one.name}' has no address in the provider's network",
                "give it slipway_private_address: the address that your provider's console shows", at,
            )  # fmt: skip
            continue
        try:
            inside = ipaddress.IPv4Address(one.address) in settings.subnet
        except ValueError:
            inside = False
        if not inside:
            yield Problem(
                f"{one.address} of the host '{one.name}' is not in {settings.subnet}", "correct one of the two", at
            )
        if settings.kind == "wireguard" and not one.public:
            yield Problem(
                f"the host '{one.name}' is reached by a name, and a tunnel needs an address",
                "give it slipway_public_address: its public IP address", ("slipway_public_address",),
            )  # fmt: skip
    for address, first, second in clashes(found):
        yield Problem(
            f"the hosts '{first}' and '{second}' have the same private address {address}",
            "give one of them a slipway_private_address of its own", ("slipway_private_address",),
        )  # fmt: skip
