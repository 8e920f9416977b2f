# SPDX-License-Identifier: Apache-2.0
"""Evidence: no record can be altered, dropped, added or swapped without the chain saying so."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slipway.backup.codec import FormatError, canonical
from slipway.backup.drills.evidence import EMPTY, Drill, Head, Note, Tried, append, load, notes_on, seal, verify_chain
from slipway.backup.drills.evidence_view import markdown
from slipway.backup.verdict import Check, Recovery, Steps

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)
DRILL = Drill(
    "20260315T120000Z-db1", "drill1", "timer", NOW, NOW + timedelta(minutes=4), "proved",
    (Tried("20260315T030000Z-db1-0a1b2c", "db1", NOW - timedelta(hours=9), "a" * 64, {"db1/x/dump": "b" * 64}, "proved"),),
    (Check("counts", "passed", "exact rows"), Check("assertions", "not applicable")),
    {"pg_restore": "17.6"},
    Steps(1000, 200, 3000, 400),
    Recovery("startup", 4600, 14_400_000, 32_400_000, 86_000_000, 86_400_000),
)  # fmt: skip


def chain_of(count: int) -> tuple[list[bytes], list[Head]]:
    lines, heads, head = [], [], EMPTY
    for n in range(count):
        content = Note(DRILL.drill_id, "ada", f"fix {n}") if n % 3 == 2 else replace(DRILL, drill_id=f"d{n}")
        line, head = seal(content, NOW + timedelta(days=n), head)
        lines.append(line)
        heads.append(head)
    return lines, heads


def test_a_chain_as_written_is_whole_and_reads_back() -> None:
    lines, heads = chain_of(7)
    chain = verify_chain(lines, heads)
    assert chain.whole
    assert chain.head == heads[-1]
    assert chain.records[0].drill == replace(DRILL, drill_id="d0")
    assert verify_chain([]).head == EMPTY


@given(st.integers(2, 6), st.data())
@settings(max_examples=80)
def test_any_altered_byte_shows(count: int, data: st.DataObject) -> None:
    lines, _heads = chain_of(count)
    which = data.draw(st.integers(0, count - 1))
    line = bytearray(lines[which])
    place = data.draw(st.integers(0, len(line) - 1))
    line[place] ^= data.draw(st.integers(1, 255))
    lines[which] = bytes(line)
    assert not verify_chain(lines).whole


@given(st.integers(2, 6), st.data())
def test_a_dropped_doubled_or_swapped_record_shows(count: int, data: st.DataObject) -> None:
    lines, heads = chain_of(count)
    which = data.draw(st.integers(0, count - 2))
    dropped = lines[:which] + lines[which + 1 :]
    doubled = lines[: which + 1] + lines[which:]
    swapped = list(lines)
    swapped[which], swapped[which + 1] = swapped[which + 1], swapped[which]
    for forged in (dropped, doubled, swapped):
        assert not verify_chain(forged).whole
    assert not verify_chain(lines[:-1], heads).whole  # the end cut off: only an anchor can tell


def test_a_record_exchanged_with_its_hash_made_to_fit_shows_at_the_next_one() -> None:
    lines, heads = chain_of(3)
    lines[1], _head = seal(replace(DRILL, verdict="failed"), NOW + timedelta(days=1), heads[0])
    assert verify_chain(lines).problems == (
        "Record 3 does not follow the record before it: one of them was exchanged.",
    )  # fmt: skip


def test_a_chain_written_anew_from_some_point_shows_against_an_anchor() -> None:
    lines, heads = chain_of(2)
    forged, _head = seal(replace(DRILL, drill_id="better"), NOW + timedelta(days=1), heads[0])
    assert verify_chain([lines[0], forged]).whole
    assert verify_chain([lines[0], forged], [heads[1]]).problems == (
        "Record 2 is not the one that was noted elsewhere: it was written anew.",
    )  # fmt: skip


def test_a_record_dated_before_its_predecessor_shows() -> None:
    first, head = seal(DRILL, NOW)
    second, _head = seal(DRILL, NOW - timedelta(days=1), head)
    assert "dated before" in verify_chain([first, second]).problems[0]


def test_the_same_record_in_other_writing_is_not_the_same_line() -> None:
    """Spaces would not change the hash of the content; the line must be canonical all the same."""
    lines, _heads = chain_of(1)
    loose = json.dumps(json.loads(lines[0])).encode() + b"\n"
    assert not verify_chain([loose]).whole


def test_appending_makes_a_whole_chain_also_from_several_threads(tmp_path: Path) -> None:
    path = tmp_path / "drills.jsonl"
    threads = [threading.Thread(target=append, args=(path, DRILL, NOW)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    chain = load(path)
    assert chain.whole
    assert len(chain.records) == 8
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_line_cut_by_a_crash_is_set_aside_and_the_next_record_follows_the_last_whole_one(tmp_path: Path) -> None:
    path = tmp_path / "drills.jsonl"
    append(path, DRILL, NOW)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:50])
    assert "cut off" in load(path).problems[0]
    append(path, DRILL, NOW)
    assert load(path).whole
    assert (tmp_path / "drills.jsonl.cut").read_bytes() == whole[:50] + b"\n"


def test_a_broken_chain_is_added_to_and_goes_on_being_named(tmp_path: Path) -> None:
    path = tmp_path / "drills.jsonl"
    append(path, DRILL, NOW)
    path.write_bytes(path.read_bytes().replace(b"drill1", b"drill2"))
    append(path, DRILL, NOW)
    chain = load(path)
    assert not chain.whole
    assert len(chain.records) == 1


def test_the_record_is_kept_when_its_copy_cannot_be_published(tmp_path: Path) -> None:
    def away(_number: int, _line: bytes) -> None:
        raise ConnectionError("bucket unreachable")

    path = tmp_path / "drills.jsonl"
    with pytest.raises(ConnectionError):
        append(path, DRILL, NOW, away)
    assert load(path).head.number == 1
    copies: list[tuple[int, bytes]] = []
    append(path, DRILL, NOW, lambda number, line: copies.append((number, line)))
    assert copies[0][0] == 2
    assert path.read_bytes().endswith(copies[0][1])


def test_notes_are_records_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "drills.jsonl"
    append(path, DRILL, NOW)
    append(path, Note(DRILL.drill_id, "ada", "made the disk larger", "ada, 2026-03-16"), NOW)
    append(path, Note("another", "bob"), NOW)
    (note,) = notes_on(load(path), DRILL.drill_id)
    assert note.sign_off == "ada, 2026-03-16"


def test_a_drill_that_proved_nothing_cannot_say_proved() -> None:
    with pytest.raises(FormatError, match="without a backup"):
        replace(DRILL, tried=())
    with pytest.raises(FormatError, match="no verdict"):
        replace(DRILL, verdict="fine")


def page(drill: Drill, *notes: Note) -> str:
    line, head = seal(drill, NOW)
    return markdown(verify_chain([line]).records[0], head.sha256, notes)


def test_the_page_has_what_an_auditor_asks_for() -> None:
    text = page(DRILL, Note(DRILL.drill_id, "ada", "none needed", "ada"))
    for wanted in (
        "# Restore drill 20260315T120000Z-db1: proved", "2026-03-15 12:00:00, 2026-03-15 12:04:00", "timer",
        "| counts | passed | exact rows |", "| RTO | 4.6 s | 4 h |", "| RPO at worst | 23 h 53 min | 24 h |",
        "Targets met.", "Not run: none.", "`" + "b" * 64 + "`", "| ada | none needed | ada |", "pg_restore 17.6",
    ):  # fmt: skip
        assert wanted in text, wanted


def test_the_page_names_what_was_not_run_and_promises_nothing_that_was_not_proved() -> None:
    checks = (Check("structure", "skipped", "no damage", "pg_amcheck is | not <installed>"),)
    text = page(replace(DRILL, verdict="inconclusive", checks=checks, recovery=None, steps=None))
    assert "Not run: structure." in text
    assert "no recovery time or point can be promised" in text
    assert "pg_amcheck is \\| not &lt;installed>" in text


def test_a_drill_of_point_in_time_recovery_says_nothing_on_dumps(tmp_path: Path) -> None:
    from slipway.backup.restores import ctl as restorectl

    chain = tmp_path / "evidence.jsonl"
    append(chain, DRILL, NOW)
    append(chain, replace(DRILL, drill_id="pitr-20260315-130000", kind="pitr"), NOW + timedelta(hours=1))
    assert load(chain).whole
    assert [each.drill_id for each in restorectl._drills(tmp_path)] == [DRILL.drill_id]
    with pytest.raises(FormatError, match="no kind of drill"):
        replace(DRILL, kind="tape")


def test_records_from_before_drills_had_a_kind_are_of_dumps() -> None:
    line, _ = seal(DRILL, NOW)
    body = json.loads(line)["record"]
    del body["drill"]["kind"]
    old = canonical({"record": body, "sha256": hashlib.sha256(canonical(body)).hexdigest()}) + b"\n"
    chain = verify_chain([old])
    assert chain.whole
    assert chain.digests == (json.loads(old)["sha256"],), "the hash is that of the line, not of what it reads as today"
    assert chain.records[0].drill is not None
    assert chain.records[0].drill.kind == "dump"
