# SPDX-License-Identifier: Apache-2.0
"""The watched window after a switch: is the new release worse than it may be, and worse than the old one was.

Read from the proxy's access log (JSON lines with ``ts``, ``status``, ``duration``), because that is what users saw, an
app that does not answer at all included. The judgement is pure; :class:`LogTail` reads what was appended since it last looked.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .spec import Watch

WINDOW_SECONDS = 60.0
"""Judged are the last sixty seconds and the whole time since the switch: a late fault must not drown in a good start."""
BEFORE_BYTES = 4_000_000
_STEP = math.log(1.02)
LONG_SECONDS = 10.0
"""Streams, long polls and downloads last as long as they are meant to: they say nothing of the app's speed."""


@dataclass(frozen=True)
class Hit:
    """One request: when it ended (seconds since the epoch), its status, how long it took in seconds."""

    at: float
    status: int
    seconds: float


@dataclass(frozen=True)
class Figures:
    """A number of requests as two figures: the share of 5xx, and the 95th percentile in milliseconds."""

    requests: int = 0
    errors: int = 0
    p95_ms: float = 0

    @property
    def error_rate(self) -> float:
        """Share of requests answered with 5xx, 0 to 1."""
        return self.errors / self.requests if self.requests else 0.0

    def to_dict(self) -> dict[str, Any]:
        """As plain data, rounded for people."""
        return {
            "requests": self.requests, "errors": self.errors, "error_rate": round(self.error_rate, 4),
            "p95_ms": round(self.p95_ms, 1),
        }  # fmt: skip


def parse_hit(line: str) -> Hit | None:
    """One line of the access log, or None for anything else. WebSockets (101) and what clients broke off count as nothing."""
    try:
        data = json.loads(line)
        status = int(data["status"])
        hit = Hit(float(data["ts"]), status, float(data["duration"]))
    except (ValueError, TypeError, KeyError):
        return None
    return None if status in (0, 101, 499) else hit


class Tally:
    """Hits as counters: the memory it takes does not grow with the traffic. Percentiles are exact to 2 %."""

    def __init__(self, hits: Iterable[Hit] = ()) -> None:
        self._requests, self._errors = 0, 0
        self._bins: Counter[int] = Counter()
        for hit in hits:
            self.add(hit)

    def add(self, hit: Hit) -> None:
        """Count one more."""
        self._requests += 1
        self._errors += hit.status >= 500
        if hit.seconds < LONG_SECONDS:
            self._bins[math.ceil(math.log(max(hit.seconds, 1e-6) * 1000) / _STEP)] += 1

    def figures(self) -> Figures:
        """What it comes to."""
        left, p95 = math.ceil(0.95 * self._bins.total()), 0.0
        for place in sorted(self._bins):
            left -= self._bins[place]
            if left <= 0:
                p95 = math.exp(place * _STEP)
                break
        return Figures(self._requests, self._errors, p95)


def figures(hits: Iterable[Hit]) -> Figures:
    """Count ``hits``."""
    return Tally(hits).figures()


def verdict(watch: Watch, now: Figures, before: Figures) -> str:
    """Why the new release must go, or an empty string.

    Too few requests say nothing. A figure must pass its threshold and be ``factor`` times what it was before the switch:
    an app that was slow already is not made better by a rollback.
    """
    if now.requests < watch.min_requests:
        return ""
    if now.error_rate > watch.error_rate and now.error_rate > watch.factor * before.error_rate:
        return (
            f"{now.errors} of {now.requests} requests were answered with an error ({now.error_rate:.0%}; "
            f"allowed are {watch.error_rate:.0%}, before the switch it was {before.error_rate:.0%})"
        )
    if now.p95_ms > watch.p95_ms and now.p95_ms > watch.factor * before.p95_ms:
        return (
            f"95 % of requests took up to {now.p95_ms:.0f} ms (allowed are {watch.p95_ms:.0f} ms, "
            f"before the switch it was {before.p95_ms:.0f} ms)"
        )
    return ""


def container_verdict(watch: Watch, running: bool, restarts: int, down_seconds: float) -> str:
    """Why the container's own behaviour condemns the release, or an empty string."""
    if restarts >= watch.restarts > 0:
        return f"its container died and was restarted {restarts} times"
    if not running and down_seconds > 10:
        return f"its container has not been running for {down_seconds:.0f} s"
    return ""


class LogTail:
    """Reads a growing log from where it stands, across a rotation by rename. A missing log is an empty one."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._inode, self._offset, self._rest = 0, 0, b""
        try:
            info = self.path.stat()
            self._inode, self._offset = info.st_ino, info.st_size
        except OSError:
            pass

    def recent(self) -> list[Hit]:
        """The hits already in the log, as far back as its last four megabytes reach."""
        try:
            with self.path.open("rb") as stream:
                stream.seek(max(0, self._offset - BEFORE_BYTES))
                data = stream.read(BEFORE_BYTES)
        except OSError:
            return []
        return _hits(data.splitlines())

    def fresh(self) -> list[Hit]:
        """The hits appended since the last call."""
        data = b""
        try:
            with self.path.open("rb") as stream:
                info = os.fstat(stream.fileno())
                if info.st_ino != self._inode or info.st_size < self._offset:
                    self._inode, self._offset, self._rest = info.st_ino, 0, b""
                stream.seek(self._offset)
                data = stream.read(16_000_000)
                self._offset += len(data)
        except OSError:
            return []
        *lines, self._rest = (self._rest + data).split(b"\n")
        return _hits(lines)


def _hits(lines: Iterable[bytes]) -> list[Hit]:
    found = (parse_hit(line.decode("utf-8", "replace")) for line in lines)
    return [hit for hit in found if hit is not None]


class Window:
    """The hits since the switch, judged as a whole and over the last minute."""

    def __init__(self, watch: Watch, before: Figures, since: float) -> None:
        self.watch, self.before, self.since = watch, before, since
        self._recent: deque[Hit] = deque()
        self._whole = Tally()

    def add(self, hits: Iterable[Hit], now: float) -> None:
        """Take new hits in; those that began before the switch belong to the old release."""
        for hit in hits:
            if hit.at - hit.seconds >= self.since:
                self._recent.append(hit)
                self._whole.add(hit)
        while self._recent and self._recent[0].at < now - WINDOW_SECONDS:
            self._recent.popleft()

    def figures(self) -> Figures:
        """The figures of the whole window."""
        return self._whole.figures()

    def verdict(self) -> str:
        """Why the release must go, or an empty string."""
        return verdict(self.watch, self.figures(), self.before) or verdict(
            self.watch, figures(self._recent), self.before
        )
