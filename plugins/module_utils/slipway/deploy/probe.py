# SPDX-License-Identifier: Apache-2.0
"""Looking at a container from its host: does it answer over HTTP, and which connections does it hold."""

from __future__ import annotations

import http.client
import socket
from dataclasses import dataclass
from pathlib import Path

ESTABLISHED, FIN_WAIT1, CLOSE_WAIT = 0x01, 0x04, 0x08
_MAPPED, _LOOPBACK = "0" * 16 + "FFFF0000", "0" * 24 + "01000000"
BUSY_STATES = frozenset({ESTABLISHED, FIN_WAIT1, CLOSE_WAIT})
"""Open, or with bytes still on their way out, or left by the client while the app is still at work."""


@dataclass(frozen=True)
class Answer:
    """What a probe got: the HTTP status (0 when none), words for a person, and the local port it came from."""

    status: int
    said: str
    local_port: int = 0

    @property
    def good(self) -> bool:
        """A 2xx status."""
        return 200 <= self.status < 300


@dataclass(frozen=True)
class Connection:
    """One TCP connection of a container, seen from inside: its own port, the peer's port, and whether it is loopback."""

    port: int
    peer_port: int
    loopback: bool
    state: int


def parse_tcp(text: str) -> list[Connection]:
    """``/proc/<pid>/net/tcp`` or ``tcp6`` as connections."""
    found = []
    for line in text.splitlines()[1:]:
        words = line.split()
        if len(words) < 4:
            continue
        _, port = words[1].rsplit(":", 1)
        peer, peer_port = words[2].rsplit(":", 1)
        # Hexadecimal, little-endian by words of four bytes: 127.0.0.1 ends in 7F, also when mapped into IPv6.
        mapped = len(peer) == 8 or peer.startswith(_MAPPED)
        loopback = peer[-2:] == "7F" if mapped else peer == _LOOPBACK
        found.append(Connection(int(port, 16), int(peer_port, 16), loopback, int(words[3], 16)))
    return found


class Probe:
    """The network of this host."""

    def get(self, address: str, port: int, path: str, *, host: str, timeout: float) -> Answer:
        """GET ``path``, as the proxy would send it for ``host``. Never raises: no answer is an answer."""
        client = http.client.HTTPConnection(address, port, timeout=timeout)
        try:
            client.connect()
            local_port = int(client.sock.getsockname()[1])
            headers = {
                "Host": host or address,
                "X-Forwarded-Proto": "https",
                "User-Agent": "slipway",
                "Connection": "close",
            }
            client.request("GET", path, headers=headers)
            reply = client.getresponse()
            body = reply.read(300).decode("utf-8", "replace").strip()
            first = body.splitlines()[0][:160] if body else ""
            said = f"status {reply.status}" + (f" ({first})" if first and reply.status >= 300 else "")
            return Answer(reply.status, said, local_port)
        except ConnectionRefusedError:
            return Answer(0, f"connection refused on port {port}")
        except TimeoutError:
            return Answer(0, f"no answer within {timeout:g} s")
        except (OSError, http.client.HTTPException) as error:
            return Answer(0, str(error) or type(error).__name__)
        finally:
            client.close()

    def owner(self, address: str, port: int, pids: dict[str, tuple[int, int]], *, timeout: float) -> str:
        """Which of ``pids`` (name -> process id and the port it serves) takes a new connection; empty when none does.

        Asked of the kernel, not of the app: the connection must show up in that container's own table.
        """
        try:
            with socket.create_connection((address, port), timeout=timeout) as sock:
                mine = int(sock.getsockname()[1])
                for name, (pid, inside) in pids.items():
                    if any(c.peer_port == mine and c.port == inside for c in self.connections(pid)):
                        return name
        except OSError:
            return ""
        return ""

    def connections(self, pid: int) -> list[Connection]:
        """The TCP connections in the network of process ``pid``; none when it is gone."""
        found: list[Connection] = []
        for family in ("tcp", "tcp6"):
            try:
                found += parse_tcp(Path(f"/proc/{pid}/net/{family}").read_text(encoding="ascii"))
            except OSError:
                continue
        return found

    def busy(self, pid: int, port: int) -> int:
        """How many connections from outside the container are at work on its ``port``."""
        return sum(c.port == port and c.state in BUSY_STATES and not c.loopback for c in self.connections(pid))
