# SPDX-License-Identifier: Apache-2.0
"""The watched window: what is counted, what condemns a release and what does not, and reading a log that rotates."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slipway.deploy.spec import Watch
from slipway.deploy.watch import Figures, Hit, LogTail, Window, container_verdict, figures, parse_hit, verdict

WATCH = Watch()
GOOD = Figures(1000, 0, 50)


def line(at: float, status: int = 200, seconds: float = 0.01) -> str:
    """A line as Caddy writes it."""
    request = {"host": "notes.example.com", "uri": "/"}
    return json.dumps({"level": "info", "ts": at, "request": request, "duration": seconds, "status": status}) + "\n"


def test_a_line_of_the_access_log_is_a_hit() -> None:
    assert parse_hit(line(5, 503, 0.25)) == Hit(5, 503, 0.25)


@pytest.mark.parametrize("text", ["", "{", "not json", "[]", '{"ts": 1}', line(1, 101), line(1, 499), line(1, 0)])
def test_what_is_no_answer_counts_as_nothing(text: str) -> None:
    assert parse_hit(text) is None


@pytest.mark.parametrize(
    ("now", "before", "bad"),
    [
        (Figures(100, 50, 50), GOOD, True),
        (Figures(100, 4, 50), GOOD, False),  # below the threshold
        (Figures(19, 19, 50), GOOD, False),  # too few to say anything
        (Figures(100, 50, 50), Figures(1000, 400, 50), False),  # it was nearly as bad before
        (Figures(100, 0, 1500), GOOD, True),
        (Figures(100, 0, 900), GOOD, False),
        (Figures(100, 0, 1500), Figures(1000, 0, 1200), False),  # an app that was slow already
        (Figures(100, 50, 50), Figures(), True),  # nobody came before
    ],
)
def test_verdict(now: Figures, before: Figures, bad: bool) -> None:
    assert bool(verdict(WATCH, now, before)) is bad


def test_verdict_gives_the_figures() -> None:
    assert verdict(WATCH, Figures(40, 10, 0), GOOD).startswith(
        "10 of 40 requests were answered with an error (25%; allowed are 5%"
    )


@pytest.mark.parametrize(("running", "restarts", "down", "bad"), [
    (True, 0, 0, False), (True, 1, 0, False), (True, 2, 0, True), (False, 0, 5, False), (False, 0, 11, True),
])  # fmt: skip
def test_container_verdict(running: bool, restarts: int, down: float, bad: bool) -> None:
    assert bool(container_verdict(WATCH, running, restarts, down)) is bad


@given(st.lists(st.floats(0.001, 9.9), min_size=1, max_size=300))
def test_percentile_is_within_two_percent_of_the_exact_one(seconds: list[float]) -> None:
    exact = sorted(seconds)[-(-95 * len(seconds) // 100) - 1] * 1000
    assert exact * 0.999 <= figures(Hit(0, 200, one) for one in seconds).p95_ms <= exact * 1.021


def test_streams_and_downloads_say_nothing_of_speed() -> None:
    assert figures([Hit(0, 200, 0.05)] * 50 + [Hit(0, 200, 60.0)] * 50).p95_ms < 60


def test_a_late_fault_does_not_drown_in_a_good_start() -> None:
    window = Window(WATCH, GOOD, 0)
    window.add([Hit(1 + index / 100, 200, 0.01) for index in range(50_000)], 501)
    assert window.verdict() == ""
    window.add([Hit(800, 500, 0.01)] * 30, 801)
    assert "30 of 30" in window.verdict()


def test_requests_that_began_before_the_switch_belong_to_the_old_release() -> None:
    window = Window(WATCH, GOOD, 100)
    window.add([Hit(105, 500, 8)] * 50, 106)
    assert window.verdict() == ""


def test_log_is_read_from_where_it_stands_and_across_a_rotation(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    log.write_text(line(1) + line(2))
    tail = LogTail(log)
    assert [hit.at for hit in tail.recent()] == [1, 2]
    assert tail.fresh() == []
    with log.open("a") as stream:
        stream.write(line(3) + line(4)[:20])
    assert [hit.at for hit in tail.fresh()] == [3]
    with log.open("a") as stream:
        stream.write(line(4)[20:])
    assert [hit.at for hit in tail.fresh()] == [4]
    log.rename(tmp_path / "access-old.log")
    assert tail.fresh() == []
    log.write_text(line(5))
    assert [hit.at for hit in tail.fresh()] == [5]


def test_missing_log_is_an_empty_one(tmp_path: Path) -> None:
    tail = LogTail(tmp_path / "none.log")
    assert tail.recent() == tail.fresh() == []
