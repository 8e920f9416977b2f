# SPDX-License-Identifier: Apache-2.0
"""What counts as in flight at a switch, and which WebSockets a switch concerns."""

from __future__ import annotations

from benchmarks.deploy import figures
from tests.load.model import Failed, Reconciliation, Report, SlowRequest, Socket, Switch
from tests.load.scenario import Phase, Run

SWITCH = Switch(100.0, "r2")


def run(**report: object) -> Run:
    made = Report(ledger="0" * 8, switches=[Switch(50.0, "r1"), SWITCH], **report)  # type: ignore[arg-type]
    return Run(30.0, made, Reconciliation(0, 0, [], [], []))


def slow(started: float, seconds: float = 20.0, error: str = "") -> SlowRequest:
    return SlowRequest(started, seconds, "HTTP/2", "r1", error)


def socket(opened: float, closed: float, release: str = "r1") -> Socket:
    return Socket(opened, closed, release, 3, 1.0, "server", "")


def test_the_first_release_seen_is_no_switch() -> None:
    assert run().switches == [SWITCH]


def test_a_slow_request_is_across_a_switch_when_it_began_before_and_ended_after() -> None:
    requests = [slow(70.0), slow(85.0), slow(99.9), slow(100.1), SlowRequest(99.95, 20.0, "HTTP/2", "r2", "")]
    assert run(slow=requests).slow_across(SWITCH) == requests[1:3]


def test_only_websockets_to_the_old_release_that_were_open_count() -> None:
    sockets = [socket(40.0, 131.0), socket(90.0, 99.0), socket(101.0, 140.0, "r2"), socket(90.0, 129.5)]
    found = run(sockets=sockets)
    assert found.sockets_across(SWITCH) == [sockets[0], sockets[3]]
    assert found.socket_seconds(SWITCH) == [31.0, 29.5]


def test_every_loss_misses_a_bound_of_the_benchmark() -> None:
    good = run(planned=1, sent=1, ok=1, latencies=[1.0], slow=[slow(90.0)], sockets=[socket(40.0, 131.0)])
    assert all(one.met for one in figures(good))
    bad = run(
        planned=2,
        sent=1,
        failed=[Failed(1.0, "HTTP/2", "GET", "/", "reset", "")],
        latencies=[1.0],
        slow=[slow(90.0, error="reset")],
        sockets=[socket(40.0, 120.0)],
    )
    bad.found = Reconciliation(2, 2, ["a"], ["b"], [])
    bad.phases["deploy"] = Phase("deploy", 1.0, 2.0, 0, "", "r1", "r2")
    assert {one.name for one in figures(bad) if not one.met} == {
        "requests failed",
        "requests planned but not sent",
        "POSTs lost",
        "POSTs stored twice",
        "of these failed",
        "WebSockets cut before the drain time was over",
    }
