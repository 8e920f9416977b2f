# SPDX-License-Identifier: Apache-2.0
"""What stays open during the load: slow requests and WebSockets."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any, Protocol

from .model import Failure, Response, SlowRequest, Socket
from .target import Target

SLOW_ALLOWANCE = 30.0
RECONNECT_SECONDS = 0.5


class Client(Protocol):
    """What a request can be sent through."""

    protocol: str
    opened: int

    async def request(self, method: str, path: str, headers: Any = None, body: bytes = b"") -> Response: ...

    async def close(self) -> None: ...


async def slow_request(client: Client, seconds: float) -> SlowRequest:
    """One ``/slow`` request; never raises a `Failure`, it is in the result."""
    started, wall = time.monotonic(), time.time()
    release, error = "", ""
    try:
        async with asyncio.timeout(seconds + SLOW_ALLOWANCE):
            response = await client.request("GET", f"/slow?seconds={seconds:g}")
        body = json.loads(response.body) if response.status == 200 else {}
        release = str(body.get("release", ""))
        if response.status != 200:
            error = f"http_{response.status}"
        elif body.get("slept") != seconds or time.monotonic() - started < seconds:
            error = f"answered after {time.monotonic() - started:.1f} s instead of {seconds:g}"
    except TimeoutError:
        error = f"timeout: no answer in {seconds + SLOW_ALLOWANCE:g} s"
    except Failure as failure:
        error = str(failure)
    except ValueError as bad:
        error = f"wrong_answer: {bad}"
    return SlowRequest(wall, time.monotonic() - started, client.protocol, release, error)


async def hold_websocket(target: Target, over: asyncio.Event, record: Callable[[Socket], None]) -> None:
    """Keep a WebSocket to ``/ws`` open until ``over``; when the server closes it, record its life and open the next."""
    context = target.tls(["http/1.1"])
    while not over.is_set():
        record(await _one_life(target, context, over))
        if not over.is_set():
            await asyncio.sleep(RECONNECT_SECONDS)


async def _one_life(target: Target, context: Any, over: asyncio.Event) -> Socket:
    import websockets
    from websockets.asyncio.client import connect

    opened = last = time.time()
    ticks, gap, release = 0, 0.0, ""
    ended_by, detail = "failure", ""
    url = f"{'wss' if target.secure else 'ws'}://{target.authority}/ws"
    try:
        async with connect(
            url, host=target.address or target.host, port=target.port, ssl=context, compression=None, proxy=None
        ) as socket:
            closer = asyncio.create_task(_close_when(over, socket))
            try:
                async for text in socket:
                    message = json.loads(text)
                    now = time.time()
                    ticks, gap, last, release = ticks + 1, max(gap, now - last), now, message.get("release", release)
            finally:
                closer.cancel()
            ended_by = "us" if over.is_set() else "server"
            detail = f"code {socket.close_code} {socket.close_reason}".strip()
    except websockets.ConnectionClosed as closed:
        # A close frame of any code is the server's word; a connection without one was cut.
        ended_by = "us" if over.is_set() else "server" if closed.rcvd else "failure"
        detail = str(closed)
    except (websockets.WebSocketException, OSError, TimeoutError, ValueError) as error:
        detail = f"{type(error).__name__}: {error}"
    return Socket(opened, time.time(), release, ticks, gap, ended_by, detail)


async def _close_when(over: asyncio.Event, socket: Any) -> None:
    await over.wait()
    await socket.close()
