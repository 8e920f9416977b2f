# SPDX-License-Identifier: Apache-2.0
"""HTTP/2 by h2 over asyncio streams. No retry, though the protocol would allow it for some streams."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .model import Failure, Response
from .target import Target

ALPN = "h2"


class Http2Client:
    """``connections`` connections in turn, many streams on each; a new one is opened when the server ends one."""

    protocol = "HTTP/2"

    def __init__(self, target: Target, connections: int = 2) -> None:
        if not target.secure:
            raise ValueError("HTTP/2 needs https: without TLS there is nothing to agree it by")
        self._target = target
        self._context = target.tls([ALPN])
        self._slots: list[_Connection | None] = [None] * connections
        self._locks = [asyncio.Lock() for _ in range(connections)]
        self._turn = 0
        self.opened = 0

    async def request(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Response:
        """One exchange; `Failure` when it did not complete."""
        slot = self._turn = (self._turn + 1) % len(self._slots)
        async with self._locks[slot]:
            connection = self._slots[slot]
            if connection is None or not connection.usable:
                connection = self._slots[slot] = await self._open()
        return await connection.exchange(method, path, self._target.authority, headers or {}, body)

    async def close(self) -> None:
        """Close every connection."""
        for connection in self._slots:
            if connection is not None:
                connection.close()

    async def _open(self) -> _Connection:
        reader, writer = await self._target.connect(ALPN, self._context)
        self.opened += 1
        return _Connection(reader, writer)


@dataclass(slots=True)
class _Stream:
    done: asyncio.Future[None]
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)


def _protocol() -> Any:
    """An h2 connection that goes on receiving after GOAWAY, as RFC 9113 (6.8) has it.

    h2 itself counts the connection as closed there, and would make failures out of answers still on their way.
    """
    import h2.config
    import h2.connection
    import h2.events

    class Patient(h2.connection.H2Connection):
        def _receive_goaway_frame(self, frame: Any) -> tuple[list[Any], list[Any]]:
            event = h2.events.ConnectionTerminated()
            event.error_code, event.last_stream_id = frame.error_code, frame.last_stream_id
            return [], [event]

    return Patient(h2.config.H2Configuration(header_encoding="utf-8"))


class _Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._h2: Any = _protocol()
        self._streams: dict[int, _Stream] = {}
        self.usable = True
        self._h2.initiate_connection()
        self._flush()
        self._task = asyncio.create_task(self._receive())

    def close(self) -> None:
        self.usable = False
        self._task.cancel()
        self._writer.close()

    async def exchange(
        self, method: str, path: str, authority: str, headers: Mapping[str, str], body: bytes
    ) -> Response:
        import h2.exceptions

        try:
            number = self._h2.get_next_available_stream_id()
            fields = [(":method", method), (":path", path), (":scheme", "https"), (":authority", authority)]
            fields += [(name.lower(), text) for name, text in headers.items()]
            self._h2.send_headers(number, fields, end_stream=not body)
            stream = self._streams[number] = _Stream(asyncio.get_running_loop().create_future())
            if body:
                # Bodies here are far below the smallest window, so flow control needs no waiting.
                self._h2.send_data(number, body, end_stream=True)
        except h2.exceptions.H2Error as error:
            raise Failure("malformed", f"{type(error).__name__}: {error}") from error
        sent = time.time()
        self._flush()
        try:
            await stream.done
        finally:
            self._streams.pop(number, None)
        return Response(int(stream.headers.pop(":status")), stream.headers, bytes(stream.body), sent)

    def _flush(self) -> None:
        if data := self._h2.data_to_send():
            self._writer.write(data)

    async def _receive(self) -> None:
        import h2.exceptions

        ending = Failure("closed", "connection closed with the request in flight")
        try:
            while data := await self._reader.read(65536):
                for event in self._h2.receive_data(data):
                    self._handle(event)
                self._flush()
        except ssl.SSLError as error:
            ending = Failure("tls", str(error))
        except OSError as error:
            ending = Failure("reset", str(error))
        except (h2.exceptions.H2Error, ValueError) as error:
            ending = Failure("malformed", f"{type(error).__name__}: {error}")
        finally:
            self.usable = False
            for number in list(self._streams):
                self._fail(number, ending)
            self._writer.close()

    def _handle(self, event: Any) -> None:
        import h2.events

        stream = self._streams.get(getattr(event, "stream_id", None) or 0)
        if isinstance(event, h2.events.ResponseReceived) and stream:
            stream.headers.update((str(name), str(text)) for name, text in event.headers)
        elif isinstance(event, h2.events.DataReceived):
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if stream:
                stream.body += event.data
        elif isinstance(event, h2.events.StreamEnded) and stream and not stream.done.done():
            stream.done.set_result(None)
        elif isinstance(event, h2.events.StreamReset):
            self._fail(event.stream_id, Failure("stream_reset", f"error code {event.error_code}"))
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.usable = False
            last = event.last_stream_id or 0
            for number in [number for number in self._streams if number > last]:
                self._fail(number, Failure("goaway", f"error code {event.error_code}, last stream {last}"))

    def _fail(self, number: int, failure: Failure) -> None:
        stream = self._streams.get(number)
        if stream and not stream.done.done():
            stream.done.set_exception(failure)
