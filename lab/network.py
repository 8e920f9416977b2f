# SPDX-License-Identifier: Apache-2.0
"""Addresses for labs: a /24 and an IPv6 /64 of its own for each, chosen where nothing else is."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

from lab.model import LabError

IPv4 = ipaddress.IPv4Network
IPv6 = ipaddress.IPv6Network
_FIRST_HOST = 10
"""The lower addresses are left to the gateway and to whatever a user adds by hand."""


def candidates() -> Iterator[tuple[IPv4, IPv6]]:
    """Every pair of subnets a lab may have. Both are private (RFC 1918, RFC 4193)."""
    for n in range(256):
        yield IPv4(f"10.231.{n}.0/24"), IPv6(f"fd51:1ab:0:{n:x}::/64")


def free_subnets(taken: Iterable[str]) -> Iterator[tuple[IPv4, IPv6]]:
    """The pairs that overlap none of ``taken`` (networks in CIDR notation; what is no network is passed over)."""
    used: list[IPv4 | IPv6] = []
    for text in taken:
        try:
            used.append(ipaddress.ip_network(text, strict=False))
        except ValueError:
            continue
    for four, six in candidates():
        if not any(four.overlaps(net) if isinstance(net, IPv4) else six.overlaps(net) for net in used):
            yield four, six


def next_address(network: IPv4, taken: Iterable[str]) -> ipaddress.IPv4Address:
    """The lowest free host address of ``network``; raises :class:`LabError` where it is full."""
    used = set(taken)
    for address in list(network.hosts())[_FIRST_HOST - 1 :]:
        if str(address) not in used:
            return address
    raise LabError(f"The lab's network {network} has no free address", remedy="take hosts down with bin/lab down")


def matching_ip6(address: ipaddress.IPv4Address, network: IPv6) -> ipaddress.IPv6Address:
    """The IPv6 address with the same last number as ``address``, so that the two are easy to tell belong together."""
    return network[int(address) & 0xFF]


def cut_rules(own: str, peers: Iterable[str] | None) -> str:
    """An nft script that drops traffic with ``peers`` (addresses), or with everybody where None.

    The table is named after ``own`` so that several cuts of one host stand side by side. Priority -300 comes
    before connection tracking and any firewall of the host; loopback, and with it Docker's name server, stays.
    """
    table = f"table inet {own}"
    lines = [f"{table}", f"delete {table}", f"{table} {{"]
    for hook, interface, direction in (("input", "iifname", "saddr"), ("output", "oifname", "daddr")):
        lines.append(f"  chain {hook} {{")
        lines.append(f"    type filter hook {hook} priority -300; policy accept;")
        if peers is None:
            lines.append(f'    {interface} != "lo" drop')
        else:
            for peer in peers:
                family = "ip6" if ":" in peer else "ip"
                lines.append(f"    {family} {direction} {peer} drop")
        lines.append("  }")
    lines.append("}")
    return "\n".join(lines) + "\n"
