# SPDX-License-Identifier: Apache-2.0
"""Which seconds can be gone back to: from what pgBackRest lists to the base backup a restore starts from."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slipway.backup.codec import FormatError
from slipway.backup.pitr import pgbackrest as pitr
from slipway.errors import InputError

T0 = datetime(2026, 1, 1, tzinfo=UTC)
NOW = T0 + timedelta(days=30)
ENDLESS = 1 << 62


def minutes(count: float) -> datetime:
    """So many minutes after the start."""
    return T0 + timedelta(minutes=count)


def archive(*names: str, histories: tuple[int, ...] = ()) -> pitr.Archive:
    """Segments, named by timeline and place (``1:5``), that arrived one a minute: place 5 at minute 5."""
    made = {}
    for each in names:
        timeline, _, place = each.partition(":")
        name = pitr.segment_name(int(timeline), int(place))
        made[name] = pitr.Segment(name, minutes(int(place)), 100)
    return pitr.Archive(made, histories)


def run_of(timeline: int, first: int, last: int) -> list[str]:
    """All segments of a timeline from one place to another."""
    return [f"{timeline}:{place}" for place in range(first, last + 1)]


def base(first: int, last: int, *, timeline: int = 1, kind: str = "full") -> pitr.Base:
    """A backup that needs those segments and ended when the last of them arrived."""
    return pitr.Base(
        f"b{first}",
        kind,
        minutes(first),
        minutes(last),
        pitr.segment_name(timeline, first),
        pitr.segment_name(timeline, last),
        1000,
        500,
    )


ONE = ((1, ENDLESS),)


def test_segments_are_counted_across_their_files_of_four_gigabytes() -> None:
    assert pitr.number("000000010000000000000001") == 1
    assert pitr.number("000000030000000200000003") == 2 * 256 + 3
    assert pitr.number("000000010000000100000001", 64) == 64 + 1
    assert pitr.segment_name(1, 255) == "0000000100000000000000FF"
    assert pitr.segment_name(1, 256) == "000000010000000100000000"


@given(st.integers(1, 2**31), st.integers(0, 2**40), st.sampled_from([1, 16, 64, 1024]))
def test_a_segments_name_and_place_are_each_others_reverse(timeline: int, place: int, size: int) -> None:
    place %= 2**32 * (4096 // size)
    name = pitr.segment_name(timeline, place, size)
    assert len(name) == 24
    assert (int(name[:8], 16), pitr.number(name, size)) == (timeline, place)


def test_any_second_from_the_backups_end_to_the_newest_wal_can_be_reached() -> None:
    (found,) = pitr.windows([base(2, 4)], archive(*run_of(1, 1, 20)), ONE, NOW)
    assert (found.start, found.end, found.missing) == (minutes(4), minutes(20), "")


def test_later_backups_on_unbroken_wal_make_no_second_window() -> None:
    (found,) = pitr.windows([base(10, 12, kind="diff"), base(2, 4)], archive(*run_of(1, 1, 20)), ONE, NOW)
    assert [each.label for each in found.backups] == ["b2", "b10"]


def test_a_missing_segment_parts_the_range_and_is_named() -> None:
    segments = [name for name in run_of(1, 1, 20) if name != "1:8"]
    first, second = pitr.windows([base(2, 4), base(10, 12)], archive(*segments), ONE, NOW)
    assert (first.start, first.end, first.missing) == (minutes(4), minutes(7), pitr.segment_name(1, 8))
    assert (second.start, second.end, second.missing) == (minutes(12), minutes(20), "")


def test_a_segment_that_may_still_be_on_its_way_is_no_gap() -> None:
    segments = archive(*[name for name in run_of(1, 1, 20) if name != "1:19"])
    (found,) = pitr.windows([base(2, 4)], segments, ONE, minutes(20) + timedelta(seconds=30))
    assert (found.end, found.missing) == (minutes(18), "")
    (found,) = pitr.windows([base(2, 4)], segments, ONE, minutes(23))
    assert found.missing == pitr.segment_name(1, 19)


def test_a_backup_whose_own_wal_is_missing_counts_for_nothing() -> None:
    assert pitr.windows([base(2, 4)], archive("1:2", "1:3"), ONE, NOW) == []


def test_a_restored_server_goes_on_along_its_new_timeline() -> None:
    # Timeline 2 forked within segment 10, which is its own from then on; 1 had gone on to 14.
    segments = archive(*run_of(1, 1, 14), *run_of(2, 10, 20), histories=(2,))
    path = pitr.parse_history("1\t0/A800000\tbefore 2026-01-01 00:10:00+00\n", 2)
    assert path == ((1, 10), (2, ENDLESS))
    (found,) = pitr.windows([base(2, 4)], segments, path, NOW)
    assert (found.timeline, found.end, found.missing) == (2, minutes(20), "")
    (undone,) = pitr.windows([base(2, 4)], segments, ((1, ENDLESS),), NOW)
    assert undone.end == minutes(14), "what came after the fork on the old timeline can still be had by its number"


def test_a_backup_of_a_branch_that_was_left_is_not_used_for_the_new_one() -> None:
    segments = archive(*run_of(1, 1, 14), *run_of(2, 10, 20), histories=(2,))
    (found,) = pitr.windows([base(2, 4), base(11, 12)], segments, ((1, 10), (2, ENDLESS)), NOW)
    assert [each.label for each in found.backups] == ["b2"]


def test_the_newest_backup_that_ended_before_the_second_is_where_a_restore_starts() -> None:
    found = pitr.windows([base(2, 4), base(10, 12)], archive(*run_of(1, 1, 20)), ONE, NOW)
    assert pitr.choose(found, minutes(15), NOW).label == "b10"
    assert pitr.choose(found, minutes(12), NOW).label == "b2", "a backup is consistent only after its end"
    assert pitr.choose(found, minutes(20), NOW).label == "b10"


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (minutes(3), "before the end of the oldest base backup"),
        (minutes(4), "before the end of the oldest base backup"),
        (minutes(9), "segment 000000010000000000000008 is missing"),
        (minutes(21), "after the newest WAL"),
        (NOW + timedelta(days=1), "in the future"),
    ],
)
def test_a_second_out_of_reach_ends_in_one_message_with_the_possible_range(target: datetime, words: str) -> None:
    segments = [name for name in run_of(1, 1, 20) if name != "1:8"]
    found = pitr.windows([base(2, 4), base(10, 12)], archive(*segments), ONE, NOW)
    with pytest.raises(pitr.RangeError) as caught:
        pitr.choose(found, target, NOW)
    assert words in str(caught.value)
    assert (
        "2026-01-01 00:04:00 UTC to 2026-01-01 00:07:00 UTC, or 2026-01-01 00:12:00 UTC to 2026-01-01 00:20:00 UTC"
        in str(caught.value)
    )


def test_an_empty_repository_says_what_to_do() -> None:
    with pytest.raises(pitr.RangeError, match="slipway pitr backup"):
        pitr.choose([], minutes(1), NOW)


@given(
    st.sets(st.integers(0, 40)),
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 3)), max_size=4),
    st.integers(0, 45),
)
def test_whatever_is_missing_a_chosen_backup_always_has_all_wal_up_to_the_second(
    there: set[int], backups: list[tuple[int, int]], minute: int
) -> None:
    segments = archive(*(f"1:{place}" for place in there))
    found = pitr.windows([base(first, first + more) for first, more in backups], segments, ONE, NOW)
    for left, right in itertools.pairwise(found):
        assert left.end <= right.end
    try:
        chosen = pitr.choose(found, minutes(minute), NOW)
    except pitr.RangeError:
        # Refused for a reason: no backup has an unbroken chain from its start to that minute.
        for first, more in backups:
            if first + more < minute:
                assert not set(range(first, max(minute, first + more) + 1)) <= there
        return
    assert chosen.stopped < minutes(minute)
    assert set(range(pitr.number(chosen.first), minute + 1)) <= there


INFO: list[dict[str, Any]] = [
    {
        "archive": [
            {"database": {"id": 1, "repo-key": 1}, "id": "16-1", "max": None, "min": None},
            {"database": {"id": 2, "repo-key": 1}, "id": "17-2", "max": "000000010000000000000005", "min": "000000010000000000000001"},
        ],
        "backup": [
            {
                "archive": {"start": "000000010000000000000004", "stop": "000000010000000000000005"}, "database": {"id": id_, "repo-key": 1},
                "error": id_ == 2, "info": {"delta": 8450, "repository": {"delta": 408, "delta-map": 0}, "size": 23464454},
                "label": f"20261121-13395{id_}F", "timestamp": {"start": 1795268393, "stop": 1795268395}, "type": "full",
            }
            for id_ in (1, 2)
        ],
        "db": [{"id": 1, "system-id": 1, "version": "16"}, {"id": 2, "system-id": 7710613053804981664, "version": "17"}],
        "name": "main",
        "repo": [{"cipher": "aes-256-cbc", "key": 1, "status": {"code": 0, "message": "ok"}}],
        "status": {"code": 0, "message": "ok"},
    }
]  # fmt: skip


def test_info_is_read_for_the_cluster_that_runs_now() -> None:
    found = pitr.parse_info(json.dumps(INFO), "main")
    assert (found.code, found.archive_id, found.system_id, found.version) == (0, "17-2", 7710613053804981664, "17")
    (backup,) = found.backups
    assert (backup.label, backup.kind, backup.damaged, backup.bytes, backup.stored_bytes) == (
        "20261121-133952F",
        "full",
        True,
        23464454,
        408,
    )
    assert backup.stopped == datetime.fromtimestamp(1795268395, UTC)


def test_an_error_of_several_lines_within_info_is_read() -> None:
    text = json.dumps([{"name": "main", "repo": [{"status": {"code": 99, "message": "A|B"}}]}]).replace("|", "\n")
    assert pitr.parse_info(text, "main").message == "A\nB"


def test_info_that_is_cut_off_is_an_error() -> None:
    with pytest.raises(FormatError, match="not whole JSON"):
        pitr.parse_info(json.dumps(INFO)[:-20], "main")


def test_a_repository_without_the_stanza_is_no_error() -> None:
    assert pitr.parse_info("[]", "main").code == 1


def test_the_archive_is_read_without_what_is_no_segment() -> None:
    name = "000000010000000000000002"
    listed = {
        ".": {"type": "path"},
        f"17-2/0000000100000000/{name}-846976ecf19bbc09e6023b91feae2c8d13ad7fe5.zst": {
            "type": "file",
            "size": 784,
            "time": 1795268389,
        },
        f"17-2/0000000100000000/{name}.00000028.backup": {"type": "file", "size": 400, "time": 1795268392},
        f"17-2/0000000200000000/{name}.partial-846976ecf19bbc09e6023b91feae2c8d13ad7fe5.zst": {
            "type": "file",
            "size": 1,
            "time": 1,
        },
        "17-2/00000002.history": {"type": "file", "size": 41, "time": 1795268389},
        f"16-1/0000000100000000/{name[:-1]}9-846976ecf19bbc09e6023b91feae2c8d13ad7fe5.gz": {
            "type": "file",
            "size": 1,
            "time": 1,
        },
        "archive.info": {"type": "file", "size": 368, "time": 1795268395},
    }
    found = pitr.parse_archive(json.dumps(listed), "17-2")
    assert list(found.segments) == [name]
    assert found.histories == (2,)
    assert found.timelines == (1,)


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-31T12:00:00Z",
        "2026-01-31 12:00:00",
        "2026-01-31T14:00:00+02:00",
        "2026-01-31 12:00:00 UTC",
        " 2026-01-31T12:00Z ",
    ],
)
def test_a_time_is_read_in_the_ways_people_write_it(text: str) -> None:
    assert pitr.parse_time(text) == datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize("text", ["yesterday", "2026-01-31", "", "12:00", "2026-13-01T00:00:00Z"])
def test_what_is_no_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InputError, match="2026-01-31T12:00:00Z"):
        pitr.parse_time(text)
