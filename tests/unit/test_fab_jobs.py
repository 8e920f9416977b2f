# SPDX-License-Identifier: Apache-2.0
"""Background workers as ``fab`` shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from slipway.errors import InputError

from console import judge, status, ways_in
from console.hosts import Endpoint, Fleet


def test_their_lines_are_among_the_apps_and_alone_by_their_own_name() -> None:
    journal = ["sudo", "-n", "--", "journalctl", "--no-pager", "--output=short-iso"]
    jobs = {"notes": ["mail"], "notes_old": ["mail"]}
    mine = ways_in.logs_command("notes", ["notes", "notes_old"], jobs=jobs)
    assert mine == [*journal, "--identifier=slipway-notes", "--identifier=slipway-notes-mail", "--lines=100"]
    assert ways_in.logs_command("notes-mail", ["notes"], jobs=jobs) == [
        *journal,
        "--identifier=slipway-notes-mail",
        "--lines=100",
    ]
    with pytest.raises(InputError, match="did you mean notes-mail"):
        ways_in.logs_command("notes-mal", ["notes"], jobs=jobs)


@pytest.mark.parametrize(
    ("job", "text", "level"),
    [
        ({"running": 2}, "2 of 2 mail", "good"),
        ({"running": 2, "restarts": 3}, "2 of 2 mail (restarted 3 times)", "warn"),
        ({"running": 1, "restarts": 3}, "1 of 2 mail (restarted 3 times)", "bad"),
    ],
)
def test_background_workers_have_a_row_of_their_own(job: dict[str, Any], text: str, level: str) -> None:
    jobs = [{"name": "mail", "count": 2, "restarts": 0, "memory_limit_mb": 256, **job}]
    seen = {"apps": [{"app": "notes", "release": "R1", "health": "healthy", "jobs": jobs}]}
    (row,) = [row for row in judge.rows_of(seen, ["notes"]) if row.label == "jobs notes"]
    assert (row.text, row.level) == (text, level)


def test_an_app_with_background_workers_is_on_rung_3() -> None:
    host = Endpoint("web1", "192.0.2.1", groups=("app", "db", "edge"))
    apps = {"apps": [{"app": "notes", "release": "R1", "jobs": [{"name": "mail", "count": 1, "running": 1}]}]}
    seen = {"apps": apps, "system": {"ram_mb": 3936}}
    report = judge.Report("web1", "192.0.2.1", host.groups, seen=seen)
    fleet = Fleet(Path("inventories/production"), "production", (host,), (), {})
    assert status.summary(fleet, [report])["rung"] == {"number": 3, "name": "workers"}
