# SPDX-License-Identifier: Apache-2.0
"""What the client records: responses, failures, the ledger of writes, the report."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

SLOWEST = 20  # how many of the slowest requests a report names


class Failure(Exception):
    """A request that did not get its answer. ``kind`` is one word for counting, ``detail`` for people.

    Kinds: connect, tls, timeout, reset, closed, stream_reset, goaway, malformed, http_<status>, wrong_answer.
    """

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind = kind
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Response:
    """A whole response; header names in lower case. ``sent`` is when its request was really sent (epoch seconds)."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    sent: float


@dataclass(frozen=True, slots=True)
class Failed:
    """One failed request, as the report keeps it. ``at`` is seconds since the epoch of its scheduled start."""

    at: float
    protocol: str
    method: str
    path: str
    kind: str
    detail: str


@dataclass(frozen=True, slots=True)
class SlowRequest:
    """A long request kept in flight. ``error`` is empty when it completed."""

    started: float
    seconds: float
    protocol: str
    release: str
    error: str


@dataclass(frozen=True, slots=True)
class Socket:
    """A WebSocket's life. ``ended_by`` is ``us`` (the run was over), ``server`` or ``failure``; times since the epoch."""

    opened: float
    closed: float
    release: str
    ticks: int
    largest_gap: float
    ended_by: str
    detail: str

    @property
    def seconds(self) -> float:
        return self.closed - self.opened


@dataclass(frozen=True, slots=True)
class Switch:
    """``release`` was first heard at ``at`` (epoch seconds), so the switch was no later; the first release counts too."""

    at: float
    release: str


@dataclass(frozen=True, slots=True, order=True)
class Slowest:
    """One of the requests that took longest: ``ms`` from its scheduled start ``at``, of which ``queued_ms`` in the client."""

    ms: float
    at: float
    queued_ms: float
    protocol: str
    method: str
    path: str
    release: str


@dataclass(slots=True)
class Second:
    """One second of the run: counts by scheduled start, worst latency in ms."""

    ok: int = 0
    failed: int = 0
    worst_ms: float = 0.0


