# SPDX-License-Identifier: Apache-2.0
"""Around a drill: the lock, Ctrl-C, a kill, and evidence that cannot be cut off or written anew unseen."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from slipway import lock
from slipway.backup.drills import checks, drill, scratch
from slipway.backup.drills.proofs import ChainError
from slipway.errors import BusyError

from tests.unit.waiting import until

from .drilling import Ground, ground, keys, rich
from .taking import HOST

__all__ = ["ground", "keys", "rich"]


def test_without_any_backup_nothing_is_proved(ground: Ground) -> None:
    outcome = ground.drill()
    assert (outcome.drill.verdict, outcome.code, outcome.drill.tried) == ("inconclusive", 5, ())
    assert "not any backup" in outcome.drill.checks[0].actual


def test_a_second_drill_is_told_who_is_at_work(ground: Ground) -> None:
    with (
        lock.held(ground.home / "state/lock", "x", {"who": "timer", "what": "drill 1", "since": "noon"}),
        pytest.raises(BusyError, match="drill 1 by timer since noon"),
    ):
        ground.drill()


def test_ctrl_c_leaves_nothing_behind_but_a_record(ground: Ground, rich: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ground.taker.take([rich])

    def stop(*_given: object, **_more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(checks, "observe", stop)
    outcome = ground.drill()
    assert (outcome.code, outcome.drill.verdict) == (5, "inconclusive")
    assert "stopped" in outcome.drill.checks[0].actual


KILLED = """
import sys
sys.path[:0] = {path!r}
from dataclasses import replace
from pathlib import Path
from slipway.backup.config import Config, Place
from slipway.backup.drills import checks, drill
from slipway.backup.drills.attempt import Means
from slipway.backup.drills.proofs import Proofs
from slipway.backup.stores.store import DirectoryStore
import time
def wait(*given, **more):
    print("there", flush=True)
    time.sleep(600)
checks.observe = wait
home = Path({home!r})
store = DirectoryStore(home / "store")
config = Config("db1", Place("directory", str(home / "store")), ("app",), scratch_mb=64)
drill.run(config, Means(store, {identity!r}, home / "scratch", (), 2), Proofs(home / "state", None, "db1", home / "j"),
          state=home / "state", started_by="killed")
"""


def test_what_a_killed_drill_left_is_swept_and_recorded_by_the_next(ground: Ground, rich: str) -> None:
    ground.taker.take([rich])
    path = [str(Path(drill.__file__).parents[3])]
    code = KILLED.format(path=path, home=str(ground.home), identity=ground.identity)
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "there\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    (left,) = (ground.home / "scratch").iterdir()
    pid = scratch.postmaster(left / "data")
    assert pid
    with pytest.MonkeyPatch.context() as patch:  # as root in a container, which may not look where others are
        patch.setattr(scratch.os, "readlink", forbidden)
        assert scratch.postmaster(left / "data") == pid
    stranger = ground.home / "scratch/precious"
    stranger.mkdir()
    outcome = ground.drill()
    assert stranger.is_dir()
    stranger.rmdir()
    assert not left.exists()
    until(lambda: not scratch._runs(pid), "the end of the killed drill's server")
    assert outcome.code == 0
    first, second = (each.drill for each in ground.proofs.read().records)
    assert first is not None
    assert (first.verdict, first.started_by) == ("inconclusive", "killed")
    assert second == outcome.drill


def forbidden(path: str) -> str:
    raise PermissionError(13, "Permission denied", path)


def test_a_pid_file_that_names_somebody_else_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/postmaster.pid").write_text(f"{os.getpid()}\n")
    assert scratch.postmaster(tmp_path / "data") == 0
    monkeypatch.setattr(scratch.os, "readlink", forbidden)
    assert scratch.postmaster(tmp_path / "data") == 0
    (tmp_path / scratch.MARK).write_text("{}")
    assert scratch.sweep(tmp_path.parent) == [tmp_path.name]


def test_two_hosts_that_drill_from_one_store_never_take_each_others_records_for_their_own(ground: Ground) -> None:
    """Whether they have names of their own or not; and one that was made anew under its old name is told."""
    first = replace(ground.proofs, by="drill1")
    others = [
        replace(first, by=name, folder=ground.home / name, journal=ground.home / f"{name}.log")
        for name in ("drill2", "drill1")
    ]
    record = ground.drill().drill
    shutil.rmtree(first.folder)
    for number, each in enumerate((first, others[0], first, others[0])):
        each.add(replace(record, drill_id=f"d{number}"), record.finished)
    assert [len(each.verify().chain.records) for each in (first, others[0])] == [2, 2]
    assert others[0].verify().chain.problems == ()
    others[1].add(replace(record, drill_id="d9"), record.finished)
    (problem,) = others[1].verify().chain.problems
    assert problem.startswith(f"The store holds 2 records of a chain of this host, {first.name}, that is not here")
    names = {each.key.split("/")[2] for each in ground.store.entries(f"{HOST}/evidence/drill")}
    assert names == {first.name, others[0].name, others[1].name}


def test_a_host_made_anew_vouches_for_the_chain_before_and_any_later_change_of_it_shows(ground: Ground) -> None:
    old = replace(ground.proofs, by="drill1")
    record = ground.drill().drill
    shutil.rmtree(old.folder)
    for number in range(3):
        old.add(replace(record, drill_id=f"d{number}"), record.finished)
    new = replace(old, folder=ground.home / "anew", journal=ground.home / "anew.log")
    with pytest.raises(ChainError, match=f"one of: {old.name}"):
        new.earlier("drill1-00000000", "ada", "never was")
    earlier = new.earlier(old.name, "ada", "disk died, host made anew")
    assert (earlier.number, earlier.sha256) == (3, old.read().head.sha256)
    new.add(earlier, record.finished)
    new.add(replace(record, drill_id="d9"), record.finished)
    found = new.verify()
    assert found.chain.whole
    assert found.earlier == (f"earlier chain {old.name}: 3 records, whole; ada: disk died, host made anew",)

    old.add(replace(record, drill_id="later"), record.finished)
    assert new.verify().chain.problems == (f"Earlier chain {old.name} has records beyond 3, where ada saw it end.",)
    folder = ground.home / "store" / HOST / "evidence" / old.name
    copies = sorted(folder.iterdir())
    copies[-1].unlink()
    copies[1].write_bytes(copies[0].read_bytes())
    assert not new.verify().chain.whole
    with pytest.raises(ChainError, match="are not whole"):
        new.earlier(old.name, "eve", "trust me")


def test_evidence_that_was_cut_off_or_written_anew_shows_by_its_copies_and_anchors(ground: Ground) -> None:
    for _ in range(3):
        ground.drill()
    whole = ground.proofs.chain.read_bytes()
    assert ground.proofs.verify().chain.problems == ()
    lines = whole.splitlines(keepends=True)
    ground.proofs.chain.write_bytes(b"".join(lines[:2]))
    problems = ground.proofs.verify().chain.problems
    assert problems == ("Record 3, noted elsewhere, is gone: the chain was cut or never had it.",) * 2  # journal, store
    data = json.loads(lines[2])
    data["record"]["drill"]["started_by"] = "another"
    body = json.dumps(data["record"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    data["sha256"] = hashlib.sha256(body.encode()).hexdigest()
    forged = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n"
    ground.proofs.chain.write_bytes(b"".join(lines[:2]) + forged.encode())
    assert (
        ground.proofs.verify().chain.problems[0]
        == "Record 3 is not the one that was noted elsewhere: it was written anew."
    )
