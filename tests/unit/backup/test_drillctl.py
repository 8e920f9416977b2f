# SPDX-License-Identifier: Apache-2.0
"""The command of drills, a bucket that misbehaves under one, and what others are told of them."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from slipway import cli
from slipway.backup import alarms, config, metrics, unit
from slipway.backup.config import Config, Place
from slipway.backup.drills import ctl as drillctl
from slipway.backup.drills import watch as drillwatch
from slipway.backup.drills.evidence import Drill, Tried
from slipway.backup.verdict import Check, Recovery, Steps
from slipway.host import following

from .drilling import Ground, ground, keys, rich
from .fake_s3 import FakeS3, Fault
from .taking import HOST, Taker
from .test_store import s3_store

__all__ = ["ground", "keys", "rich"]


def test_a_bucket_that_hides_overwrites_and_breaks_off_does_not_deceive_a_drill(
    ground: Ground, rich: str, fake: FakeS3
) -> None:
    ground.store = s3_store(fake)
    ground.taker = Taker(ground.store, ground.taker.recipients)
    older = ground.taker.take([rich], age=600)
    newest = ground.taker.take([rich])
    fake.hide(f"{HOST}/{newest.backup_id}/manifest.json")
    fake.hide(newest.objects[1].key)
    ground.store.put(newest.objects[0].key, b"another globals, by a stolen key")
    other = b"".join(ground.store.read(f"{HOST}/{older.backup_id}/manifest.json"))
    ground.store.put(f"{HOST}/{older.backup_id}/manifest.json", other + b" ")
    fake.faults = [Fault("GetObject", "cut"), Fault("GetObject", "cut"), Fault("PutObject", "lost")]
    outcome = ground.drill()
    assert (outcome.code, outcome.drill.tried[0].backup_id) == (0, newest.backup_id)
    assert any("hidden by a delete marker" in each for each in outcome.drill.notes)
    assert outcome.warnings == ()
    assert ground.proofs.verify().chain.problems == ()
    outcome = ground.drill(only=older.backup_id)
    assert outcome.code == 0
    assert any("was written 2 times: the first counts" in each for each in outcome.drill.notes)


def test_a_bucket_that_is_away_makes_a_drill_inconclusive_and_keeps_its_evidence(ground: Ground, fake: FakeS3) -> None:
    ground.store = s3_store(fake, attempts=1)
    fake.close()
    outcome = ground.drill()
    assert (outcome.code, outcome.drill.verdict) == (5, "inconclusive")
    assert "the store could not be read" in outcome.drill.checks[0].actual
    assert "the store took no copy of record 1" in outcome.warnings[0]
    assert len(ground.proofs.read().records) == 1
    unasked = ground.proofs.verify().unasked
    assert "the copies in the store could not be read" in unasked[0]


@pytest.fixture
def command(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Arguments that every verb takes here; credentials, metrics and journal of our own."""
    credentials = ground.home / "credentials"
    credentials.mkdir()
    (credentials / "identity").write_bytes(Path(ground.identity).read_bytes())
    (credentials / "alarms").write_text(json.dumps({"webhook": "http://127.0.0.1:9/x"}))
    (ground.home / "metrics").mkdir()
    (ground.home / "requests").mkdir()
    (ground.home / "assertions.json").write_text('[{"query": "SELECT 1", "value": 1}]')
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    monkeypatch.setattr(config, "METRICS", ground.home / "metrics")
    monkeypatch.setattr(unit.asked, "__defaults__", (ground.home / "requests",))
    monkeypatch.setenv("INVOCATION_ID", "1")
    monkeypatch.setattr(
        "slipway.backup.drills.proofs.Proofs.__init__.__defaults__", (ground.home / "journal.jsonl", None, "")
    )
    file = ground.home / "config.json"
    file.write_text(json.dumps(asdict(replace(ground.config, alarms=True))))
    return ["--config", str(file), "--state", str(ground.home / "state")]


