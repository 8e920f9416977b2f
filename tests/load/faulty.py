# SPDX-License-Identifier: Apache-2.0
"""A stand-in for the notes application that misbehaves on purpose: proof that the client sees each kind of failure.

`FaultyServer` speaks HTTP/1.1, or HTTP/2 when given a TLS context. ``behaviour`` is asked for each request, by
number, what to do with it: one of `BEHAVIOURS`.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import Callable
from typing import Any

BEHAVIOURS = (
    "answer",  # as the application would
    "close",  # end the connection without a word
    "reset",  # TCP RST
    "half",  # headers and half of the body, then the end
    "hang",  # never answer
    "error",  # status 500
    "forget",  # acknowledge a note without storing it
    "other",  # somebody else's note
    "garbage",  # not HTTP
    "answer_then_close",  # answer well, then close the idle connection
    "stream_reset",  # HTTP/2: RST_STREAM
    "goaway_refuse",  # HTTP/2: GOAWAY that leaves this stream out
    "goaway_answer",  # HTTP/2: GOAWAY, then the answer still
)
Behaviour = Callable[[int], str]


class FaultyServer:
    """Async context manager; ``stored`` maps note ids to deliveries, ``requests`` counts all that arrived."""

    def __init__(self, behaviour: Behaviour, context: ssl.SSLContext | None = None) -> None:
        self._behaviour = behaviour
        self._context = context
        self._server: asyncio.Server | None = None
        self._handlers: set[asyncio.Task[None]] = set()
        self.stored: dict[str, int] = {}
        self.requests = 0
        self.port = 0

    async def __aenter__(self) -> FaultyServer:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server:
            self._server.close()
        for task in self._handlers:
            task.cancel()
        await asyncio.gather(*self._handlers, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task:
            self._handlers.add(task)
        agreed = writer.get_extra_info("ssl_object")
        try:
            if agreed and agreed.selected_alpn_protocol() == "h2":
                await _Http2Side(self, reader, writer).serve()
            else:
                await self._serve_http1(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def next_behaviour(self) -> str:
        """What to do with the request that has just arrived."""
        self.requests += 1
        return self._behaviour(self.requests)

    def respond(self, behaviour: str, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """Status and body, storing the note unless the behaviour forgets it."""
        if behaviour == "error":
            return 500, b"broken on purpose"
        note = str(json.loads(body)["id"]) if method == "POST" else path.rsplit("/", 1)[1]
        if method == "POST" and behaviour != "forget":
            self.stored[note] = self.stored.get(note, 0) + 1
        if behaviour == "other":
            note = "00000000-0000-4000-8000-000000000000"
        return 201 if method == "POST" else 200, json.dumps({"id": note}).encode()

    async def _serve_http1(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            method, path, _ = head[0].split(" ")
            headers = {line.split(":")[0].lower(): line.split(":", 1)[1].strip() for line in head[1:] if line}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            behaviour = self.next_behaviour()
            if behaviour == "close":
                return
            if behaviour == "reset":
                reset(writer)
                return
            if behaviour == "hang":
                await asyncio.Event().wait()
            if behaviour == "garbage":
                writer.write(b"SSH-2.0-OpenSSH_10.0\r\n\r\n")
                return
            status, answer = self.respond(behaviour, method, path, body)
            whole = f"HTTP/1.1 {status} X\r\nX-Release: r1\r\nContent-Length: {len(answer)}\r\n\r\n".encode() + answer
            writer.write(whole[: -len(answer) // 2] if behaviour == "half" else whole)
            await writer.drain()
            if behaviour in {"half", "answer_then_close"}:
                return


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection by RST instead of FIN."""
    raw: socket.socket = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class _Http2Side:
    def __init__(self, server: FaultyServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        import h2.config
        import h2.connection

        self._server, self._reader, self._writer = server, reader, writer
        self._h2: Any = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, header_encoding="utf-8", validate_outbound_headers=False)
        )
        self._requests: dict[int, tuple[dict[str, str], bytearray]] = {}

    async def serve(self) -> None:
        import h2.events

        self._h2.initiate_connection()
        self._flush()
        while data := await self._reader.read(65536):
            for event in self._h2.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    self._requests[event.stream_id] = (
                        {str(name): str(text) for name, text in event.headers or []},
                        bytearray(),
                    )
                elif isinstance(event, h2.events.DataReceived):
                    self._requests[event.stream_id][1].extend(event.data or b"")
                elif isinstance(event, h2.events.StreamEnded) and not self._act(event.stream_id):
                    return
            self._flush()

    def _act(self, number: int) -> bool:
        """Do as told with one whole request; False ends the connection."""
        headers, body = self._requests.pop(number)
        behaviour = self._server.next_behaviour()
        if behaviour == "hang":
            return True
        if behaviour == "close":
            return False
        if behaviour == "reset":
            reset(self._writer)
            return False
        if behaviour == "stream_reset":
            self._h2.reset_stream(number, 2)
            return True
        if behaviour == "goaway_refuse":
            self._goaway(number - 1)
            self._flush()
            return False
        status, answer = self._server.respond(behaviour, headers[":method"], headers[":path"], bytes(body))
        if behaviour == "goaway_answer":
            self._goaway(number)
        self._h2.send_headers(number, [(":status", str(status)), ("x-release", "r1")])
        self._h2.send_data(number, answer[: len(answer) // 2] if behaviour == "half" else answer, behaviour != "half")
        self._flush()
        return behaviour not in {"half", "answer_then_close", "goaway_answer"}

    def _goaway(self, last: int) -> None:
        # Written as raw bytes: h2 would count its own side as closed, and refuse to answer what it let through.
        self._flush()
        self._writer.write(b"\x00\x00\x08\x07\x00\x00\x00\x00\x00" + struct.pack(">II", last, 0))

    def _flush(self) -> None:
        if data := self._h2.data_to_send():
            self._writer.write(data)
