# SPDX-License-Identifier: Apache-2.0
"""Checks that see what a comparison with the manifest does not: each damages the copy after it was read, and must be caught."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from slipway.backup.codec import FormatError
from slipway.backup.config import Config, Place
from slipway.backup.drills import assertions, checks
from slipway.backup.drills.assertions import Assertion
from slipway.backup.drills.checks import ForeignKey, orphans
from slipway.backup.drills.find import Found, clocks
from slipway.backup.manifest import Cluster, Contents, Manifest, StoredObject
from slipway.backup.stores.store import Entry

from .drilling import Ground, Make, ground, keys, sql, status

__all__ = ["ground", "keys"]

SHOP = """
CREATE TABLE parent (a int, b text, PRIMARY KEY (a, b)); CREATE TABLE child (a int, b text);
INSERT INTO parent SELECT i, 'x' FROM generate_series(1, 500) i; INSERT INTO child SELECT i, 'x' FROM generate_series(1, 500) i;
ALTER TABLE child ADD CONSTRAINT family FOREIGN KEY (a, b) REFERENCES parent MATCH FULL;
CREATE TABLE part (a int, b text) PARTITION BY RANGE (a); CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (1000);
ALTER TABLE part ADD FOREIGN KEY (a, b) REFERENCES parent; INSERT INTO part VALUES (7, 'x');
CREATE FUNCTION cmp(int, int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT btint4cmp($1, $2)';
CREATE OPERATOR CLASS mine FOR TYPE int USING btree AS OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=,
  OPERATOR 5 >, FUNCTION 1 cmp(int, int);
CREATE INDEX odd ON parent USING btree (a mine);
"""


@pytest.mark.parametrize(
    ("damage", "check"),
    [
        ("SET session_replication_role = replica; DELETE FROM parent WHERE a = 7", "foreign keys"),
        ("SET session_replication_role = replica; UPDATE child SET b = NULL WHERE a = 7", "foreign keys"),
        ("CREATE OR REPLACE FUNCTION public.cmp(int, int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT btint4cmp($2, $1)'", "structure"),
    ],
)  # fmt: skip
def test_damage_to_the_copy_alone_is_found(
    ground: Ground, new_database: Make, monkeypatch: pytest.MonkeyPatch, damage: str, check: str
) -> None:
    conninfo = new_database()
    sql(conninfo, *SHOP.split(";\n")[:-1])
    taken = ground.taker.take([conninfo])
    real = checks.observe

    def observe(scratch: Any, *given: Any, **more: Any) -> Contents:
        seen = real(scratch, *given, **more)
        with scratch.connect(taken.contents.databases[0].name) as conn:
            conn.execute(damage.encode())
        return seen

    assert ground.drill().code == 0
    monkeypatch.setattr(checks, "observe", observe)
    outcome = ground.drill()
    assert outcome.code == 4
    assert status(outcome, check) == {"failed"}
    assert {each.name for each in outcome.drill.checks if each.status == "failed"} == {check}


def test_rows_that_point_nowhere_are_counted_by_the_constraints_own_operators() -> None:
    key = ForeignKey("s.t.k", "ONLY s.t", "s.p", True, "f", ["a", "b"], ["x", "y"], ["OPERATOR(c.=)", "OPERATOR(c.=)"])
    assert orphans(key) == (
        "SELECT count(*) FROM ONLY s.t f WHERE ((f.a IS NOT NULL AND f.b IS NOT NULL) AND NOT EXISTS (SELECT FROM s.p p "
        "WHERE p.x OPERATOR(c.=) f.a AND p.y OPERATOR(c.=) f.b)) OR NOT ((f.a IS NOT NULL AND f.b IS NOT NULL) OR "
        "(f.a IS NULL AND f.b IS NULL))"
    )


TAKEN = datetime(2026, 1, 31, 3, tzinfo=UTC)


@pytest.mark.parametrize(
    ("kind", "wanted", "rows", "problem"),
    [
        ("value", 5, [(5,)], ""),
        ("value", 5, [(Decimal("5.0"),)], ""),
        ("value", "abc", [("secret",)], "another text, expected abc"),
        ("value", True, [(1,)], "1, expected True"),
        ("value", None, [(None,)], ""),
        ("value", 5, [(None,)], "NULL (no rows to look at?)"),
        ("value", 5, [(5,), (5,)], "2 rows, expected one"),
        ("rows", 0, [], ""),
        ("rows", 0, [(1,)], "1 rows, expected 0"),
        ("at_least", 10, [(9,)], "9, expected at least 10"),
        ("at_least", 10, [("many",)], "another text, expected a number"),
        ("at_most", "2.5", [(2.5,)], ""),
        ("newer_than", "26 h", [(TAKEN - timedelta(hours=25),)], ""),
        ("newer_than", "26 h", [(TAKEN - timedelta(hours=27),)], "newest is of 2026-01-30 00:00 UTC, 1 day, 3:00:00 before the snapshot"),
        ("newer_than", "2 days", [(date(2026, 1, 30),)], ""),
        ("newer_than", 3600, [(None,)], "NULL (no rows to look at?)"),
        ("newer_than", 3600, [("yesterday",)], "no time in the first column"),
    ],
)  # fmt: skip
def test_an_assertion_is_judged(kind: str, wanted: object, rows: list[tuple[object, ...]], problem: str) -> None:
    found = assertions.judge(Assertion("x", "SELECT 1", expected=((kind, wanted),)), rows, TAKEN)
    assert found == ([problem] if problem else [])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", "is no list"),
        ('[{"query": "SELECT 1"}]', "expects nothing"),
        ('[{"value": 1}]', "has no query"),
        ('[{"query": "SELECT 1", "vlaue": 1}]', "unknown key 'vlaue'"),
        ('[{"query": "SELECT 1", "newer_than": "soon"}]', "newer_than is 'soon'"),
        ('[{"query": "SELECT 1", "rows": -1}]', "rows is -1"),
        ('[{"query": "SELECT 1", "at_least": "many"}]', "at_least is 'many'"),
        ('[{"query": "SELECT 1", "value": [1]}]', "value is"),
        ('[{"query": "SELECT 1", "value": 1, "timeout_s": 0}]', "timeout_s is 0"),
        ('[{"query": "SELECT 1", "value": 1, "database": 3}]', "database is 3"),
    ],
)
def test_an_assertion_that_is_none_is_named(text: str, words: str) -> None:
    with pytest.raises(FormatError, match=words):
        assertions.read(text.encode())


def test_an_assertion_is_read_with_its_defaults() -> None:
    (found,) = assertions.read(b'[{"query": "SELECT max(at)\\n FROM t;", "newer_than": "26 h", "at_most": 7}]')
    assert found == Assertion(
        "SELECT max(at) FROM t", "SELECT max(at)\n FROM t", "", 60, (("at_most", 7), ("newer_than", "26 h"))
    )


def manifest_of(finished: datetime) -> Manifest:
    cluster = Cluster("17.6", 170006, "1", True, ())
    one = StoredObject("h/x", 1, "0" * 64, 1, ("0" * 32,), "globals")
    return Manifest("20260131T030000Z-h-0a1b2c", "h", TAKEN, finished, Contents(cluster, ()), (one,), ("a",), {})


@pytest.mark.parametrize(("minutes", "version", "words"), [
    (0, "v", ""), (14, "v", ""), (60, "v", "3600 s after its host"), (-60, "v", "3600 s before its host"), (60, "", ""),
])  # fmt: skip
def test_the_stores_clock_tells_when_the_hosts_is_wrong(minutes: int, version: str, words: str) -> None:
    entry = Entry("k", 1, TAKEN + timedelta(minutes=minutes), version)
    found = clocks(manifest_of(TAKEN), entry, TAKEN + timedelta(hours=12))
    assert [each.actual for each in found if words in each.actual] == [each.actual for each in found]
    assert bool(found) is bool(words)


def test_a_backup_that_was_hidden_or_written_over_is_told_of() -> None:
    found = Found("20260131T030000Z-h-0a1b2c", Entry("k", 1, TAKEN), hidden=True, writes=2)
    assert len(found.notes) == 2
    assert found.named == TAKEN
    assert Found(found.id, found.entry).notes == []


def test_own_targets_win_over_the_tiers() -> None:
    config = Config("h", Place("directory", "/x"), (), recovery_targets={"rto_s": 60})
    assert (config.targets().rto_s, config.targets().rpo_s) == (60, 24 * 3600)
    with pytest.raises(FormatError, match="unknown key 'rto'"):
        Config("h", Place("directory", "/x"), (), recovery_targets={"rto": 60}).targets()
