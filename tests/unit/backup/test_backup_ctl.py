# SPDX-License-Identifier: Apache-2.0
"""``slipway backup``: what a person reads, what a program reads, and the exit codes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from slipway import cli
from slipway.backup import config, ctl, unit, view
from slipway.backup.codec import to_plain
from slipway.backup.config import Config, Place
from slipway.backup.stores import setupcheck
from slipway.backup.stores.store import DirectoryStore
from slipway.backup.taking import runs, take
from slipway.host import following

from . import shelf as shelves
from .fake_s3 import FakeS3
from .shelf import Shelf
from .test_store import s3_store

NOW = datetime.now(UTC)
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(config, "STATE", tmp_path / "state")
    monkeypatch.setattr(shelves, "NOW", datetime.now(UTC))  # not that of the import: minutes ago in a long run
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    return tmp_path / "state"


@pytest.fixture
def call(tmp_path: Path, state: Path, capsys: pytest.CaptureFixture[str]) -> Call:
    assert state
    file = tmp_path / "config.json"
    settings = {"host": "db1", "place": {"kind": "directory", "path": str(tmp_path / "store")}, "databases": ["app"],
                "keeps": {"daily": 2, "weekly": 0, "monthly": 0, "minimum": 1}}  # fmt: skip
    file.write_text(json.dumps(settings))

    def run(*argv: str, **changes: Any) -> tuple[int, str, str]:
        file.write_text(json.dumps({**settings, **changes}))
        code = cli.main(["backup", *argv, "--config", str(file)])
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(DirectoryStore(tmp_path / "store"))


def test_the_list_has_size_age_and_proof_in_both_forms(call: Call, shelf: Shelf) -> None:
    assert "There is no backup" in call("list")[1]
    old, new = shelf.put(timedelta(days=1, hours=2), body=b"x" * 90_000), shelf.put(timedelta(hours=3))
    shelf.drill(old)
    code, out, _ = call("list")
    lines = out.splitlines()
    assert code == 0
    assert lines[1].startswith(new)
    assert "3 h" in lines[1]
    assert lines[1].endswith("not drilled yet")
    assert lines[2].endswith("proved")
    assert "sizes █▁" in out
    data = json.loads(call("list", "--json")[1])
    assert [(each["id"], each["proof"]) for each in data["backups"]] == [(new, "none"), (old, "proved")]
    assert 10_700 < data["backups"][0]["age_s"] < 11_000


def test_without_a_key_to_look_the_list_says_that_it_goes_by_the_records(call: Call, state: Path) -> None:
    run = runs.Run("20260315T030000Z-db1-0a1b2c", "db1", NOW, NOW, "good", taken=NOW, stored_bytes=1500)
    runs.append(state, run)
    bucket = {"kind": "s3", "endpoint": "https://e.example", "region": "r", "bucket": "b"}
    code, out, _ = call("list", place=bucket)
    assert code == 0
    assert run.id in out
    assert "by what this host recorded (no key here may look into the store)" in out
    assert json.loads(call("show", "--json", place=bucket)[1])["id"] == run.id
    assert call("show", "nothing", place=bucket)[0] == 1
    code, _, err = call("prune", place=bucket)
    assert code == 1
    assert "playbooks/prune_backups.yml" in err


def test_one_backup_in_full(call: Call, shelf: Shelf) -> None:
    name = shelf.put(timedelta(hours=3))
    code, out, _ = call("show")
    assert code == 0
    assert out.startswith(f"{name}  whole")
    assert "database notes" in out
    assert "object   00-dump-app" in out
    data = json.loads(call("show", name, "--json")[1])
    assert data["manifest"]["backup_id"] == name
    code, _, err = call("show", "nonsense")
    assert (code, err.count("\n")) == (1, 1)
    assert "slipway: There is no backup nonsense" in err


def test_check_fails_on_what_is_old_and_warns_of_what_shrank(call: Call, shelf: Shelf, state: Path) -> None:
    code, out, _ = call("check")
    assert (code, out) == (1, "problem: There is no whole backup.\n")
    for days in (4, 3, 2):
        shelf.put(timedelta(days=days), body=b"x" * 100_000)
    code, out, _ = call("check")
    assert code == 1
    assert "is 48 h old, limit 16 h" in out
    new = shelf.put(timedelta(hours=1))
    code, out, _ = call("check")
    assert code == 0
    assert "warning: The newest backup is" in out
    assert f"Backups are as they should be: {new} is 1 h old, limit 16 h" in out
    runs.append(state, runs.Run("20260315T030000Z-db1-0a1b2c", "db1", NOW, NOW, "failed", reason="No server."))
    data = json.loads(call("check", "--json")[1])
    assert data["good"] is True
    assert any("failed: No server." in text for text in data["warnings"])
    shelf.drill(new, "failed")
    assert call("check")[0] == 1


def test_pruning_shows_and_with_yes_removes(call: Call, shelf: Shelf) -> None:
    names = [shelf.put(timedelta(days=each)) for each in range(1, 6)]
    shelf.drill(names[0])
    code, out, _ = call("prune")
    assert code == 0
    assert "To remove it: slipway backup prune --yes" in out
    assert call("prune", "--yes", "--dry-run")[0] == 0
    assert len(json.loads(call("list", "--json")[1])["backups"]) == 5
    data = json.loads(call("prune", "--yes", "--json")[1])
    assert data["done"]["removed"] == [names[4], names[3], names[2]]
    assert [each["id"] for each in data["plan"]["keep"]] == names[:2]
    assert len(json.loads(call("list", "--json")[1])["backups"]) == 2


def test_a_held_backup_is_kept_until_it_is_let_go(call: Call, shelf: Shelf) -> None:
    names = [shelf.put(timedelta(days=each)) for each in range(1, 6)]
    shelf.drill(names[0])
    shelf.store.put(f"db1/holds/{names[4]}", b"before the move")
    assert "held: before the move" in call("list")[1]
    plan = json.loads(call("prune", "--json")[1])["plan"]
    assert [each["id"] for each in plan["remove"]] == [names[2], names[3]]
    assert call("release", names[4])[0] == 0
    assert "is not held" in call("release", names[4])[2]
    assert json.loads(call("prune", "--json")[1])["plan"]["remove"][-1]["id"] == names[4]


def test_a_writer_that_may_more_than_write_is_found_out(fake: FakeS3, call: Call) -> None:
    tries = setupcheck.writer(s3_store(fake), "db1", "one")
    assert [each.good for each in tries] == [True, True, False, False, False, False, False]
    assert "WRONG, it should be refused" in setupcheck.render(tries)
    fake.denied = {"GetObject", "HeadObject", "ListObjectsV2", "ListObjectVersions", "DeleteObject"}
    assert all(each.good for each in setupcheck.writer(s3_store(fake), "db1", "two"))
    assert fake.uploads == {}
    fake.denied.add("PutObject")
    assert not all(each.good for each in setupcheck.writer(s3_store(fake), "db1", "three"))
    assert "no keys to verify" in call("verify-setup")[1]


def test_settings_that_are_missing_or_wrong_are_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["backup", "list", "--config", str(tmp_path / "none.json")]) == 1
    assert "Backups are not set up on this host" in capsys.readouterr().err
    (tmp_path / "c.json").write_text('{"host": 7}')
    assert cli.main(["backup", "run", "--here", "--json", "--config", str(tmp_path / "c.json")]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["result"] == "failed"
    assert "host is 7" in err


def test_a_busy_run_ends_with_3(call: Call, state: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = take.Around
    monkeypatch.setattr(take, "Around", lambda **given: real(**{**given, "state": state, "metrics": tmp_path}))
    with runs.held(state, runs.Holder("x", NOW, "ann", 1)):
        code, out, err = call("run", "--here", "--json")
    assert code == 3
    assert json.loads(out)["result"] == "busy"
    assert "by ann" in err


@pytest.mark.parametrize("code", [0, 1])
def test_a_person_starts_the_unit_and_follows_it(
    call: Call, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    (tmp_path / "bin").mkdir()
    record = runs.Run("20260315T030000Z-db1-0a1b2c", "db1", NOW, NOW, "good", by="ann")
    (tmp_path / "record").write_text(json.dumps(to_plain(record)) + "\n")
    state.mkdir()
    systemctl = f"""#!/bin/sh
