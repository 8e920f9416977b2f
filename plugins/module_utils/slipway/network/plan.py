# SPDX-License-Identifier: Apache-2.0
"""From the inventory to the private network: each host's address, its peers, and the pairs that may talk. Pure.

An address comes from the host's name alone, so that it stays when other hosts come or go. Two names that come to the same
address are refused (:func:`clashes`), not moved: whoever was moved would lose its address with the other host.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import InputError

IPv4 = ipaddress.IPv4Network
TUNNEL = "slipway-wg"
"""The interface of WireGuard; ``slipway0`` is the bridge of the applications."""
SUBNET = "10.214.0.0/16"
PORT = 51820
MTU = 1420
"""What an Ethernet's 1,500 leave after WireGuard's 60 (IPv4) or 80 (IPv6) bytes."""
POSTGRES_PORT = 5432


@dataclass(frozen=True)
class Settings:
    """``slipway_private_network`` with its defaults. ``interface`` is the provider's, empty: found by the address."""

    kind: str = "wireguard"
    subnet: IPv4 = field(default_factory=lambda: IPv4(SUBNET))
    interface: str = ""
    port: int = PORT
    mtu: int = MTU
    keepalive: int = 0

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> Settings:
        """From what a user typed. Raises :class:`InputError` where the subnet is none."""
        try:
            subnet = IPv4(str(raw.get("subnet", SUBNET)))
        except ValueError:
            raise InputError(
                f"slipway_private_network: '{raw.get('subnet')}' is no IPv4 network",
                f"one such as {SUBNET}, with no bits set to the right of its prefix",
            ) from None
        kind = str(raw.get("kind", "wireguard"))
        given = {name: int(raw[name]) for name in ("port", "mtu", "keepalive") if name in raw}
        return cls(kind, subnet, str(raw.get("interface", "")), **given)


@dataclass(frozen=True)
class Member:
    """One host in the network. ``public`` is where its tunnel is reached, an IP address; empty where none is known."""

    name: str
    address: str
    public: str


@dataclass(frozen=True)
class Pair:
    """One thing that is allowed: hosts named ``source`` may open connections to ``target`` on a TCP port."""

    source: str
    target: str
    port: int
    why: str


def address_of(name: str, subnet: IPv4) -> str:
    """The address that a host's name stands for in ``subnet``: never the first or the last two, which networks use themselves."""
    room = subnet.num_addresses - 3
    if room < 1:
        raise InputError(f"The subnet {subnet} has no room for hosts", "a prefix of 29 or less")
    digest = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    return str(subnet[1 + digest % room])


def is_address(text: str) -> bool:
    """Whether ``text`` is an IP address rather than a name."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def members(hosts: Mapping[str, Mapping[str, Any]], settings: Settings) -> list[Member]:
    """Every host with its addresses, by name. ``hosts``: each one's variables.

    ``slipway_private_address`` and ``slipway_public_address`` win; else the name's address (WireGuard) and ``ansible_host``.
    """
    found = []
    for name in sorted(hosts):
        own = hosts[name]
        worked_out = address_of(name, settings.subnet) if settings.kind == "wireguard" else ""
        reached = str(own.get("slipway_public_address") or own.get("ansible_host") or name)
        address = str(own.get("slipway_private_address") or worked_out)
        found.append(Member(name, address, reached if is_address(reached) else ""))
    return found


def clashes(found: Sequence[Member]) -> list[tuple[str, str, str]]:
    """(address, first host, second host) of hosts that share an address."""
    seen: dict[str, str] = {}
    twice = []
    for one in found:
        if one.address and one.address in seen:
            twice.append((one.address, seen[one.address], one.name))
        seen.setdefault(one.address, one.name)
    return twice


def pairs(groups: Mapping[str, Iterable[str]], redis_ports: Sequence[int] = ()) -> list[Pair]:
    """Who may reach what, as the groups imply it; sorted, each once, never a host and itself.

    A host that runs what it needs itself reaches no other one for it: an app host that is in ``db`` has its own database.
    """
    inside = {name: sorted(set(hosts)) for name, hosts in groups.items()}
    clients = sorted({*inside.get("app", ()), *inside.get("worker", ())})
    wanted: set[Pair] = set()
    for group, ports, why in (
        ("db", (POSTGRES_PORT,), "the apps' databases"),
        ("redis", tuple(redis_ports), "the apps' caches and queues"),
    ):
        servers = inside.get(group, [])
        wanted |= {
            Pair(client, server, port, why)
            for client in clients
            if client not in servers
            for server in servers
            for port in ports
        }
    return sorted(wanted, key=lambda one: (one.target, one.port, one.source))


def admitted(found: Sequence[Member], wanted: Iterable[Pair], host: str) -> list[dict[str, Any]]:
    """What the firewall of ``host`` lets in: ``{source, port, why}``, the source as an address."""
    address = {one.name: one.address for one in found}
    return [
        {"source": address[one.source], "port": one.port, "why": f"{one.source}: {one.why}"}
        for one in wanted
        if one.target == host and one.source in address
    ]


def peers(found: Sequence[Member], settings: Settings, host: str) -> list[dict[str, Any]]:
    """The other hosts as ``host`` reaches them: name, private address, endpoint (address and port), keepalive in seconds."""
    return [
        {
            "name": one.name,
            "address": one.address,
            "endpoint": f"[{one.public}]:{settings.port}" if ":" in one.public else f"{one.public}:{settings.port}",
            "keepalive": settings.keepalive,
        }
        for one in found
        if one.name != host
    ]


def known_keys(conf: str) -> dict[str, str]:
    """Name to public key of the peers in a file that the role wrote: each peer has a comment with its name before its key."""
    keys: dict[str, str] = {}
    name = ""
    for line in conf.splitlines():
        key, _, value = line.partition("=")
        if line.startswith("# host: "):
            name = line.removeprefix("# host: ").strip()
        elif key.strip() == "PublicKey" and name:
            keys[name] = value.strip()
            name = ""
    return keys
