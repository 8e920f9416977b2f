# SPDX-License-Identifier: Apache-2.0
"""Jobs laid down over HTTPS at a steady rate while something else happens, and whether each was done, and done once.

The client never retries. A job that was acknowledged must be done; one whose answer was lost may be, once.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from .target import Target

ANSWER_SECONDS = 30.0


@dataclass
class Ledger:
    """What was asked for: ids that were acknowledged, and what failed."""

    acknowledged: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


class Enqueuer:
    """Context manager: from entering to leaving lays down ``rate`` jobs a second, each of ``seconds``."""

    def __init__(self, target: Target, *, rate: float, seconds: float = 1.0) -> None:
        self.target, self.rate, self.seconds = target, rate, seconds
        self.ledger = Ledger()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Enqueuer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(ANSWER_SECONDS + 5)

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            due += 1 / self.rate
            job = str(uuid.uuid4())
            try:
                status = self._post({"id": job, "seconds": self.seconds})
            except (OSError, http.client.HTTPException) as error:
                self.ledger.failed.append(f"{job}: {type(error).__name__}: {error}")
                continue
            if status == 201:
                self.ledger.acknowledged.append(job)
            else:
                self.ledger.failed.append(f"{job}: status {status}")

    def _post(self, body: object) -> int:
        client = _Connection(self.target)
        try:
            client.request("POST", "/api/jobs", json.dumps(body), {"Content-Type": "application/json"})
            return client.getresponse().status
        finally:
            client.close()


class _Connection(http.client.HTTPSConnection):
    """HTTPS to the target's address, under its name."""

    def __init__(self, target: Target) -> None:
        super().__init__(target.host, target.port, timeout=ANSWER_SECONDS)
        self._address = target.address or target.host
        self._context_of_target = ssl.create_default_context(cafile=target.ca)

    def connect(self) -> None:
        plain = socket.create_connection((self._address, self.port), self.timeout)
        self.sock = self._context_of_target.wrap_socket(plain, server_hostname=self.host)


@dataclass(frozen=True)
class Outcome:
    """What became of the jobs of a ledger; ``by_release`` counts those done by each release's workers.

    ``cut_off``: of all jobs that the database knows, how many beginnings came to nothing.
    """

    lost: list[str]
    repeated: list[str]
    by_release: dict[str, int]
    cut_off: int


QUERY = "SELECT id, done, coalesce(release, '') FROM notes_job"
BEGUN = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM notes_job_begun"


def outcome(ledger: Ledger, sql: Callable[[str], str], wait_seconds: float = 120) -> Outcome:
    """Wait until every acknowledged job is done (or the time is over), then compare. ``sql`` answers as ``psql -At`` does."""
    wanted, deadline = set(ledger.acknowledged), time.monotonic() + wait_seconds
    while True:
        rows = [line.split("|") for line in sql(QUERY).splitlines()]
        done = {row[0]: int(row[1]) for row in rows}
        lost = [job for job in wanted if done.get(job, 0) < 1]
        if not lost or time.monotonic() > deadline:
            break
        time.sleep(1)
    by_release: dict[str, int] = {}
    for job, count, release in rows:
        if job in wanted and int(count):
            by_release[release] = by_release.get(release, 0) + 1
    cut_off = int(sql(BEGUN)) - sum(done.values())
    return Outcome(sorted(lost), sorted(job for job in done if done[job] > 1), by_release, cut_off)
