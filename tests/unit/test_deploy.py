# SPDX-License-Identifier: Apache-2.0
"""The deploy engine on a host in memory: what serves after good, bad and cut-off deploys."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from slipway import lock
from slipway.deploy.colours import Interrupted
from slipway.deploy.switch import FORGOTTEN_SECONDS, Route
from slipway.errors import SlipwayError

from tests.unit.deploy_world import FakeHost, serving, watched


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    """A host with Docker and nothing else."""
    return FakeHost(tmp_path, monkeypatch)


def test_first_deploy_serves_in_blue_without_a_watched_window(host: FakeHost) -> None:
    record = host.deploy("1", watch={"seconds": 900, "access_log": str(host.access_log)})
    assert record.result == "succeeded"
    assert [phase.name for phase in record.phases] == [
        "image", "release_command", "start", "health", "switch", "drain", "cleanup", "watch",
    ]  # fmt: skip
    assert record.find("watch").status == "skipped"
    assert host.docker.serving() == ["slipway_notes_blue"]
    host.check()


def test_second_deploy_takes_the_other_colour_and_removes_the_first(host: FakeHost) -> None:
    host.deploy("1")
    assert host.deploy("2").result == "succeeded"
    assert host.docker.serving() == ["slipway_notes_green"]
    assert serving(host) == "2"
    assert host.store.load().previous == host.store.all()[1].id
    host.check()


def test_a_container_goes_only_when_its_connections_are_forgotten(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Docker deletes what the kernel remembers of its address, and live connections to the other colour with it."""
    last, gone = {}, {}
    remove, stop, busy, apply = host.docker.remove, host.docker.stop, host.probe.busy, host.switch.apply

    def going(name: str) -> None:
        if name in host.docker.containers:
            gone.setdefault(name, host.clock.now())

    def looked(pid: int, port: int) -> int:
        if left := busy(pid, port):
            last["slipway_notes_blue"] = host.clock.now()
        return left

    def switched(routes: Iterable[Route]) -> None:
        last["slipway_notes_green"] = host.clock.now()
        apply(routes)

    monkeypatch.setattr(host.docker, "stop", lambda name, grace: (going(name), stop(name, grace)))
    monkeypatch.setattr(host.docker, "remove", lambda name: (going(name), remove(name)))
    monkeypatch.setattr(host.probe, "busy", looked)
    monkeypatch.setattr(host.switch, "apply", switched)
    host.deploy("1")
    host.probe.open[host.docker.containers["slipway_notes_blue"].pid] = 9
    assert host.deploy("2").result == "succeeded"
    assert gone["slipway_notes_blue"] - last["slipway_notes_blue"] >= FORGOTTEN_SECONDS

    gone.clear()
    host.deploy("3")  # blue again
    monkeypatch.setattr(host.probe, "owner", lambda *_a, **_k: "")
    gone.clear()
    assert host.deploy("4").result == "failed"
    assert gone["slipway_notes_green"] - last["slipway_notes_green"] >= FORGOTTEN_SECONDS


def test_deploying_what_serves_already_does_nothing_unless_forced(host: FakeHost) -> None:
    first = host.deploy("1")
    again = host.deploy("1")
    assert (again.result, again.release) == ("succeeded", first.release)
    assert len(host.store.all()) == 1
    assert host.deploy("1", force=True).release != first.release
    host.check()


def test_a_tag_whose_content_moved_is_deployed(host: FakeHost) -> None:
    host.deploy("1")
    host.docker.remote["registry.example.com/notes:1"] = "sha256:moved"
    host.deploy("1")
    assert host.docker.containers[host.docker.serving()[0]].image == "sha256:moved"


def test_changed_environment_is_a_release_of_the_same_image(host: FakeHost) -> None:
    host.deploy("1")
    host.deploy("1", env={"LOG_LEVEL": "debug"})
    newest, oldest = host.store.all()
    assert newest.image == oldest.image
    assert host.store.content(newest.id)[1] == {"LOG_LEVEL": "debug"}


def test_unknown_image_leaves_the_old_release_serving(host: FakeHost) -> None:
    host.deploy("1")
    host.want("2")
    del host.docker.remote["registry.example.com/notes:2"]
    host.ask()
    record = host.engine().run()
    assert record is not None
    assert record.result == "failed"
    assert record.error is not None
    assert "registry.example.com/notes:2 could not be pulled" in record.error["found"]
    assert "credentials" in record.error["remedy"]
    assert serving(host) == "1"
    host.check()


def test_never_healthy_leaves_the_old_release_and_shows_the_log_without_secrets(host: FakeHost) -> None:
    host.deploy("1")
    host.probe.sick.add("-2")
    record = host.deploy("2")
    assert record.result == "failed"
    assert "not healthy within 60 s: GET /healthz gave status 503 (database is away)" in record.error["found"]
    assert record.log == ["no configuration", "the key is ***"]
    assert serving(host) == "1"
    assert [release.id.rsplit("-", 1)[1] for release in host.store.all()] == ["1"]
    host.check()