case "$1" in
is-active) echo inactive; exit 3;;
start) cp {tmp_path}/record {state}/runs.jsonl; echo 3 > {tmp_path}/left;;
show) left=$(cat {tmp_path}/left); echo $((left - 1)) > {tmp_path}/left
  echo InvocationID=abc; echo ExecMainStatus={code}
  [ $left -gt 0 ] && echo ActiveState=activating || echo ActiveState=inactive
  [ {code} = 0 ] && echo Result=success || echo Result=exit-code;;
esac
"""
    for name, text in (
        ("systemctl", systemctl),
        ("journalctl", f'#!/bin/sh\necho "$@" > {tmp_path}/journal\nexec sleep 9\n'),
    ):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setattr(following.ask, "__defaults__", (tmp_path / "requests",))
    monkeypatch.setenv("SUDO_USER", "ann")
    found, out, _ = call("run", "--json", "--hold", "before the move")
    assert found == code
    assert json.loads(out)["by"] == "ann"
    assert json.loads((tmp_path / "requests/backup.json").read_text()) == {"by": "ann", "hold": "before the move"}
    assert "_SYSTEMD_INVOCATION_ID=abc" in (tmp_path / "journal").read_text()
    monkeypatch.setenv("INVOCATION_ID", "abc")
    assert unit.asked("backup", tmp_path / "requests")["hold"] == "before the move"


def test_a_killed_run_is_recorded_and_told_once(
    call: Call, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(ctl.alarms, "send", lambda _alarms, event: told.append(event.text) or [])
    monkeypatch.setattr(take.Around.__init__, "__defaults__", _with_paths(state, tmp_path))
    assert call("alarm", "--unit", "slipway-drill.service")[0] == 0
    assert "The unit slipway-drill of db1 failed" in told.pop()
    monkeypatch.setenv("MONITOR_SERVICE_RESULT", "exit-code")
    for status, times in (("4", 0), ("5", 0), ("1", 1)):  # with a verdict it told so itself; without one it could not
        monkeypatch.setenv("MONITOR_EXIT_STATUS", status)
        assert call("alarm", "--unit", "slipway-drill.service")[0] == 0
        assert len(told) == times
    assert "slipway-drill of db1 failed (it ended with code 1): see journalctl" in told[0]
    monkeypatch.delenv("MONITOR_SERVICE_RESULT")
    told.clear()
    state.mkdir()
    note = runs.Holder("20260315T030000Z-db1-0a1b2c", NOW, "", 77)
    (state / "lock").write_bytes(take.manifest.canonical(note))
    assert call("alarm", "--unit", "slipway-backup")[0] == 0
    assert "its process 77 was killed" in told.pop()
    assert call("alarm", "--unit", "slipway-backup")[0] == 0  # told already, by the record
    assert told == []
    assert [each.id for each in runs.records(state)] == [note.id]
    assert "slipway_backup_last_run_good 0" in (tmp_path / "backup.prom").read_text()


def _with_paths(state: Path, metrics: Path) -> tuple[Any, ...]:
    defaults = list(take.Around.__init__.__defaults__ or ())
    names = list(take.Around.__dataclass_fields__)[-len(defaults) :]
    defaults[names.index("state")], defaults[names.index("metrics")] = state, metrics
    return tuple(defaults)


def test_status_says_how_old_the_newest_is_where_it_lies_and_where_drills_run(
    call: Call, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "config.json"
    assert ctl.status(NOW, tmp_path / "none") is None
    assert call("list")[0] == 0
    found = ctl.status(NOW, file)
    assert found is not None
    assert (found["newest"], found["problems"]) == (None, ["There is no whole backup."])
    assert "none yet" in ctl.line(found)
    monkeypatch.setattr(config, "CREDENTIALS", tmp_path)
    (tmp_path / "identity.cred").touch()
    run = runs.Run(
        "20260315T030000Z-db1-0a1b2c", "db1", NOW, NOW, "good", taken=NOW - timedelta(hours=2), stored_bytes=1500
    )
    runs.append(state, run)
    runs.append(state, replace(run, id="20260315T040000Z-db1-0a1b2c", result="failed", reason="No server."))
    found = ctl.status(NOW, file)
    assert found is not None
    assert ctl.line(found) == (
        f"backups: {run.id}, 2 h old, 1.5 kB in {tmp_path}/store; the last run FAILED: No server.; "
        "drills on this host (the identity is here, sealed)"
    )
    assert found["problems"] == []


def test_bars_and_sizes_are_readable() -> None:
    assert view.sparkline([0, 1, 2, 4]) == "▁▃▅█"
    assert view.sparkline([]) == view.sparkline([0, 0]) == ""
    assert [view.size(each) for each in (0, 999, 1500, 2_340_000_000, 5e15)] == [
        "0 B",
        "999 B",
        "1.5 kB",
        "2.3 GB",
        "5000 TB",
    ]


@pytest.mark.parametrize(("tier", "interval", "limit"), [("startup", 43_200, 57_600), ("startup", 80_000, 86_400), ("growth", 86_400, 100_800)])  # fmt: skip
def test_how_old_is_too_old(tier: str, interval: int, limit: int) -> None:
    settings = Config("db1", Place("directory", "/x"), (), tier=tier, interval_s=interval)
    row = view.Row("a", NOW - timedelta(seconds=limit + 60), 5, 5, 5, 1)
    assert view.judge(settings, [row], [], NOW).limit_s == limit
    assert view.judge(settings, [row], [], NOW).problems
    young = replace(row, taken=NOW - timedelta(seconds=limit - 60))
    assert view.judge(settings, [young], [], NOW).problems == ()
    future = replace(row, taken=NOW + timedelta(hours=1))
    assert "a clock is wrong" in view.judge(settings, [future], [], NOW).problems[0]