@dataclass(slots=True)
class Report:
    """Everything one run saw. Latencies in ms from the *scheduled* start, so that waiting counts."""

    ledger: str
    planned: int = 0
    sent: int = 0
    ok: int = 0
    started: float = 0.0
    seconds: float = 0.0
    largest_lag_ms: float = 0.0
    failed: list[Failed] = field(default_factory=list)
    by_protocol: dict[str, int] = field(default_factory=dict)
    connections: dict[str, int] = field(default_factory=dict)
    latencies: list[float] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)
    unacknowledged: list[str] = field(default_factory=list)
    releases: dict[str, int] = field(default_factory=dict)
    slowest: list[Slowest] = field(default_factory=list)
    switches: list[Switch] = field(default_factory=list)
    slow: list[SlowRequest] = field(default_factory=list)
    sockets: list[Socket] = field(default_factory=list)
    timeline: dict[int, Second] = field(default_factory=dict)

    @property
    def kinds(self) -> dict[str, int]:
        """Failures counted by protocol and kind."""
        return dict(Counter(f"{one.protocol} {one.kind}" for one in self.failed))

    @property
    def slow_failed(self) -> list[SlowRequest]:
        return [one for one in self.slow if one.error]

    @property
    def clean(self) -> bool:
        """Nothing failed, and every planned request really was sent and answered. An empty run is not clean."""
        return (
            self.planned > 0
            and self.planned == self.sent == self.ok
            and not self.failed
            and not self.slow_failed
            and not any(one.ended_by == "failure" for one in self.sockets)
        )

    def took(self, one: Slowest) -> None:
        """Keep the slowest few, slowest first."""
        if len(self.slowest) < SLOWEST or one.ms > self.slowest[-1].ms:
            self.slowest = sorted([*self.slowest, one], reverse=True)[:SLOWEST]

    def saw(self, release: str, sent: float, received: float) -> None:
        """Note which release gave an answer. Old answers that come late are no switch back.

        What is sent after the new release was heard can only reach the new one, whatever queues there are on the way.
        """
        self.releases[release] = self.releases.get(release, 0) + 1
        last = self.switches[-1] if self.switches else None
        if last is None or (release != last.release and sent > last.at):
            self.switches.append(Switch(received, release))

    def percentile(self, share: float) -> float:
        """Latency in ms below which ``share`` (0 to 1) of the answered requests stayed; NaN when there were none."""
        return percentile(self.latencies, share)

    def between(self, start: float, end: float) -> dict[str, float]:
        """Counts and worst latency of the seconds that began in [start, end), epoch seconds."""
        part = [second for at, second in self.timeline.items() if start <= at < end]
        return {
            "ok": sum(one.ok for one in part),
            "failed": sum(one.failed for one in part),
            "worst_ms": max((one.worst_ms for one in part), default=0.0),
        }

    def summary(self) -> dict[str, Any]:
        """The figures without the long lists; JSON-safe."""
        return {
            "planned": self.planned,
            "sent": self.sent,
            "ok": self.ok,
            "failed": len(self.failed),
            "kinds": self.kinds,
            "by_protocol": self.by_protocol,
            "connections": self.connections,
            "seconds": round(self.seconds, 1),
            "rate": round(self.ok / self.seconds, 1) if self.seconds else 0.0,
            "latency_ms": {
                name: None if math.isnan(value) else round(value, 1)
                for name, value in (
                    ("p50", self.percentile(0.5)),
                    ("p95", self.percentile(0.95)),
                    ("p99", self.percentile(0.99)),
                    ("max", self.percentile(1.0)),
                )
            },
            "largest_lag_ms": round(self.largest_lag_ms, 1),
            "posts_acknowledged": len(self.acknowledged),
            "posts_unacknowledged": len(self.unacknowledged),
            "releases": self.releases,
            "switches": max(0, len(self.switches) - 1),
            "slow": {"completed": len(self.slow) - len(self.slow_failed), "failed": len(self.slow_failed)},
            "websockets": [
                {"seconds": round(one.seconds, 1), "ticks": one.ticks, "release": one.release, "ended_by": one.ended_by}
                for one in self.sockets
            ],
            "clean": self.clean,
        }

    def to_json(self) -> str:
        """Everything, summary included."""
        return json.dumps({**asdict(self), "summary": self.summary()})

    @classmethod
    def from_json(cls, text: str) -> Report:
        """The report that `to_json` wrote."""
        data = json.loads(text)
        data.pop("summary", None)
        data["failed"] = [Failed(**one) for one in data["failed"]]
        data["slow"] = [SlowRequest(**one) for one in data["slow"]]
        data["sockets"] = [Socket(**one) for one in data["sockets"]]
        data["slowest"] = [Slowest(**one) for one in data["slowest"]]
        data["switches"] = [Switch(**one) for one in data["switches"]]
        data["timeline"] = {int(at): Second(**one) for at, one in data["timeline"].items()}
        return cls(**data)


def percentile(values: Iterable[float], share: float) -> float:
    """Nearest-rank percentile; NaN for no values."""
    ordered = sorted(values)
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """The ledger against the database. ``lost``: acknowledged, absent. ``duplicated``: delivered more than once.

    ``unanswered`` were stored though their client never heard so: not a loss, but each is a failed request too.
    """

    acknowledged: int
    stored: int
    lost: list[str]
    duplicated: list[str]
    unanswered: list[str]


def reconcile(report: Report, stored: Mapping[str, int]) -> Reconciliation:
    """Compare what was acknowledged with ``stored`` (id -> deliveries), as `parse_ledger` reads it."""
    acknowledged = set(report.acknowledged)
    return Reconciliation(
        acknowledged=len(acknowledged),
        stored=len(stored),
        lost=sorted(acknowledged - stored.keys()),
        duplicated=sorted(one for one, deliveries in stored.items() if deliveries > 1),
        unanswered=sorted(stored.keys() - acknowledged),
    )


def ledger_query(ledger: str) -> str:
    """SQL for `psql -At` that lists the notes of one run as ``id|deliveries``. The ledger is the ids' first 8 digits."""
    if len(ledger) != 8 or set(ledger) - set("0123456789abcdef"):
        raise ValueError(f"a ledger is 8 hexadecimal digits, not {ledger!r}")
    low, high = f"{ledger}-0000-0000-0000-000000000000", f"{ledger}-ffff-ffff-ffff-ffffffffffff"
    return f"SELECT id, deliveries FROM notes WHERE id BETWEEN '{low}' AND '{high}'"  # noqa: S608 - digits, checked


def parse_ledger(output: str) -> dict[str, int]:
    """What `ledger_query` printed."""
    return {line.split("|")[0]: int(line.split("|")[1]) for line in output.splitlines() if line.strip()}