def test_container_that_stops_fails_at_once(host: FakeHost) -> None:
    host.deploy("1")
    host.docker.dying.add("-2")
    record = host.deploy("2")
    assert "stopped with code 3" in record.error["found"]
    assert record.ended - record.started < 5
    host.check()


def test_failing_release_command_stops_the_deploy_before_anything_starts(host: FakeHost) -> None:
    host.deploy("1")
    host.docker.release_code = 4
    record = host.deploy("2", release_command=["migrate"])
    assert record.result == "failed"
    assert "(migrate) ended with code 4" in record.error["found"]
    assert record.log == ["migrating with ***"]
    assert record.find("start") is None
    assert serving(host) == "1"
    host.check()


def test_switch_that_fails_is_taken_back(host: FakeHost) -> None:
    host.deploy("1")
    host.switch.refuse = True
    assert host.deploy("2").result == "failed"
    assert serving(host) == "1"
    host.check()


def test_drain_waits_for_connections_and_no_longer_than_allowed(host: FakeHost) -> None:
    host.deploy("1")
    host.probe.open[host.docker.containers["slipway_notes_blue"].pid] = 20
    assert host.deploy("2").find("drain").detail == "quiet after 5.2 s"
    host.probe.open[host.docker.containers["slipway_notes_green"].pid] = 10_000
    assert host.deploy("3", drain_seconds=7).find("drain").detail.endswith("connections left after 7 s")


def test_five_releases_are_kept_with_their_images(host: FakeHost) -> None:
    for tag in range(1, 9):
        host.deploy(str(tag))
        host.check()
    assert [release.id.rsplit("-", 1)[1] for release in host.store.all()] == ["8", "7", "6", "5", "4"]
    assert len(host.docker.tags("notes")) == 5


def test_rollback_goes_to_the_previous_good_release_and_then_further(host: FakeHost) -> None:
    for tag in "123":
        host.deploy(tag, release_command=["migrate"])
    ran = len(host.docker.ran)
    assert host.rollback().result == "succeeded"
    assert serving(host) == "2"
    host.rollback()
    assert serving(host) == "1"
    assert len(host.docker.ran) == ran  # migrations are additive: none is run
    assert host.rollback().error["found"].startswith("notes has no good release before")
    host.check()


def test_rollback_to_a_named_release(host: FakeHost) -> None:
    for tag in "123":
        host.deploy(tag)
    host.rollback(release=host.store.all()[2].id)
    assert serving(host) == "1"
    assert "no release nowhere" in host.rollback(release="nowhere").error["found"]
    host.check()


def test_rollback_takes_todays_database_address_and_the_old_release_environment(host: FakeHost) -> None:
    host.deploy("1", env={"A": "old", "DATABASE_URL": "postgresql://old"})
    host.deploy("2", env={"A": "new", "DATABASE_URL": "postgresql://new"})
    record = host.rollback()
    file = host.store.folder(record.release) / f"compose.{record.colour}.json"
    env = json.loads(file.read_text())["services"]["web"]["environment"]
    assert (env["A"], env["DATABASE_URL"]) == ("old", "postgresql://new")
    assert host.store.load().held["release"].endswith("-2")


def test_a_deploy_after_a_rollback_is_no_longer_held_back(host: FakeHost) -> None:
    host.deploy("1")
    host.deploy("2")
    host.rollback()
    host.deploy("3")
    assert host.store.load().held == {}


WATCH = {"seconds": 300, "min_requests": 20}


def test_release_that_answers_with_errors_is_rolled_back_by_itself(host: FakeHost) -> None:
    watch = {**WATCH, "access_log": str(host.access_log)}
    host.deploy("1", watch=watch)
    watched(host, 500)
    record = host.deploy("2", watch=watch)
    assert record.result == "rolled_back"
    assert "100%" in record.error["found"]
    assert serving(host) == "1"
    state = host.store.load()
    assert state.held["spec_hash"] == record.spec_hash
    assert [release.good for release in host.store.all()] == [False, True]
    host.check()


def test_release_that_is_slower_than_before_is_rolled_back(host: FakeHost) -> None:
    watch = {**WATCH, "access_log": str(host.access_log)}
    host.deploy("1", watch=watch)
    watched(host, 200, seconds=1.8)
    record = host.deploy("2", watch=watch)
    assert record.result == "rolled_back"
    assert "took up to 1" in record.error["found"]


def test_good_release_passes_its_watched_window(host: FakeHost) -> None:
    watch = {**WATCH, "access_log": str(host.access_log)}
    host.deploy("1", watch=watch)
    watched(host, 200)
    record = host.deploy("2", watch=watch)
    assert record.result == "succeeded"
    assert record.find("watch").ended - record.find("watch").started > 250
    assert host.store.all()[0].good
    host.check()