def test_the_command_runs_shows_lists_notes_and_verifies(
    ground: Ground, rich: str, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    taken = ground.taker.take([rich])
    following.ask("drill", {"by": "ann", "backup": ""}, ground.home / "requests")
    assert cli.main(["drill", "run", "--here", *command]) == 0
    said = capsys.readouterr().out
    assert f"{taken.backup_id}: proved" in said
    assert "13 of 13 checks passed" in said
    text = (ground.home / "metrics/drill.prom").read_text()
    assert "slipway_drill_last_run_good 1" in text
    assert 'slipway_drill_verdict{verdict="proved"} 1' in text
    assert cli.main(["drill", "list", "--json", *command]) == 0
    (listed,) = json.loads(capsys.readouterr().out)["drills"]
    assert listed["started_by"] == "ann"
    note = ["drill", "note", listed["drill_id"], "--by", "bo", "--sign-off", "seen"]
    assert cli.main([*note, *command]) == 0
    assert "Record 2" in capsys.readouterr().out
    assert cli.main(["drill", "show", *command]) == 0
    assert "| bo |  | seen |" in capsys.readouterr().out
    assert cli.main(["drill", "anchor", *command]) == 0
    assert cli.main(["drill", "verify-chain", *command]) == 0
    assert "2 records" in capsys.readouterr().out
    chain = ground.home / "state/evidence.jsonl"
    chain.write_bytes(chain.read_bytes().replace(b'"by":"bo"', b'"by":"ed"'))
    assert cli.main(["drill", "verify-chain", *command]) == 4
    assert "record 2 does not match its own hash" in capsys.readouterr().out


def test_a_failed_drill_ends_with_4_and_an_alarm(
    ground: Ground, rich: str, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    taken = ground.taker.take([rich])
    ground.store.delete(taken.objects[1].key, "")
    assert cli.main(["drill", "run", "--here", "--json", *command]) == 4
    answer = json.loads(capsys.readouterr().out)
    assert (answer["code"], answer["drill"]["verdict"]) == (4, "failed")
    assert any("webhook to 127.0.0.1" in each for each in answer["warnings"])  # it was tried, and nobody listens
    assert cli.main(["drill", "show", "nothing", *command]) == 1
    assert "There is no drill nothing on record" in capsys.readouterr().err
    assert cli.main(["drill", "note", answer["drill"]["drill_id"], "--by", "x", *command]) == 1
    assert "The note is empty" in capsys.readouterr().err


AT = datetime(2026, 1, 31, 3, tzinfo=UTC)
TRIED = Tried("20260131T030000Z-h-0a1b2c", "h", AT, "0" * 64, {}, "proved")
SETTINGS = Config("h", Place("directory", "/x"), ())


def made(verdict: str, *tried: Tried, misses: tuple[str, ...] = ()) -> Drill:
    recovery = Recovery("startup", 60_000, 14_400_000, 3_600_000, 43_200_000, 86_400_000, misses)
    good = verdict == "proved"
    return Drill(
        "20260131T040000Z-aaaaaa", "h", "timer", AT, AT + timedelta(minutes=5), verdict, tried,
        (Check("restore", "passed" if good else "skipped", "", "because"),), {}, Steps(1, 2, 3, 4) if good else None,
        recovery if good else None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("drill", "outcome", "words"),
    [
        (made("proved", TRIED), "good", "RTO 1 min 00 s, RPO 1 h"),
        (made("proved", TRIED, misses=("RTO too long",)), "failed", "RTO too long"),
        (made("proved", replace(TRIED, verdict="failed", reasons=("cut",)), TRIED), "failed", "What can be restored is of 2026-01-31"),
        (made("failed", replace(TRIED, verdict="failed", reasons=("objects: gone",))), "failed", "objects: gone"),
        (made("inconclusive"), "failed", "because"),
    ],
)  # fmt: skip
def test_only_a_proved_newest_backup_within_its_targets_is_good_news(drill: Drill, outcome: str, words: str) -> None:
    event = drillwatch.event(SETTINGS, drill)
    assert (event.subject, event.outcome) == ("drill", outcome)
    assert words in event.text
    assert alarms.body(event)


def test_metrics_keep_the_newest_proof_when_later_drills_failed() -> None:
    failed = replace(made("failed", replace(TRIED, verdict="failed")), finished=AT + timedelta(days=7))
    text = metrics.render(drillwatch.metrics(SETTINGS, [made("proved", TRIED), failed]))
    assert f"slipway_drill_newest_proof_timestamp_seconds {int((AT + timedelta(minutes=5)).timestamp())}" in text
    assert "slipway_drill_last_run_good 0" in text
    assert 'slipway_drill_verdict{verdict="failed"} 1' in text
    assert "slipway_drill_rto_seconds 60" in text
    assert "slipway_drill_rto_target_seconds 14400" in metrics.render(drillwatch.metrics(SETTINGS, []))


def test_assertions_are_those_beside_the_settings(tmp_path: Path) -> None:
    assert drillctl.wanted(tmp_path / "config.json") == ()
    (tmp_path / "assertions.json").write_text('[{"query": "SELECT 1", "value": 1}]')
    assert len(drillctl.wanted(tmp_path / "config.json")) == 1
