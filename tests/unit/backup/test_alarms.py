# SPDX-License-Identifier: Apache-2.0
"""Alarms reach whoever they should, keep their URLs to themselves, and fail nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from slipway.backup import alarms, config, metrics
from slipway.backup.alarms import Alarms, Event, Mail
from slipway.backup.codec import FormatError
from slipway.backup.config import Config, Place
from slipway.backup.taking import runs

NOW = datetime(2026, 3, 15, 3, tzinfo=UTC)
FAILED = runs.Run(
    "20260315T030000Z-db1-0a1b2c", "db1", NOW, NOW + timedelta(seconds=9), "failed", reason="The disk is full."
)


class Ears:
    """An HTTP server that remembers what it was told; ``status``: how it answers."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []
        self.status = 200
        ears = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                ears.heard.append((self.path, body))
                self.send_response(ears.status)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Silence."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def ears() -> Iterator[Ears]:
    made = Ears()
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_a_ping_at_start_and_end_and_a_webhook_for_failures_alone(ears: Ears) -> None:
    to = Alarms({"backup": f"{ears.url}/planted-uuid"}, f"{ears.url}/hook")
    assert alarms.send(to, alarms.started("backup", "db1")) == []
    good = runs.Run(FAILED.id, "db1", NOW, NOW, "good", stored_bytes=17, warnings=("Look here.",))
    assert alarms.send(to, alarms.ended("backup", good)) == []
    assert alarms.send(to, alarms.ended("backup", FAILED)) == []
    assert alarms.send(to, Event("drill", "db1", "good", "another subject")) == []
    assert [path for path, _ in ears.heard] == ["/planted-uuid/start", "/planted-uuid", "/planted-uuid/fail", "/hook"]
    assert "Look here." in ears.heard[1][1]
    assert ears.heard[2][1].endswith("FAILED: The disk is full.")
    told = json.loads(ears.heard[3][1])
    assert (told["outcome"], told["reason"], told["host"]) == ("failed", "The disk is full.", "db1")
    assert "The disk is full." in told["text"]


def test_an_alarm_that_fails_is_a_complaint_without_its_secret(ears: Ears) -> None:
    ears.status = 404
    to = Alarms(
        {"backup": f"{ears.url}/planted-uuid"}, "http://127.0.0.1:1/planted-hook", Mail(("a@b",), "c@d", "127.0.0.1", 1)
    )
    complaints = alarms.send(to, alarms.ended("backup", FAILED))
    assert complaints[0] == "The alarm by ping to 127.0.0.1 could not be sent: it answered 404."
    assert complaints[1].startswith("The alarm by webhook to 127.0.0.1 could not be sent: ")
    assert complaints[2].startswith("The alarm by mail by 127.0.0.1 could not be sent: ")
    assert "planted" not in f"{complaints} {to!r}"
    assert alarms.send(None, alarms.ended("backup", FAILED)) == []


def test_mail_goes_by_sendmail_where_there_is_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "sendmail"
    program.write_text(f'#!/bin/sh\necho "$*" > {tmp_path}/out; cat >> {tmp_path}/out\n')
    program.chmod(0o755)
    monkeypatch.setattr(alarms, "_SENDMAIL", str(program))
    assert alarms.send(Alarms(mail=Mail(("ops@example.org",), "slipway@db1")), alarms.ended("backup", FAILED)) == []
    assert (tmp_path / "out").read_text().startswith("-i -f slipway@db1 -- ops@example.org\nFrom: slipway@db1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"webhook": "file:///etc/planted"}', "an alarm's URL is none"),
        ('{"hook": "x"}', "unknown key 'hook'"),
        ('{"mail": {"to": [], "sender": "a"}}', "no recipient"),
        ('{"mail": {"to": ["a"], "sender": "a", "user": "u", "security": "none"}}', "unprotected"),
        ('{"mail": {"to": ["a"], "sender": "a", "security": "maybe"}}', "no way to secure"),
    ],
)
def test_a_credential_that_cannot_be_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert alarms.load() is None
    (tmp_path / "alarms").write_text(text)
    with pytest.raises(FormatError, match=message) as caught:
        alarms.load()
    assert "planted" not in str(caught.value)
    (tmp_path / "alarms").write_text('{"ping": {"backup": "https://hc-ping.com/x"}}')
    assert alarms.load() == Alarms({"backup": "https://hc-ping.com/x"})


def test_metrics_are_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    settings = Config("db1", Place("directory", "/x"), ())
    good = runs.Run("20260314T030000Z-db1-0a1b2c", "db1", NOW - timedelta(days=1), NOW - timedelta(hours=23), "good",
                    taken=NOW - timedelta(days=1), stored_bytes=5, databases={'a"\\\n': runs.Seen(7, 3, 1, 1500)})  # fmt: skip
    assert metrics.write(tmp_path, "backup", lambda: metrics.backup(settings, [good, FAILED, FAILED])) == []
    text = (tmp_path / "backup.prom").read_text()
    assert f"slipway_backup_newest_timestamp_seconds {int((NOW - timedelta(days=1)).timestamp())}\n" in text
    assert "slipway_backup_last_run_good 0\n" in text
    assert "slipway_backup_failed_runs 2\n" in text
    assert 'slipway_backup_snapshot_held_seconds{database="a\\"\\\\\\n"} 1.500\n' in text
    assert (tmp_path / "backup.prom").stat().st_mode & 0o777 == 0o644
    for line in text.splitlines():
        assert line.startswith("# ") or len(line.rsplit(" ", 1)) == 2
    assert "could not be written" in metrics.write(tmp_path / "none", "backup", lambda: [])[0]
    assert [path.name for path in tmp_path.iterdir()] == ["backup.prom"]
    assert config.METRICS.name == "metrics"


def test_records_survive_a_line_that_a_crash_cut_off_and_stay_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.append(tmp_path, FAILED)
    with (tmp_path / "runs.jsonl").open("ab") as file:
        file.write(b'{"id": "cut')
    runs.append(tmp_path, FAILED)
    assert runs.records(tmp_path) == [FAILED, FAILED]
    monkeypatch.setattr(runs, "KEPT", 10)
    for _ in range(20):
        runs.append(tmp_path, FAILED)
    assert 5 <= len(runs.records(tmp_path)) <= 10
    assert [path.name for path in tmp_path.iterdir()] == ["runs.jsonl"]
