# SPDX-License-Identifier: Apache-2.0
"""An app's files: state, releases, lock, journal, and what is decided by them."""

from __future__ import annotations

import fcntl
import json
import threading
from pathlib import Path

import pytest
from slipway import journal, lock
from slipway.deploy import releases
from slipway.deploy import wish as appwish
from slipway.deploy.releases import StateError, Store
from slipway.deploy.state import Phase, Record, Serving, State

from tests.unit.deploy_world import FakeHost


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    """A host with Docker and nothing else."""
    return FakeHost(tmp_path, monkeypatch)


def test_state_comes_back_as_it_was(tmp_path: Path) -> None:
    store = Store("notes", tmp_path, tmp_path)
    record = Record("1", "deploy", "alice", "R1", "blue", 5.0, phases=[Phase("image", "done", 1, 2, "x")], log=["a"])
    state = State("notes", Serving("R1", "blue", 3), "R0", {"blue": "10.0.0.1"}, record, {"spec_hash": "x"})
    store.save(state)
    assert store.load() == state
    assert releases.is_private(store.home / "state.json")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 2}', '{"version": 1}'])
def test_state_of_another_make_is_refused_with_its_path(tmp_path: Path, text: str) -> None:
    store = Store("notes", tmp_path, tmp_path)
    store.home.mkdir()
    (store.home / "state.json").write_text(text)
    with pytest.raises(StateError, match=r"state\.json cannot be read"):
        store.load()


def test_writing_leaves_the_old_file_or_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    releases.write(path, "old")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(OSError("power cut")))
        with pytest.raises(OSError, match="power cut"):
            releases.write(path, "new")
    assert path.read_text() == "old"
    releases.write(path, "new")
    assert path.read_text() == "new"


def test_somebody_who_only_looks_keeps_nobody_from_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lock"
    path.touch()
    looker = path.open()
    fcntl.flock(looker, fcntl.LOCK_SH)
    monkeypatch.setattr(lock.time, "sleep", lambda _seconds: looker.close())
    with lock.held(path, "notes", {}):
        assert lock.holder(path)


def test_release_id_sorts_by_time_and_says_what_it_is_of() -> None:
    assert releases.release_id(1_800_000_000, "1.4/rc 1") == "20270115T080000Z-1.4-rc-1"
    assert releases.release_id(1_800_000_000, "") == "20270115T080000Z"


def test_lock_names_its_holder_and_ends_with_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert lock.holder(path) is None
    with lock.held(path, "notes", {"who": "alice", "since": "now", "what": "a deploy"}):
        assert lock.holder(path)["who"] == "alice"  # type: ignore[index]
        with pytest.raises(lock.BusyError, match="a deploy by alice"), lock.held(path, "notes", {"who": "bob"}):
            pass
    assert lock.holder(path) is None


def test_journal_lines_of_many_writers_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"

    def write(number: int) -> None:
        for index in range(20):
            journal.append(path, at=0, who=f"writer {number}", what="x" * 500, index=index)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([json.loads(line) for line in path.read_text().splitlines()]) == 80
    with path.open("a") as stream:
        stream.write('{"cut by a cra')
    assert len(journal.tail(path, 5)) == 4


def decide(host: FakeHost, **changes: object) -> dict[str, object]:
    """What is to be done for the app as it is laid down now."""
    spec, _, wish = host.store.desired()
    known = {"wish": wish, "reference": spec.image.reference, "source": "registry", "stable_port": spec.stable_port}
    return appwish.decide(host.store, host.docker, **{**known, **changes})  # type: ignore[arg-type]


def test_what_is_due(host: FakeHost) -> None:
    host.want("1")
    assert decide(host)["why"] == "nothing serves yet"
    host.deploy("1")
    assert decide(host)["deploy"] is False
    host.want("2")
    assert decide(host)["why"] == "its image or settings changed"
    host.deploy("2")
    host.rollback()
    found = decide(host)
    assert found["deploy"] is False
    assert "rolled back by alice" in str(found["held"])
    host.docker.containers.clear()
    host.want("1")
    host.clock.time += 60
    assert decide(host, wish=host.store.all()[1].spec_hash)["why"] == "its container does not run"


def test_ports_that_moved_or_are_anothers_are_a_problem(host: FakeHost) -> None:
    host.deploy("1")
    assert "port_base: 18000" in str(decide(host, stable_port=18010)["problem"])
    other = Store("shop", host.store.wishes, host.store.states)
    found = appwish.decide(other, host.docker, wish="x", reference="r", source="registry", stable_port=18000)  # type: ignore[arg-type]
    assert "which notes still has" in found["problem"]


def test_addresses_are_handed_out_once(host: FakeHost) -> None:
    host.deploy("1")
    spec, _, _ = host.store.desired()
    assert host.store.addresses(spec) == {"blue": "10.213.87.102", "green": "10.213.87.103"}


def test_half_removed_release_is_none(host: FakeHost) -> None:
    host.deploy("1")
    host.deploy("2")
    old = host.store.all()[1].id
    (host.store.folder(old) / "release.json").unlink()
    assert len(host.store.all()) == 1
    with pytest.raises(StateError, match="has no release"):
        host.store.content(old)
