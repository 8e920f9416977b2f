# SPDX-License-Identifier: Apache-2.0
"""The deploy engine killed at every single step: what serves afterwards, and that state, switch and containers agree."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.deploy_world import FakeHost, Killed, serving, watched


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    """A host with Docker and nothing else."""
    return FakeHost(tmp_path, monkeypatch)


JOBS = [{"name": "mail", "command": ["work"], "count": 2}, {"name": "index", "command": ["index"]}]


def restless(host: FakeHost) -> None:
    """From now on the new release's background containers end and are started again, all the while."""

    def tick(_now: float) -> None:
        for one in host.docker.containers.values():
            if one.job and one.kept and one.release.endswith("-2"):
                one.restarts += 1

    host.clock.tick = tick


def prepared(host: FakeHost, scenario: str) -> None:
    """Bring the host to just before the deploy that is killed; the request is laid down."""
    watch = {"seconds": 20, "min_requests": 5, "access_log": str(host.access_log)}
    more: dict[str, Any] = {"watch": watch, "release_command": ["migrate"]}
    if "jobs" in scenario:
        more["jobs"] = JOBS
    if "first" not in scenario:
        host.deploy("1", **({**more, "jobs": []} if scenario == "new jobs" else more))
    if "rollback" in scenario:
        host.deploy("2", **more)
    if scenario == "sick":
        host.probe.sick.add("-2")
    if scenario == "bad":
        watched(host, 500)
    if scenario == "idle jobs":
        host.docker.idle.add("-2")
    if scenario == "bad jobs":
        restless(host)
    host.clock.time += 60
    if "rollback" in scenario:
        host.ask("rollback")
    else:
        host.want("1" if "first" in scenario else "2", **more)
        host.ask()


def standing(scenario: str, root: Path) -> tuple[int, Callable[[pytest.MonkeyPatch], FakeHost]]:
    """How many steps the scenario has when nothing kills it, and a maker of hosts that stand just before it."""
    with pytest.MonkeyPatch.context() as patch:
        first = FakeHost(root, patch)
        prepared(first, scenario)
        copies = first.copies()

        def make(patch: pytest.MonkeyPatch) -> FakeHost:
            host = copies(patch)
            if scenario == "bad":
                watched(host, 500)  # the clock's, not the copied one's
            if scenario == "bad jobs":
                restless(host)
            return host

        host = make(patch)
        before = host.fuse.steps
        host.engine().run()
        return host.fuse.steps - before, make


EXPECTED = {
    "first": {("interrupted", ""), ("succeeded", "1")},
    "second": {("interrupted", "1"), ("succeeded", "2")},
    "rollback": {("interrupted", "2"), ("succeeded", "1")},
    "sick": {("interrupted", "1"), ("failed", "1")},
    "bad": {("interrupted", "1"), ("rolled_back", "1")},
}
EXPECTED |= {f"{name} with jobs": EXPECTED[name] for name in ("first", "second", "rollback")}
EXPECTED |= {"new jobs": EXPECTED["second"], "idle jobs": EXPECTED["sick"], "bad jobs": EXPECTED["bad"]}


@pytest.mark.parametrize("scenario", list(EXPECTED))
def test_after_a_crash_at_any_step_one_release_serves_and_all_agree(scenario: str, tmp_path: Path) -> None:
    count, make = standing(scenario, tmp_path / "host")
    assert count > 30
    ends = set()
    for at in range(1, count + 1):
        with pytest.MonkeyPatch.context() as patch:
            host = make(patch)
            old = serving(host)
            host.fuse.at = host.fuse.steps + at
            with pytest.raises(Killed):
                host.engine().run()
            if "jobs" in scenario and old and scenario != "new jobs":
                whole = [names for names in host.docker.working().values() if len(names) == 3]
                assert whole, f"{scenario}: at step {at} no whole generation works"
            host.fuse.renew()
            host.engine().run()
            try:
                host.check()
            except AssertionError as error:
                raise AssertionError(f"{scenario}, killed at step {at}: {host.said}") from error
            record = host.store.load().deploy
            assert record is not None
            ends.add((record.result, serving(host)))
            assert host.engine().run() is None, "a second recovery has nothing to do"
            if scenario.split(maxsplit=1)[0] in ("sick", "bad", "idle"):
                assert serving(host) == old == "1"
    assert ends == EXPECTED[scenario]


@pytest.mark.parametrize("scenario", ["second", "bad", "second with jobs", "bad jobs"])
def test_after_a_crash_and_a_crash_in_the_recovery_one_release_serves(scenario: str, tmp_path: Path) -> None:
    count, make = standing(scenario, tmp_path / "host")
    for at in range(1, count + 1, 5):
        for again in (1, 4, 9, 16):
            with pytest.MonkeyPatch.context() as patch:
                host = make(patch)
                host.fuse.at = host.fuse.steps + at
                with pytest.raises(Killed):
                    host.engine().run()
                host.fuse.renew()
                host.fuse.at = host.fuse.steps + again
                try:
                    host.engine().run()
                except Killed:
                    host.fuse.renew()
                    host.engine().run()
                host.check()


@pytest.mark.parametrize("at", [5, 20, 45])
def test_a_power_cut_and_a_crash_at_any_step_of_what_follows(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = 0
    while True:
        again += 1
        host = FakeHost(tmp_path / f"{again}", monkeypatch)
        prepared(host, "second with jobs")
        host.fuse.at = host.fuse.steps + at
        with pytest.raises(Killed):
            host.engine().run()
        host.fuse.renew()
        for container in host.docker.containers.values():
            container.running = False
        host.switch.routes = []
        host.fuse.at = host.fuse.steps + again
        try:
            host.engine().run()
            break
        except Killed:
            host.fuse.renew()
            host.engine().run()
            host.check()
    assert again > 10


def test_power_cut_loses_containers_and_map_and_recovery_brings_them_back(host: FakeHost) -> None:
    host.deploy("1")
    host.want("2")
    host.clock.time += 60
    host.ask()
    host.fuse.at = host.fuse.steps + 20
    with pytest.raises(Killed):
        host.engine().run()
    host.fuse.renew()
    for container in host.docker.containers.values():
        container.running = False
    host.switch.routes = []
    host.engine().run()
    host.check()
