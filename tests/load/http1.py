# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.1 with keep-alive over asyncio streams. No retry: what was sent and not answered is a failure."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass

from .model import Failure, Response
from .target import Target

ALPN = "http/1.1"


class Http1Client:
    """A pool of at most ``connections`` kept alive; a request waits when all are busy."""

    protocol = "HTTP/1.1"

    def __init__(self, target: Target, connections: int = 8) -> None:
        self._target = target
        self._context = target.tls([ALPN])
        self._places = asyncio.Semaphore(connections)
        self._idle: list[_Connection] = []
        self.opened = 0

    async def request(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Response:
        """One exchange; `Failure` when it did not complete."""
        async with self._places:
            connection = self._reusable() or await self._open()
            try:
                response = await connection.exchange(method, path, self._target.authority, headers or {}, body)
            except BaseException:
                connection.close()
                raise
            if connection.reusable:
                self._idle.append(connection)
            else:
                connection.close()
            return response

    async def close(self) -> None:
        """Close what is idle."""
        while self._idle:
            self._idle.pop().close()

    def _reusable(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            # The server may close an idle connection; noticed before anything is sent, that is no failure.
            if not connection.reader.at_eof() and connection.reader.exception() is None:
                return connection
            connection.close()
        return None

    async def _open(self) -> _Connection:
        reader, writer = await self._target.connect(ALPN, self._context)
        self.opened += 1
        return _Connection(reader, writer)


@dataclass(slots=True)
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    reusable: bool = True

    def close(self) -> None:
        self.writer.close()

    async def exchange(
        self, method: str, path: str, authority: str, headers: Mapping[str, str], body: bytes
    ) -> Response:
        lines = [
            f"{method} {path} HTTP/1.1",
            f"Host: {authority}",
            *(f"{name}: {text}" for name, text in headers.items()),
        ]
        if body or method == "POST":
            lines.append(f"Content-Length: {len(body)}")
        sent = time.time()
        try:
            self.writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
            await self.writer.drain()
            return await self._read(sent)
        except asyncio.IncompleteReadError as error:
            raise Failure("closed", "connection closed before the whole response was there") from error
        except ssl.SSLError as error:
            raise Failure("tls", str(error)) from error
        except OSError as error:
            raise Failure("reset", str(error)) from error
        except (ValueError, asyncio.LimitOverrunError) as error:
            raise Failure("malformed", str(error)) from error

    async def _read(self, sent: float) -> Response:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        version, status, *_ = head[0].split(" ")
        if version != "HTTP/1.1":
            raise ValueError(f"status line {head[0]!r}")
        headers = {}
        for line in filter(None, head[1:]):
            name, _, text = line.partition(":")
            headers[name.strip().lower()] = text.strip()
        if headers.get("connection", "").lower() == "close":
            self.reusable = False
        return Response(int(status), headers, await self._body(int(status), headers), sent)

    async def _body(self, status: int, headers: Mapping[str, str]) -> bytes:
        if status in {204, 304}:
            return b""
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return await self._chunks()
        if "content-length" in headers:
            return await self.reader.readexactly(int(headers["content-length"]))
        # Without a length the end of the connection is the end of the body, and a cut cannot be told from it.
        raise ValueError("response without a length")

    async def _chunks(self) -> bytes:
        body = b""
        while size := int((await self.reader.readuntil(b"\r\n")).split(b";")[0], 16):
            body += await self.reader.readexactly(size)
            await self.reader.readexactly(2)
        while await self.reader.readuntil(b"\r\n") != b"\r\n":
            pass
        return body
