# SPDX-License-Identifier: Apache-2.0
"""Whether a host can be part of the private network as the inventory says, decided before anything is changed. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import SlipwayError
from .plan import TUNNEL, Settings


def interface_of(interfaces: Mapping[str, Any], address: str) -> str:
    """The interface that bears ``address`` (``interfaces``: name to addresses with their prefix); empty where none does."""
    for name, listed in interfaces.items():
        if any(str(one).partition("/")[0] == address for one in listed):
            return name
    return ""


def examine(facts: Mapping[str, Any], settings: Settings, address: str) -> list[SlipwayError]:
    """Everything that is wrong with this host for that network. ``facts`` are those of ``host_info``."""
    interfaces = facts.get("interfaces") or {}
    look = _provider if settings.kind == "provider" else _wireguard
    return list(look(interfaces, settings, address, str(facts.get("default_interface") or "")))


def _provider(
    interfaces: Mapping[str, Any], settings: Settings, address: str, default: str
) -> Iterator[SlipwayError]:  # fmt: skip
    there = "; ".join(f"{name}: {' '.join(map(str, listed)) or 'no address'}" for name, listed in interfaces.items())
    bearer = interface_of(interfaces, address)
    if settings.interface and settings.interface not in interfaces:
        yield SlipwayError(
            f"The host has no interface {settings.interface} ({there})",
            "the interface of the provider's private network, as slipway_private_network says",
            "attach the network to the server in your provider's console, or correct 'interface'",
        )
    elif not bearer or (settings.interface and bearer != settings.interface):
        where = f"is on {bearer}" if bearer else "is on no interface"
        yield SlipwayError(
            f"The address {address} {where} of the host ({there})",
            f"it on {settings.interface or 'the interface of the private network'}",
            "set slipway_private_address of this host to the address that your provider's console shows",
        )
    elif bearer == default:
        yield SlipwayError(
            f"{bearer} is the way to the internet too",
            "an interface for the private network alone, since the firewall opens nothing but the implied pairs there",
            "attach a private network of your provider to the server, or use kind: wireguard",
        )


def _wireguard(
    interfaces: Mapping[str, Any], settings: Settings, _address: str, _default: str
) -> Iterator[SlipwayError]:
    for name, listed in interfaces.items():
        if name == TUNNEL:
            continue
        for one in listed:
            net = ipaddress.ip_interface(str(one)).network
            if isinstance(net, ipaddress.IPv4Network) and net.overlaps(settings.subnet):
                yield SlipwayError(
                    f"The subnet {settings.subnet} overlaps {net}, which the host has on {name}",
                    "a subnet that nothing else on any host uses",
                    "set slipway_private_network.subnet to another one, such as 10.222.0.0/16",
                )
                break
