# SPDX-License-Identifier: Apache-2.0
"""Nobody notices a deploy: 200 requests/s of GET and POST across a deploy, a rollback and a deploy that fails its gate.

The clients never retry (tests/load); half of them speak HTTP/1.1 with keep-alive, half HTTP/2.
"""

from __future__ import annotations

import pytest

from tests.integration.world import World
from tests.load.scenario import STALLED_MS, Phase, Run, deploys_under_load

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]
SWITCHING = ("deploy", "rollback")


@pytest.fixture(scope="module")
def run(converged: World) -> Run:
    return deploys_under_load(converged)


def told(phase: Phase) -> str:
    return f"{phase.name} ended with {phase.code}:\n{phase.output[-3000:]}"


def test_the_deploy_and_the_rollback_succeeded_and_changed_the_serving_release(run: Run) -> None:
    for name in SWITCHING:
        phase = run.phases[name]
        assert phase.code == 0, told(phase)
        assert phase.before != phase.after, told(phase)
    assert run.phases["rollback"].after == run.phases["deploy"].before
    # As the clients saw it too: to the new release and back, nothing else.
    assert [one.release for one in run.report.switches] == [
        run.phases["deploy"].before,
        run.phases["deploy"].after,
        run.phases["rollback"].after,
    ]


def test_the_deploy_that_fails_its_gate_says_so_and_the_old_release_serves_on(run: Run) -> None:
    phase = run.phases["failing deploy"]
    assert phase.code != 0, told(phase)
    assert phase.before == phase.after == run.phases["rollback"].after
    assert "Traceback" not in phase.output
    assert "never ready, on purpose" in phase.output  # the container's last log lines


@pytest.mark.parametrize("protocol", ["HTTP/1.1", "HTTP/2"])
def test_no_request_failed(run: Run, protocol: str) -> None:
    failed = [one for one in run.report.failed if one.protocol == protocol]
    # A lag of the client's own says that the machine was too busy to measure on.
    assert failed == [], (run.report.kinds, f"the client itself lagged by up to {run.report.largest_lag_ms} ms")
    assert run.report.by_protocol[protocol] > 2000


def test_nobody_waits_for_the_old_colour_to_go(run: Run) -> None:
    """A connection that lost its way is found again by a TCP keep-alive at the soonest: see switch.py."""
    stalled = [one for one in run.report.slowest if one.ms >= STALLED_MS]
    assert stalled == [], f"the client itself lagged by up to {run.report.largest_lag_ms} ms"


def test_the_rate_was_kept_for_a_minute_and_more(run: Run) -> None:
    report = run.report
    assert report.seconds >= 60
    assert report.planned == report.sent == report.ok
    assert report.ok / report.seconds >= 195


def test_no_post_was_lost_or_stored_twice(run: Run) -> None:
    assert run.found.acknowledged > 5000
    assert run.found.lost == []
    assert run.found.duplicated == []
    assert run.found.unanswered == []


def test_requests_of_20_seconds_in_flight_at_a_switch_complete(run: Run) -> None:
    assert len(run.switches) == len(SWITCHING)
    for switch in run.switches:
        across = run.slow_across(switch)
        assert {one.protocol for one in across} == {"HTTP/1.1", "HTTP/2"}
        # Answered by the release that had them, though another one was serving by then.
        assert {one.error for one in across} == {""}
    assert [one.error for one in run.report.slow_failed] == []


def test_websockets_live_through_the_drain_time(run: Run) -> None:
    assert len(run.switches) == len(SWITCHING)
    for switch in run.switches:
        across = run.sockets_across(switch)
        assert across, "no WebSocket was open at the switch"
        assert min(run.socket_seconds(switch)) >= run.drain_seconds - 1
        # They were served all the while, and told goodbye rather than cut off.
        assert all(one.largest_gap < 5 for one in across)
        assert all(one.ended_by != "failure" for one in across), [one.detail for one in across]
