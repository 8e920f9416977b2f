# SPDX-License-Identifier: Apache-2.0
"""What stands before the application: a bound on requests at once, the request log, and the fault switch."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from .settings import Settings

log = logging.getLogger("notes.request")

QUEUE_SECONDS = 10.0
SLOW_SECONDS = 1.0
ALWAYS_ADMITTED = ("/healthz", "/readyz")


class Gate:
    """ASGI middleware. At most ``concurrency`` requests run; others wait their turn, and after 10 s get a 503."""

    def __init__(self, app: Any, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._fault = 0.0
        self._headers = [
            (b"x-release", settings.release.encode("ascii", "replace")),
            (b"x-colour", settings.colour.encode("ascii", "replace")),
        ]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] in ALWAYS_ADMITTED:
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        status = 0

        async def record(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message.setdefault("headers", [])
                message["headers"] = [*message["headers"], *self._headers]
            await send(message)

        try:
            await self._admit(scope, receive, record)
        finally:
            self._log(scope, status, time.monotonic() - started)

    async def _admit(self, scope: Any, receive: Any, send: Any) -> None:
        if self._fails():
            await _refuse(send, 500, b"FAIL_RATE is set: this request fails on purpose\n")
            return
        try:
            async with asyncio.timeout(QUEUE_SECONDS):
                await self._slots.acquire()
        except TimeoutError:
            await _refuse(send, 503, b"Busy: too many requests at once\n")
            return
        try:
            await self._app(scope, receive, send)
        finally:
            self._slots.release()

    def _fails(self) -> bool:
        # Spread evenly rather than by chance, so that a test of FAIL_RATE sees the same share every time.
        self._fault += self._settings.fail_rate
        if self._fault < 1.0:
            return False
        self._fault -= 1.0
        return True

    def _log(self, scope: Any, status: int, seconds: float) -> None:
        if status >= 500 or status == 0:
            level = logging.WARNING
        elif self._settings.access_log or (
            seconds > SLOW_SECONDS and not scope["path"].startswith(("/slow", "/stream"))
        ):
            level = logging.INFO
        else:
            return
        log.log(
            level,
            "request",
            extra={"method": scope["method"], "path": scope["path"], "status": status, "ms": round(seconds * 1000, 1)},
        )


async def _refuse(send: Any, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    if status == 503:
        headers.append((b"retry-after", b"2"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
