# SPDX-License-Identifier: Apache-2.0
"""The switch: which container the proxy's next connection reaches, changed in one transaction without a reload.

The proxy dials the gateway address of the apps' network at an app's stable port. Nothing listens there: a nat chain on
the host's own output sends the connection to the serving container's fixed address. The whole map is replaced in one
``nft`` transaction, connections that are open keep where they lead. Measured against published ports and a redirect
between them: Docker's port proxy dies with every restart of the Docker daemon and takes its connections along, this
does not (docs/deploy.md).

The kernel remembers a connection for two minutes after its end, far longer than it takes a proxy without keep-alive to
come round to the same source port. When a container goes, Docker deletes what is remembered of its address, entry by
entry from a list it made before; a new connection on the same source port, to the other colour, has the same key, and in
the kernel's memory mostly the same place too. It lost its way back with it, in mid-request, until a TCP keep-alive 15 s
later. So the switch's connections are forgotten a second after their end, and nobody stops a container sooner than
``FORGOTTEN_SECONDS`` after it got its last one.

What the map should be follows from the apps' state files alone, so it can be made again after a reboot or a crash.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from .. import lock
from ..commands import run

TABLE = "slipway_switch"
LOCK = Path("/run/slipway/switch.lock")
REMEMBERED_SECONDS = 1
"""How long the kernel keeps what it knows of a connection that has ended. Both ends are on this host: nothing comes late."""
FORGOTTEN_SECONDS = 2.0
"""After this time nothing is remembered of connections that have ended."""


@dataclass(frozen=True, order=True)
class Route:
    """One app's way: what arrives at ``gateway``:``stable_port`` goes to ``address``:``port``."""

    gateway: str
    stable_port: int
    address: str
    port: int


def render(routes: Iterable[Route]) -> str:
    """The ``nft`` script that makes exactly ``routes`` hold, in one transaction, whatever held before.

    Chain and map are kept, only their content is replaced: connections that are open are never touched.
    """
    wanted = sorted(set(routes))
    for route in wanted:  # they end up in a script: only addresses and numbers may
        ipaddress.IPv4Address(route.gateway)
        ipaddress.IPv4Address(route.address)
    lines = [
        f"add table ip {TABLE}",
        f"add map ip {TABLE} backends {{ type ipv4_addr . inet_service : ipv4_addr . inet_service; }}",
        f"add set ip {TABLE} stable {{ type ipv4_addr . inet_service; }}",
        f"add ct timeout ip {TABLE} brief {{ protocol tcp; l3proto ip; "
        f"policy = {{ time_wait : {REMEMBERED_SECONDS}, close : {REMEMBERED_SECONDS} }}; }}",
        # Just before Docker's own nat chain, which would otherwise have the first say.
        f"add chain ip {TABLE} output {{ type nat hook output priority -105; policy accept; }}",
        f"flush chain ip {TABLE} output",
        f'add rule ip {TABLE} output ip daddr . tcp dport @stable ct timeout set "brief"',
        f"add rule ip {TABLE} output meta l4proto tcp dnat ip to ip daddr . tcp dport map @backends",
        f"flush map ip {TABLE} backends",
        f"flush set ip {TABLE} stable",
    ]
    if wanted:
        elements = ", ".join(f"{r.gateway} . {r.stable_port} : {r.address} . {r.port}" for r in wanted)
        lines.append(f"add element ip {TABLE} backends {{ {elements} }}")
        stable = ", ".join(f"{r.gateway} . {r.stable_port}" for r in wanted)
        lines.append(f"add element ip {TABLE} stable {{ {stable} }}")
    return "\n".join(lines) + "\n"


class Switch:
    """The switch of this host."""

    def apply(self, routes: Iterable[Route]) -> None:
        """Make exactly ``routes`` hold. Raises CommandError, then nothing has changed."""
        run(["nft", "--file", "-"], stdin=render(routes))

    def remove(self) -> None:
        """Take the whole table away; none there is no error."""
        run(["nft", "delete", "table", "ip", TABLE], check=False)

    def guarded(self) -> AbstractContextManager[None]:
        """A context in which no other deploy of this host changes the map."""
        return lock.waited(LOCK)
