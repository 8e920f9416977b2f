# SPDX-License-Identifier: Apache-2.0
"""What is said of a running PgBouncer, and which of its entries may be paused."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from slipway.commands import Outcome
from slipway.postgres import pooler
from slipway.postgres.cluster import newest_change
from slipway.postgres.pooler import Client, PoolerError, differing, left_paused, paused, transaction_entries


@pytest.mark.parametrize(
    ("wished", "running"),
    [("transaction", "transaction"), ("30", "30"), ("30", "30.0"), ("secure", "tlsv1.2,tlsv1.3"), ("", "")],
)
def test_a_setting_that_runs_as_written_is_not_named(wished: str, running: str) -> None:
    assert differing({"x": wished}, {"x": running}) == []


def test_settings_that_run_otherwise_or_are_unknown_are_named() -> None:
    assert differing({"pool_mode": "transaction", "max_client_conn": "500", "no_such": "1"}, {"pool_mode": "session", "max_client_conn": "100"}) == [
        "max_client_conn is '100', expected '500'",
        "no_such is unknown to this PgBouncer",
        "pool_mode is 'session', expected 'transaction'",
    ]  # fmt: skip


def test_sessions_and_the_console_are_never_paused() -> None:
    rows = [("notes", "transaction"), ("notes_session", "session"), ("blog", None), ("pgbouncer", "statement")]
    assert transaction_entries(rows, ["name", "pool_mode"]) == ["notes", "blog"]


@pytest.mark.parametrize("port", [0, 6432])
def test_nothing_is_paused_where_there_is_no_pooler(port: int, tmp_path: Path) -> None:
    with paused(port, str(tmp_path)) as held:
        assert held is False


class Console:
    """A pooler's console with two entries of apps, and the commands that went to it and around it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, pause_code: int = 0) -> None:
        self.said: list[str] = []
        self.pause_code = pause_code
        self.description = [Column("name"), Column("pool_mode"), Column("paused")]
        monkeypatch.setattr(pooler, "console", lambda *_: contextlib.nullcontext(self))
        monkeypatch.setattr(pooler, "run", self.run)

    def execute(self, _text: str) -> Console:
        return self

    def fetchall(self) -> list[tuple[str, str, int]]:
        return [("notes", "transaction", 0), ("notes_session", "session", 0), ("blog", "transaction", 1)]

    def run(self, argv: list[str], **_: object) -> Outcome:
        words = " ".join(argv)
        self.said.append(
            "arm" if argv[0] == "systemd-run" else "disarm" if argv[0] == "systemctl" else words.split("pgbouncer ")[-1]
        )
        return Outcome(tuple(argv), self.pause_code if argv[0] == "timeout" else 0, "", "")


@dataclass(frozen=True)
class Column:
    name: str


def test_what_lets_go_in_our_place_is_armed_before_the_pause_and_disarmed_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    console = Console(monkeypatch)
    (tmp_path / ".s.PGSQL.6432").touch()
    with paused(6432, str(tmp_path)) as held:
        console.said.append("restart")
    assert held
    assert console.said == [
        "disarm", "arm", "-c PAUSE notes", "-c PAUSE blog", "restart", "-c RESUME notes -c RESUME blog", "disarm",
    ]  # fmt: skip


def test_transactions_that_do_not_end_in_time_stop_it_and_everybody_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    console = Console(monkeypatch, pause_code=124)
    (tmp_path / ".s.PGSQL.6432").touch()
    with pytest.raises(PoolerError, match="still at work after 3 s"), paused(6432, str(tmp_path), at_most=3):
        console.said.append("restart")
    assert "restart" not in console.said
    assert console.said[-2:] == ["-c RESUME notes -c RESUME blog", "disarm"]


def test_entries_that_were_left_paused_are_named() -> None:
    assert left_paused([("notes", 1), ("blog", 0), ("pgbouncer", 1)], ["name", "paused"]) == ["notes"]


def test_a_client_never_shows_its_password() -> None:
    assert "planted-secret" not in repr(Client("notes", "notes", "planted-secret"))


def test_the_newest_change_is_found_in_folders_below(tmp_path: Path) -> None:
    deep = tmp_path / "conf.d" / "10.conf"
    deep.parent.mkdir()
    deep.write_text("")
    for path, when in ((tmp_path, 10.0), (deep.parent, 20.0), (deep, 30.0)):
        os.utime(path, (when, when))
    assert newest_change([tmp_path, tmp_path / "missing"]) == 30.0
    assert newest_change([tmp_path / "missing"]) == 0.0
