# SPDX-License-Identifier: Apache-2.0
"""What is said of a running PgBouncer, and which of its entries may be paused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from slipway.postgres.cluster import newest_change
from slipway.postgres.pooler import Client, differing, paused, transaction_entries


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
