# SPDX-License-Identifier: Apache-2.0
"""The load client counts what goes wrong: a client that cannot see a failure proves nothing."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.load import BackgroundLoad, Load, Plan, Report, Target, ledger_query, parse_ledger, reconcile, runner
from tests.load.__main__ import main, render
from tests.load.faulty import FaultyServer
from tests.load.model import Failed, Socket, percentile

PLAN = Plan(rate=100, seconds=0.6, protocols=("http/1.1",), connections=4)
TOTAL = 60


def server_context(certificate: Path, *alpn: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.set_alpn_protocols(list(alpn))
    return context


def only(number: int, behaviour: str) -> Callable[[int], str]:
    """Misbehave on one request alone."""
    return lambda request: behaviour if request == number else "answer"


def run_http1(behaviour: Callable[[int], str], plan: Plan = PLAN) -> tuple[Report, FaultyServer]:
    async def go() -> tuple[Report, FaultyServer]:
        async with FaultyServer(behaviour) as server:
            return await Load(Target(f"http://127.0.0.1:{server.port}"), plan).run(), server

    return asyncio.run(go())


def run_http2(behaviour: Callable[[int], str], certificate: Path) -> tuple[Report, FaultyServer]:
    plan = Plan(rate=100, seconds=0.6, protocols=("h2",), h2_connections=1)

    async def go() -> tuple[Report, FaultyServer]:
        async with FaultyServer(behaviour, server_context(certificate, "h2")) as server:
            target = Target(f"https://localhost:{server.port}", "127.0.0.1", str(certificate))
            return await Load(target, plan).run(), server

    return asyncio.run(go())


def test_a_well_behaved_server_gives_a_clean_report() -> None:
    report, server = run_http1(lambda _: "answer")
    assert report.clean
    assert report.planned == report.sent == report.ok == server.requests == TOTAL
    assert reconcile(report, server.stored).lost == []
    assert set(server.stored) == set(report.acknowledged)
    assert report.releases == {"r1": TOTAL}


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        ("close", "closed"),
        ("reset", "reset"),
        ("half", "closed"),
        ("error", "http_500"),
        ("other", "wrong_answer"),
        ("garbage", "malformed"),
    ],
)
def test_one_http1_fault_is_one_failure_and_is_not_retried(behaviour: str, kind: str) -> None:
    # Request 20 of a fixed sequence; "other" only shows where an id comes back, which the sequence has there.
    report, server = run_http1(only(20, behaviour))
    assert report.kinds == {f"HTTP/1.1 {kind}": 1}
    assert not report.clean
    assert server.requests == report.sent == TOTAL
    assert report.ok == TOTAL - 1


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        ("stream_reset", "stream_reset"),
        ("goaway_refuse", "goaway"),
        ("close", "closed"),
        ("error", "http_500"),
        ("half", "closed"),
    ],
)
def test_one_http2_fault_is_seen_and_is_not_retried(behaviour: str, kind: str, certificate: Path) -> None:
    report, server = run_http2(only(20, behaviour), certificate)
    assert report.kinds.get(f"HTTP/2 {kind}", 0) >= 1
    assert not report.clean
    # Streams that shared the connection may fall with it, but none is sent twice.
    assert server.requests <= report.sent == TOTAL
    assert report.ok + len(report.failed) == TOTAL


def test_an_http2_reset_of_the_connection_is_a_failure(certificate: Path) -> None:
    report, _ = run_http2(only(20, "reset"), certificate)
    assert sum(report.kinds.values()) >= 1
    assert set(report.kinds) <= {"HTTP/2 reset", "HTTP/2 closed", "HTTP/2 tls"}


def test_an_answer_after_goaway_counts_and_the_next_request_takes_a_new_connection(certificate: Path) -> None:
    report, _ = run_http2(only(20, "goaway_answer"), certificate)
    assert report.clean, report.kinds
    assert report.connections == {"HTTP/2": 2}


def test_a_connection_closed_while_idle_is_replaced_without_a_failure() -> None:
    plan = Plan(rate=20, seconds=0.5, protocols=("http/1.1",), connections=1)
    report, _ = run_http1(lambda _: "answer_then_close", plan)
    assert report.clean, report.kinds
    assert report.connections == {"HTTP/1.1": 10}


def test_a_request_without_an_answer_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "REQUEST_SECONDS", 3)  # no other request may be that late
    report, _ = run_http1(only(5, "hang"))
    assert report.kinds == {"HTTP/1.1 timeout": 1}


def test_a_slow_server_does_not_slow_the_rate_and_waiting_counts_as_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "REQUEST_SECONDS", 0.5)
    plan = Plan(rate=100, seconds=0.5, protocols=("http/1.1",), connections=1)
    report, _ = run_http1(only(1, "hang"), plan)
    assert report.sent == 50
    assert report.seconds > 0.4
    assert report.kinds["HTTP/1.1 timeout"] >= 1
    # What queued behind the hanging request was late by nearly its timeout, and the report says so.
    assert report.percentile(1.0) > 200


def test_a_note_acknowledged_but_not_stored_is_lost() -> None:
    report, server = run_http1(lambda _: "forget", Plan(rate=100, seconds=0.3, protocols=("http/1.1",), posts=1.0))
    found = reconcile(report, server.stored)
    assert report.clean
    assert found.lost == sorted(report.acknowledged)
    assert len(found.lost) == 30


def test_a_note_stored_but_never_acknowledged_is_told_apart_from_a_loss() -> None:
    report, server = run_http1(only(3, "half"), Plan(rate=100, seconds=0.3, protocols=("http/1.1",), posts=1.0))
    found = reconcile(report, server.stored)
    assert found.lost == []
    assert found.unanswered == report.unacknowledged
    assert len(found.unanswered) == 1


def test_a_note_delivered_twice_is_reported() -> None:
    report = Report(ledger="0" * 8, acknowledged=["a", "b"])
    assert reconcile(report, {"a": 2, "b": 1}).duplicated == ["a"]


def test_nobody_listening_fails_every_request() -> None:
    report = asyncio.run(Load(Target("http://127.0.0.1:9"), PLAN).run())
    assert report.kinds == {"HTTP/1.1 connect": TOTAL}
    assert not report.clean


def test_an_untrusted_certificate_fails_every_request(certificate: Path) -> None:
    async def go() -> Report:
        async with FaultyServer(lambda _: "answer", server_context(certificate, "http/1.1")) as server:
            return await Load(Target(f"https://localhost:{server.port}", "127.0.0.1"), PLAN).run()

    report = asyncio.run(go())
    assert report.kinds == {"HTTP/1.1 tls": TOTAL}


def test_a_server_without_http2_is_a_failure_of_http2(certificate: Path) -> None:
    async def go() -> Report:
        async with FaultyServer(lambda _: "answer", server_context(certificate, "http/1.1")) as server:
            target = Target(f"https://localhost:{server.port}", "127.0.0.1", str(certificate))
            return await Load(target, Plan(rate=50, seconds=0.2, protocols=("h2",))).run()

    assert asyncio.run(go()).kinds == {"HTTP/2 tls": 10}


def test_a_run_that_sent_nothing_is_not_clean() -> None:
    assert not Report(ledger="0" * 8).clean


@pytest.mark.parametrize("ended_by", ["failure", "server"])
def test_only_a_websocket_cut_without_a_close_frame_makes_a_run_unclean(ended_by: str) -> None:
    report = Report(ledger="0" * 8, planned=1, sent=1, ok=1)
    report.sockets.append(Socket(0.0, 1.0, "r1", 1, 1.0, ended_by, ""))
    assert report.clean == (ended_by == "server")


def test_slow_requests_and_websockets_that_fail_are_in_the_report() -> None:
    # The server answers /slow with something else, and knows no upgrade.
    plan = Plan(rate=20, seconds=0.3, protocols=("http/1.1",), slow_every=5, slow_seconds=0.2, websockets=1)
    report, _ = run_http1(lambda _: "answer", plan)
    assert [one.error for one in report.slow] != [""]
    assert report.sockets
    assert report.sockets[0].ended_by == "failure"
    assert not report.clean


def test_the_report_survives_json() -> None:
    report, _ = run_http1(only(20, "error"))
    report.sockets.append(Socket(0.0, 1.0, "r1", 1, 1.0, "us", ""))
    again = Report.from_json(report.to_json())
    assert again == report
    assert json.loads(report.to_json())["summary"]["failed"] == 1
    assert "FAILED HTTP/1.1 http_500: 1" in render(report)


def test_the_timeline_places_failures_in_their_second() -> None:
    report, _ = run_http1(only(20, "error"))
    first = min(report.timeline)
    assert report.between(first, first + 10)["failed"] == 1
    assert report.between(first + 10, first + 20) == {"ok": 0, "failed": 0, "worst_ms": 0.0}


def test_the_command_exits_1_on_failures_and_2_on_nonsense(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["http://127.0.0.1:9", "--seconds", "0.2", "--protocols", "http/1.1"]) == 1
    assert "FAILED HTTP/1.1 connect: 40" in capsys.readouterr().out
    assert main(["http://127.0.0.1:9", "--seconds", "0.2", "--protocols", "h2"]) == 2
    with pytest.raises(SystemExit):
        main(["http://127.0.0.1:9", "--protocols", "spdy"])


def test_a_background_load_stops_when_told_and_reports() -> None:
    async def serve() -> Report:
        async with FaultyServer(only(20, "reset")) as server:
            target = Target(f"http://127.0.0.1:{server.port}")
            with BackgroundLoad(target, Plan(rate=50, seconds=None, protocols=("http/1.1",))) as load:
                while server.requests < 40:
                    await asyncio.sleep(0.05)
                return await asyncio.to_thread(load.stop)

    report = asyncio.run(serve())
    assert report.planned >= 40
    assert report.kinds == {"HTTP/1.1 reset": 1}


def test_a_background_load_that_cannot_run_says_why() -> None:
    with (
        pytest.raises(RuntimeError, match="HTTP/2 needs https"),
        BackgroundLoad(Target("http://127.0.0.1:9"), Plan(seconds=1, protocols=("h2",))) as load,
    ):
        load.stop()


def test_percentiles_are_nearest_rank() -> None:
    values = [float(number) for number in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.95, 1.0)] == [50.0, 95.0, 100.0]


def test_the_ledger_is_read_back_as_psql_prints_it() -> None:
    assert parse_ledger("a|1\nb|2\n\n") == {"a": 1, "b": 2}
    assert "BETWEEN 'abcdef12-0000" in ledger_query("abcdef12")
    with pytest.raises(ValueError, match="hexadecimal"):
        ledger_query("x' OR '1")


def test_an_old_answer_that_comes_late_is_no_switch_back() -> None:
    report = Report(ledger="0" * 8)
    answers = [  # release, sent, received
        ("r1", 0.9, 1.0),
        ("r2", 1.8, 2.0),
        ("r1", 1.9, 9.0),  # sent before the new release was heard, and answered long after
        ("r2", 2.5, 2.6),
        ("r1", 29.0, 30.0),  # sent after it: back for good
        ("r1", 31.0, 31.1),
    ]
    for answer in answers:
        report.saw(*answer)
    assert [(one.at, one.release) for one in report.switches] == [(1.0, "r1"), (2.0, "r2"), (30.0, "r1")]
    assert report.releases == {"r1": 4, "r2": 2}


def test_the_slowest_requests_are_named() -> None:
    report, _ = run_http1(lambda _: "answer")
    assert len(report.slowest) == 20
    assert report.slowest[0].ms == pytest.approx(report.percentile(1.0), abs=0.1)
    assert [one.ms for one in report.slowest] == sorted((one.ms for one in report.slowest), reverse=True)
    assert all(one.release == "r1" and one.queued_ms <= one.ms for one in report.slowest)


def test_failures_keep_what_a_person_needs() -> None:
    report, _ = run_http1(only(20, "error"))
    failed = report.failed[0]
    assert isinstance(failed, Failed)
    assert failed.detail == "broken on purpose"
    assert failed.method in {"GET", "POST"}
