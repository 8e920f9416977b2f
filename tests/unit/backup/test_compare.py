# SPDX-License-Identifier: Apache-2.0
"""Comparing: the same is no difference, and each kind of loss shows as its kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from slipway.backup import compare as c
from slipway.backup import manifest as m

from .test_manifest import NOW, manifests

TABLE = m.Table("public.notes", 10, 10, "123", "v1", 8192)
DATABASE = m.Database(
    "notes", "notes", "UTF8", "c de_DE.utf8", 9000, m.Snapshot(NOW, "0/1"),
    tables=(TABLE,),
    sequences=(m.Sequence("public.notes_id_seq", 10, True, 1, "public.notes.id", 10),),
    extensions=(m.Extension("pg_trgm", "1.6", "public"),),
    schema={"index": {"public.notes_pkey": "aa"}},
    access=(m.Access("table", "public.notes", "notes", ("reader: SELECT",)),),
    settings={"notes: statement_timeout": "5s"},
    large_objects=m.LargeObjects(1, 5, "77"),
    sentinel=m.Sentinel(NOW, "token"),
)  # fmt: skip
CLUSTER = m.Cluster("17.6", 170006, "1", True, (m.Role("notes", ("LOGIN",), ("readers",)),), ("fast",))


def contents(database: m.Database = DATABASE, cluster: m.Cluster = CLUSTER) -> m.Contents:
    return m.Contents(cluster, (database,))


@given(manifests)
@settings(max_examples=40)
def test_the_same_contents_never_differ(manifest: m.Manifest) -> None:
    assert c.compare(manifest.contents, manifest.contents) == []


def with_table(**changes: object) -> m.Database:
    return replace(DATABASE, tables=(replace(TABLE, **changes),))


def with_sequence(**changes: object) -> m.Database:
    return replace(DATABASE, sequences=(replace(DATABASE.sequences[0], **changes),))


@pytest.mark.parametrize(
    ("restored", "kind", "says"),
    [
        (with_table(rows=9, hashed=9, content="5"), c.ROWS, "public.notes: expected 10, found 9"),
        (with_table(content="124"), c.CONTENT, "expected 123 over 10 rows, found 124 over 10 rows"),
        (with_table(method="v2"), c.INCOMPARABLE, "expected v1, all rows, found v2, all rows"),
        (with_table(sample=m.Sample(2, ("id",))), c.INCOMPARABLE, "hashes to 0 mod 2"),
        (replace(DATABASE, tables=()), c.TABLE, "public.notes: expected present, found missing"),
        (replace(DATABASE, tables=(TABLE, replace(TABLE, name="x.y"))), c.TABLE, "found not in the manifest"),
        (with_sequence(value=9), c.SEQUENCE, "expected past 10, the furthest public.notes.id, found 9"),
        (with_sequence(value=9, column_furthest=None), c.SEQUENCE, "expected 10 or past it, found 9"),
        (with_sequence(called=False, column_furthest=9), c.SEQUENCE, "found 10, not yet used"),
        (with_sequence(increment=2), c.SEQUENCE, "increment: expected 1, found 2"),
        (replace(DATABASE, extensions=()), c.EXTENSION, "pg_trgm: expected present, found missing"),
        (replace(DATABASE, extensions=(m.Extension("pg_trgm", "1.5", "public"),)), c.EXTENSION, "found 1.5"),
        (replace(DATABASE, schema={}), c.SCHEMA, "index public.notes_pkey: expected present"),
        (replace(DATABASE, schema={"index": {"public.notes_pkey": "ab"}}), c.SCHEMA, "definition ab"),
        (replace(DATABASE, access=(replace(DATABASE.access[0], owner="x"),)), c.ACCESS, "owner: expected notes"),
        (replace(DATABASE, access=(replace(DATABASE.access[0], privileges=()),)), c.ACCESS, "expected reader: SELECT"),
        (replace(DATABASE, settings={}), c.SETTING, "statement_timeout: expected present, found missing"),
        (replace(DATABASE, large_objects=m.LargeObjects(1, 5, "78")), c.LARGE_OBJECTS, "expected 77, found 78"),
        (replace(DATABASE, sentinel=None), c.SENTINEL, "found missing"),
        (replace(DATABASE, sentinel=m.Sentinel(NOW, "x")), c.SENTINEL, "found another token"),
        (replace(DATABASE, collation="c C.UTF-8"), c.COLLATION, "found c C.UTF-8"),
        (replace(DATABASE, owner="postgres"), c.DATABASE, "owner: expected notes, found postgres"),
    ],
)  # fmt: skip
def test_each_kind_of_loss_shows_as_its_kind(restored: m.Database, kind: str, says: str) -> None:
    found = c.compare(contents(), contents(restored))
    assert kind in {each.kind for each in found}
    assert any(says in str(each) for each in found if each.kind == kind)
    assert {each.kind for each in found} <= set(c.KINDS)


@pytest.mark.parametrize(
    ("cluster", "kind", "says"),
    [
        (replace(CLUSTER, roles=()), c.ROLE, "role notes: expected present"),
        (replace(CLUSTER, roles=(m.Role("notes", ("LOGIN", "SUPERUSER"), ("readers",)),)), c.ROLE, "SUPERUSER"),
        (replace(CLUSTER, roles=(m.Role("notes", ("LOGIN",)),)), c.ROLE, "member_of: expected readers"),
        (replace(CLUSTER, tablespaces=()), c.TABLESPACE, "fast: expected present"),
    ],
)
def test_what_belongs_to_the_cluster_is_compared_too(cluster: m.Cluster, kind: str, says: str) -> None:
    (found,) = c.compare(contents(), contents(cluster=cluster))
    assert found.kind == kind
    assert says in str(found)


def test_a_missing_database_is_a_difference_and_a_further_one_is_not() -> None:
    (found,) = c.compare(contents(), m.Contents(CLUSTER, ()))
    assert (found.kind, found.subject) == (c.DATABASE, "notes")
    assert c.compare(m.Contents(CLUSTER, ()), contents()) == []


def in_order(changes: Callable[[], m.Database]) -> list[c.Difference]:
    return c.compare(contents(), contents(changes()))


def test_a_sequence_may_be_past_the_manifest_because_it_takes_no_part_in_snapshots() -> None:
    assert in_order(lambda: with_sequence(value=11)) == []


def test_a_sequence_that_was_behind_its_column_before_is_not_the_backups_fault() -> None:
    was = with_sequence(value=3)
    assert c.compare(contents(was), contents(was)) == []


def test_sizes_snapshots_and_versions_of_the_drills_server_are_not_compared() -> None:
    later = datetime(2026, 3, 16, tzinfo=UTC) + timedelta(hours=1)
    other = replace(with_table(bytes=1), bytes=5, collation_version="2.36", snapshot=m.Snapshot(later, "5/0"))
    cluster = replace(CLUSTER, version="17.7", version_num=170007, system_identifier="2", settings={"a": "b"})
    assert c.compare(contents(), contents(other, cluster)) == []
