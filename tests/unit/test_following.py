# SPDX-License-Identifier: Apache-2.0
"""What a unit said, as the journal has it, and which run of it is ours."""

from __future__ import annotations

import json

import pytest
from slipway.host import following
from slipway.host.following import read_journal


def entry(message: object, cursor: str, comm: str = "slipway") -> str:
    return json.dumps({"MESSAGE": message, "__CURSOR": cursor, "_COMM": comm})


def test_only_the_units_own_words_are_shown_and_the_cursor_is_behind_all() -> None:
    text = "\n".join([entry("Starting it", "a", "systemd"), entry("notes: 7 MB", "b"), entry("Done", "c", "systemd")])
    assert read_journal(text) == (("notes: 7 MB",), "c")


def test_bytes_that_are_no_text_are_shown_all_the_same() -> None:
    assert read_journal(entry([104, 255, 105], "a"))[0] == ("h\N{REPLACEMENT CHARACTER}i",)


def test_silence_has_no_cursor() -> None:
    assert read_journal("") == ((), "")


@pytest.mark.parametrize("before", ["", "the-last-one"])
def test_a_run_is_followed_by_its_own_id_also_where_systemd_takes_its_time(
    monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    """A busy host: the unit of the run before is still there for a moment, then there is none, then ours begins."""
    shown = iter([before, before, "", "ours"])
    monkeypatch.setattr(
        following, "_show", lambda _unit: {"ActiveState": "failed", "SubState": "failed", "InvocationID": next(shown)}
    )
    asked: list[list[str]] = []
    monkeypatch.setattr(following, "run", lambda argv, **_: asked.append(argv))
    assert following.start_command("slipway-asked.service", ["true"]) == "ours"
    assert asked[-1][0] == "systemd-run"


def test_a_run_that_never_begins_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "_show", lambda _unit: {"InvocationID": "the-last-one"})
    monkeypatch.setattr(following, "run", lambda *_args, **_: None)
    monkeypatch.setattr(following, "START_SECONDS", 0.05)
    with pytest.raises(following.WorkError, match="did not start"):
        following.start_command("slipway-asked.service", ["true"])