def test_container_that_keeps_dying_is_rolled_back(host: FakeHost) -> None:
    watch = {**WATCH, "access_log": str(host.access_log)}
    host.deploy("1", watch=watch)

    def tick(_now: float) -> None:
        if host.store.load().deploy.find("watch"):  # type: ignore[union-attr]
            host.docker.containers["slipway_notes_green"].restarts = 5

    host.clock.tick = tick
    record = host.deploy("2", watch=watch)
    assert record.result == "rolled_back"
    assert "restarted 5 times" in record.error["found"]


def test_watched_window_gives_way_to_the_next_deploy(host: FakeHost) -> None:
    watch = {**WATCH, "access_log": str(host.access_log)}
    host.deploy("1", watch=watch)
    host.clock.tick = lambda _now: (
        host.store.supersede_file.touch() if host.store.load().deploy.find("watch") else None  # type: ignore[union-attr]
    )
    record = host.deploy("2", watch=watch)
    assert record.result == "superseded"
    host.clock.tick = lambda _now: None
    assert host.deploy("3").result == "succeeded"
    host.check()


def test_old_release_that_does_not_come_up_again_leaves_the_new_one_serving(host: FakeHost) -> None:
    watch = {**WATCH, "access_log": str(host.access_log)}
    host.deploy("1", watch=watch)
    watched(host, 500)
    host.want("2", watch=watch)
    host.clock.time += 60
    host.ask()
    host.docker.dying.add("-1")
    record = host.engine().run()
    assert record is not None
    assert record.result == "failed"
    assert "Going back" in record.error["found"]  # type: ignore[index]
    assert serving(host) == "2"
    host.check()


def test_second_engine_says_who_is_at_work(host: FakeHost) -> None:
    host.want()
    host.ask()
    with (
        lock.held(host.store.lock, "notes", {"who": "bob", "since": "12:00", "what": "a deploy"}),
        pytest.raises(lock.BusyError, match="a deploy by bob has been running since 12:00"),
    ):
        host.engine().run()
    assert host.engine().run().result == "succeeded"  # type: ignore[union-attr]


def test_told_to_stop_before_the_switch_clears_up(host: FakeHost) -> None:
    host.deploy("1")

    def stop(_now: float) -> None:
        raise Interrupted

    host.probe.sick.add("-2")
    host.want("2")
    host.clock.time += 60
    host.ask()
    host.clock.tick = stop
    record = host.engine().run()
    assert record is not None
    assert record.result == "failed"
    assert serving(host) == "1"
    host.check()


def test_told_to_stop_while_watching_goes_on_after_the_next_start(host: FakeHost) -> None:
    watch = {**WATCH, "access_log": str(host.access_log)}
    host.deploy("1", watch=watch)

    def stop(_now: float) -> None:
        if host.store.load().deploy.find("watch"):  # type: ignore[union-attr]
            raise Interrupted

    host.clock.tick = stop
    with pytest.raises(Interrupted):
        host.deploy("2", watch=watch)
    assert not host.store.load().deploy.over  # type: ignore[union-attr]
    watched(host, 500)
    record = host.engine().run()
    assert record is not None
    assert record.result == "rolled_back"
    host.check()


def test_two_apps_share_the_switch_and_have_addresses_of_their_own(host: FakeHost, tmp_path: Path) -> None:
    host.deploy("1")
    other = host.store
    from slipway.deploy.releases import Store

    host.store = Store("shop", other.wishes, other.states)
    host.want("1")
    text = (host.store.wish / "app.json").read_text().replace('"name": "notes"', '"name": "shop"')
    (host.store.wish / "app.json").write_text(text.replace("18000", "18010"))
    host.ask()
    host.engine().run()
    assert [(route.stable_port, route.address) for route in host.switch.routes] == [
        (18000, "10.213.87.100"), (18010, "10.213.87.102"),
    ]  # fmt: skip


def test_missing_wish_is_one_message(host: FakeHost) -> None:
    host.ask()
    record = host.engine().run()
    assert record is not None
    assert record.result == "failed"
    assert "There is no app notes on this host" in record.error["found"]  # type: ignore[index]


def test_journal_says_who_what_and_how_it_ended(host: FakeHost) -> None:
    host.deploy("1")
    lines = [json.loads(line) for line in host.journal.read_text().splitlines()]
    assert [(line["who"], line["what"], line["result"]) for line in lines] == [
        ("alice", "deploy", "started"), ("alice", "deploy", "succeeded"),
    ]  # fmt: skip
    assert "planted-secret" not in host.journal.read_text()


def test_unreadable_state_is_one_message_that_names_the_file(host: FakeHost) -> None:
    host.deploy("1")
    (host.store.home / "state.json").write_text("{")
    with pytest.raises(SlipwayError, match=r"state\.json cannot be read"):
        host.engine().run()
