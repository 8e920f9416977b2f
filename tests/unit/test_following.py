# SPDX-License-Identifier: Apache-2.0
"""What a unit said, as the journal has it."""

from __future__ import annotations

import json

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
