# SPDX-License-Identifier: Apache-2.0
"""The manifest: whole round trips by hypothesis; everything else is refused with one message."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slipway.backup import manifest as m
from slipway.backup.codec import FormatError, canonical

NOW = datetime(2026, 3, 15, 3, tzinfo=UTC)
text = st.text(max_size=12)
number = st.integers(-(2**63), 2**63 - 1)
times = st.datetimes(min_value=datetime(1990, 1, 1), max_value=datetime(2100, 1, 1), timezones=st.just(UTC))
digest = st.binary(max_size=8).map(lambda b: hashlib.sha256(b).hexdigest())
md5 = digest.map(lambda h: h[:32])


def tuples(of: st.SearchStrategy[object]) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(of, max_size=3).map(tuple)


samples = st.builds(m.Sample, st.integers(2, 1024), st.lists(text, min_size=1, max_size=2).map(tuple))
tables = st.builds(m.Table, text, number, number, text, text, number, sample=st.none() | samples)
sequences = st.builds(m.Sequence, text, number, st.booleans(), number, text, st.none() | number)
databases = st.builds(
    m.Database,
    name=text,
    snapshot=st.builds(m.Snapshot, times, text, number),
    tables=tuples(tables),
    sequences=tuples(sequences),
    extensions=tuples(st.builds(m.Extension, text, text, text)),
    schema=st.dictionaries(text, st.dictionaries(text, text, max_size=2), max_size=2),
    access=tuples(st.builds(m.Access, text, text, text, tuples(text))),
    settings=st.dictionaries(text, text, max_size=2),
    large_objects=st.builds(m.LargeObjects, number, number, text),
    sentinel=st.none() | st.builds(m.Sentinel, times, text),
    unchecked=tuples(text),
)
clusters = st.builds(m.Cluster, roles=tuples(st.builds(m.Role, text, tuples(text), tuples(text), tuples(text))))


@st.composite
def stored(draw: st.DrawFn) -> m.StoredObject:
    size, part = draw(st.integers(1, 10**6)), draw(st.integers(200_000, 10**6))
    hashes = tuple(draw(md5) for _ in range(-(-size // part)))
    return m.StoredObject(draw(text), size, draw(digest), part, hashes, draw(text), draw(text), draw(number))


manifests = st.builds(
    m.Manifest,
    backup_id=times.map(lambda at: m.backup_id(at, "Web 1", "0a1b2c")),
    started=times,
    finished=times,
    contents=st.builds(m.Contents, clusters, st.lists(databases, max_size=2, unique_by=lambda d: d.name).map(tuple)),
    objects=st.lists(stored(), min_size=1, max_size=3, unique_by=lambda o: o.key).map(tuple),
    recipients=st.lists(text, min_size=1, max_size=2).map(tuple),
    tools=st.dictionaries(text, text, max_size=2),
    left_out=tuples(text),
    unlisted=tuples(text),
    format=st.just(1),
)


@given(manifests)
@settings(max_examples=60)
def test_what_is_written_is_read_back_the_same(manifest: m.Manifest) -> None:
    assert m.read(m.write(manifest)) == manifest


@given(manifests, st.data())
@settings(max_examples=60)
def test_a_flipped_or_lost_byte_never_reads_as_a_manifest(manifest: m.Manifest, data: st.DataObject) -> None:
    whole = m.write(manifest)
    place = data.draw(st.integers(0, len(whole) - 2))
    flipped = bytearray(whole)
    flipped[place] ^= data.draw(st.integers(1, 255))
    for damaged in (bytes(flipped), whole[:place]):
        with suppress(FormatError):
            assert m.read(damaged) == manifest  # a space for a newline, say: only where it means the same


def example(**changes: object) -> m.Manifest:
    database = m.Database(
        "notes", "notes", "UTF8", "libc C.UTF-8", 100, m.Snapshot(NOW, "0/1"), (), (), (), {}, (),
        sentinel=m.Sentinel(NOW, "t"),
    )  # fmt: skip
    cluster = m.Cluster("17.6", 170006, "7", True, ())
    base = m.Manifest(
        "20260315T030000Z-web1-0a1b2c", "web1", NOW, NOW, m.Contents(cluster, (database,)),
        (m.StoredObject("web1/x/dump", 5, "0" * 64, 8, ("1" * 32,), "dump", "notes"),), ("ab",), {"pg_dump": "17.6"},
    )  # fmt: skip
    return replace(base, **changes)


def resealed(change: dict[str, object]) -> bytes:
    """The example with keys changed and a matching checksum: as a wrong program, not bad luck, would write it."""
    body = json.loads(canonical(example())) | change
    return canonical({"manifest": body, "sha256": hashlib.sha256(canonical(body)).hexdigest()})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hots": "web1"}, "has the unknown key 'hots'"),
        ({"host": 5}, r"manifest\.host is 5\. Expected: text"),
        ({"started": "yesterday"}, r"manifest\.started is .*Expected: a time such as"),
        ({"recipients": []}, "names no objects or no recipients"),
        ({"objects": [{}]}, r"objects\[0\] has no 'key'"),
        ({"format": 2}, "is of format 2"),
        ({"format": True}, "is of format True"),
        ({"backup_id": "../../etc"}, "is no backup id"),
        ({"tools": {"age": 1}}, r"tools\.age is 1"),
    ],
)
def test_a_manifest_that_is_not_one_is_refused_in_one_message(change: dict[str, object], message: str) -> None:
    with pytest.raises(FormatError, match=message) as caught:
        m.read(resealed(change))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("junk", [b"", b"{", b"[]", b"null", b'{"manifest":1,"sha256":""}', b"\xff", b"[" * 100_000])
def test_junk_is_refused(junk: bytes) -> None:
    with pytest.raises(FormatError):
        m.read(junk)


def test_a_key_that_occurs_twice_is_refused() -> None:
    with pytest.raises(FormatError, match="occurs twice"):
        m.read(b'{"manifest":{},"manifest":{},"sha256":""}')


def test_canonical_json_is_the_same_for_the_same_value_and_has_no_floats() -> None:
    assert canonical({"b": (1, NOW), "a": "ä"}) == '{"a":"ä","b":[1,"2026-03-15T03:00:00.000000Z"]}'.encode()
    with pytest.raises(TypeError):
        canonical(0.5)
    with pytest.raises(TypeError):
        canonical(datetime(2026, 1, 1))


def test_part_hashes_must_fit_the_size() -> None:
    with pytest.raises(FormatError, match="1 part hashes for 9 bytes"):
        m.StoredObject("k", 9, "0" * 64, 8, ("1" * 32,), "dump")
    with pytest.raises(FormatError, match="0 part hashes"):
        m.StoredObject("k", 9, "0" * 64, 8, (), "dump")


def test_the_recovery_point_is_the_oldest_snapshot() -> None:
    whole = example()
    older = replace(whole.contents.databases[0], name="b", snapshot=m.Snapshot(NOW - timedelta(minutes=3), "0/0"))
    both = replace(whole, contents=replace(whole.contents, databases=(*whole.contents.databases, older)))
    assert both.taken == NOW - timedelta(minutes=3)


def test_ids_sort_by_time_and_hold_any_host_name() -> None:
    one = m.backup_id(NOW, "DB_1.example", "00ff00")
    assert one == "20260315T030000Z-db-1.example-00ff00"
    assert one < m.backup_id(NOW + timedelta(seconds=1), "a", "000000")


@pytest.mark.parametrize(
    ("value", "called", "increment", "furthest", "behind"),
    [(5, True, 1, 5, False), (4, True, 1, 5, True), (5, False, 1, 5, True), (6, False, 1, 5, False),
     (-5, True, -1, -5, False), (-4, True, -1, -5, True), (1, False, 1, None, False), (4, True, 10, 5, False)],
)  # fmt: skip
def test_a_sequence_is_behind_when_its_next_value_is_taken(
    value: int, called: bool, increment: int, furthest: int | None, behind: bool
) -> None:
    assert m.Sequence("s", value, called, increment, "t.id", furthest).behind is behind
