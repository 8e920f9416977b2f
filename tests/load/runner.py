# SPDX-License-Identifier: Apache-2.0
"""The run itself: a fixed rate, whatever the server does."""

from __future__ import annotations

import asyncio
import json
import random
import time
import uuid
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from . import probes
from .http1 import Http1Client
from .http2 import Http2Client
from .model import Failed, Failure, Report, Response, Second, Slowest
from .target import Target

REQUEST_SECONDS = 30.0
CLIENTS = {"http/1.1": Http1Client, "h2": Http2Client}
READ_BACK = 2000  # GETs read back one of the newest so many acknowledged notes
PAGES = 0.1  # share of GETs that ask for the page instead


@dataclass(frozen=True, slots=True)
class Plan:
    """What to send. ``rate`` is requests/s over all protocols; ``seconds`` None runs until stopped.

    ``connections`` is the most that HTTP/1.1 opens, ``h2_connections`` what HTTP/2 keeps. The first must be ample: with
    few, a stall of the server would be followed by a queue in the client. ``slow_every`` seconds a request of
    ``slow_seconds`` is started through each protocol (0: none).
    """

    rate: float = 200.0
    seconds: float | None = 60.0
    protocols: tuple[str, ...] = ("http/1.1", "h2")
    posts: float = 0.5
    connections: int = 400
    h2_connections: int = 8
    slow_every: float = 0.0
    slow_seconds: float = 20.0
    websockets: int = 0


@dataclass(frozen=True, slots=True)
class _Request:
    at: float
    method: str
    path: str
    note: str
    headers: dict[str, str]
    body: bytes


class Load:
    """One run of a plan against a target. `stop` ends it early: nothing new is sent, what is in flight is awaited."""

    def __init__(self, target: Target, plan: Plan | None = None) -> None:
        self._target = target
        self._plan = plan or Plan()
        self._stop = asyncio.Event()
        self._over = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._choice = random.Random(0)
        self.report = Report(ledger=uuid.uuid4().hex[:8])

    def stop(self) -> None:
        """Send nothing new from now on."""
        self._stop.set()

    async def run(self) -> Report:
        """Run to the end of the plan, or until `stop`."""
        most = {"http/1.1": self._plan.connections, "h2": self._plan.h2_connections}
        clients: list[Any] = [CLIENTS[name](self._target, most[name]) for name in self._plan.protocols]
        slow: list[Any] = [CLIENTS[name](self._target, 64) for name in self._plan.protocols]
        report = self.report
        report.started, begun = time.time(), time.monotonic()
        sockets = [
            asyncio.create_task(probes.hold_websocket(self._target, self._over, report.sockets.append))
            for _ in range(self._plan.websockets)
        ]
        slow_starter = asyncio.create_task(self._start_slow(slow))
        await self._send_all(clients, begun)
        report.seconds = time.monotonic() - begun
        slow_starter.cancel()
        while self._tasks:
            await asyncio.wait(self._tasks)
        self._over.set()
        await asyncio.gather(*sockets)
        for client in [*clients, *slow]:
            await client.close()
        for client in clients:
            report.connections[client.protocol] = client.opened
        return report

    async def _send_all(self, clients: list[Any], begun: float) -> None:
        number = 0
        while not self._stop.is_set():
            offset = number / self._plan.rate
            if self._plan.seconds is not None and offset >= self._plan.seconds:
                return
            due = begun + offset
            if (wait := due - time.monotonic()) > 0:
                try:
                    await asyncio.wait_for(self._stop.wait(), wait)
                except TimeoutError:
                    pass
                else:
                    return
            self.report.planned += 1
            self._spawn(self._one(clients[number % len(clients)], due))
            number += 1

    async def _start_slow(self, clients: list[Any]) -> None:
        while self._plan.slow_every:
            for client in clients:
                self._spawn(self._slow(client))
            await asyncio.sleep(self._plan.slow_every)

    async def _slow(self, client: Any) -> None:
        self.report.slow.append(await probes.slow_request(client, self._plan.slow_seconds))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _one(self, client: Any, due: float) -> None:
        """One request, from its scheduled time on. Whatever goes wrong is counted; nothing escapes."""
        report = self.report
        lag = time.monotonic() - due
        report.largest_lag_ms = max(report.largest_lag_ms, lag * 1000)
        request = self._request(time.time() - lag)
        second = report.timeline.setdefault(int(request.at), Second())
        report.sent += 1
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                response = await client.request(request.method, request.path, request.headers, request.body)
            self._check(response, request)
        except TimeoutError:
            self._failed(client, request, Failure("timeout", f"no answer in {REQUEST_SECONDS:g} s"))
        except Failure as failure:
            self._failed(client, request, failure)
        except Exception as error:  # a fault of this client must not pass for success either
            self._failed(client, request, Failure("client", f"{type(error).__name__}: {error}"))
        else:
            took = (time.monotonic() - due) * 1000
            report.ok += 1
            report.latencies.append(round(took, 2))
            report.by_protocol[client.protocol] = report.by_protocol.get(client.protocol, 0) + 1
            second.ok += 1
            second.worst_ms = max(second.worst_ms, round(took, 1))
            queued = round((response.sent - request.at) * 1000, 1)
            release = response.headers.get("x-release", "")
            report.took(
                Slowest(round(took, 1), request.at, queued, client.protocol, request.method, request.path, release)
            )
            if request.method == "POST":
                report.acknowledged.append(request.note)

    def _request(self, at: float) -> _Request:
        written = self.report.acknowledged
        if self._choice.random() < self._plan.posts:
            note = self.report.ledger + str(uuid.uuid4())[8:]
            body = json.dumps({"id": note, "text": f"load {self.report.ledger}"}).encode()
            return _Request(at, "POST", "/api/notes", note, {"Content-Type": "application/json"}, body)
        if not written or self._choice.random() < PAGES:
            return _Request(at, "GET", "/", "", {}, b"")
        note = written[self._choice.randrange(max(0, len(written) - READ_BACK), len(written))]
        return _Request(at, "GET", f"/api/notes/{note}", note, {}, b"")

    def _check(self, response: Response, request: _Request) -> None:
        if response.status >= 400:
            raise Failure(f"http_{response.status}", response.body[:120].decode("utf-8", "replace"))
        expected = 201 if request.method == "POST" else 200
        if response.status != expected:
            # A 200 for a POST would mean that the note was there already: somebody sent it twice.
            raise Failure("wrong_answer", f"status {response.status} instead of {expected}")
        if request.note:
            try:
                found = json.loads(response.body)["id"]
            except (ValueError, KeyError, TypeError) as error:
                raise Failure("wrong_answer", f"body {response.body[:80]!r}") from error
            if found != request.note:
                raise Failure("wrong_answer", f"note {found} instead of {request.note}")
        if release := response.headers.get("x-release"):
            self.report.saw(release, response.sent, time.time())

    def _failed(self, client: Any, request: _Request, failure: Failure) -> None:
        self.report.failed.append(
            Failed(request.at, client.protocol, request.method, request.path, failure.kind, failure.detail)
        )
        self.report.timeline.setdefault(int(request.at), Second()).failed += 1
        if request.method == "POST":
            self.report.unacknowledged.append(request.note)
