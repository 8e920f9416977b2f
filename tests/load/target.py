# SPDX-License-Identifier: Apache-2.0
"""Where the load goes: a URL, the address behind its name, and the authority its certificate must come from."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

from .model import Failure

CONNECT_SECONDS = 10.0
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True)
class Target:
    """``address`` stands in for DNS (curl's --resolve); ``ca`` is a PEM file, the machine's own store if None."""

    url: str
    address: str | None = None
    ca: str | None = None

    @property
    def host(self) -> str:
        """Name for the Host header, SNI and the certificate."""
        return urlsplit(self.url).hostname or ""

    @property
    def secure(self) -> bool:
        return urlsplit(self.url).scheme == "https"

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or (443 if self.secure else 80)

    @property
    def authority(self) -> str:
        """Host header: the port only where it is not the scheme's own."""
        return urlsplit(self.url).netloc

    def tls(self, alpn: list[str]) -> ssl.SSLContext | None:
        """Context that verifies chain and name, or None for plain http."""
        if not self.secure:
            return None
        context = ssl.create_default_context(cafile=self.ca)
        context.set_alpn_protocols(alpn)
        return context

    async def connect(self, alpn: str, context: ssl.SSLContext | None) -> Streams:
        """Open a connection that speaks ``alpn``; `Failure` of kind connect, tls or timeout otherwise."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                streams = await asyncio.open_connection(
                    self.address or self.host, self.port, ssl=context, server_hostname=self.host if context else None
                )
        except TimeoutError as error:
            raise Failure("timeout", f"no connection in {CONNECT_SECONDS:g} s") from error
        except ssl.SSLError as error:
            raise Failure("tls", str(error)) from error
        except OSError as error:
            raise Failure("connect", str(error)) from error
        if context is not None:
            agreed = streams[1].get_extra_info("ssl_object").selected_alpn_protocol()
            # Servers that know no ALPN speak HTTP/1.1; anything else must be agreed.
            if agreed != alpn and not (agreed is None and alpn == "http/1.1"):
                streams[1].close()
                raise Failure("tls", f"asked for {alpn}, the server agreed to {agreed}")
        return streams
