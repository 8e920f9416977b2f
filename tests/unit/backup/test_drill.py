# SPDX-License-Identifier: Apache-2.0
"""Restore drills on a real PostgreSQL: the good backup that is proved, and every bad one that is not."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from slipway.backup import manifest
from slipway.backup.drills import scratch
from slipway.backup.drills.assertions import Assertion
from slipway.backup.drills.evidence import verify_chain
from slipway.backup.drills.fetch import restore_error
from slipway.backup.manifest import Manifest
from slipway.backup.pipeline import PipelineError, Stage
from slipway.backup.stores.store import StoreError
from slipway.backup.taking import take

from . import quick_initdb
from .drilling import Ground, Make, ground, keys, rich, sql, status
from .taking import HOST, where
from .test_there_and_back import damage

__all__ = ["ground", "keys", "rich"]


@pytest.mark.parametrize("count", [0, 2])
def test_a_good_backup_is_proved_with_every_check_and_leaves_nothing_behind(
    ground: Ground, rich: str, new_database: Make, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(scratch, "PROGRAMS", quick_initdb.REAL)  # all of it is the real one here
    sql(rich, "CREATE TABLE app.big AS SELECT i, md5(i::text) FROM generate_series(1, 60000) i")
    taken = ground.taker.take([rich, new_database()], count=count)
    outcome = ground.drill()
    assert (outcome.drill.verdict, outcome.drill.tried[0].reasons) == ("proved", ())
    assert outcome.code == 0
    assert outcome.warnings == ()
    (tried,) = outcome.drill.tried
    assert tried.backup_id == taken.backup_id
    assert tried.objects == {each.key: each.sha256 for each in taken.objects}
    assert status(outcome, "structure") == {"passed"}
    assert status(outcome, "assertions") == {"not applicable"}
    assert outcome.drill.recovery is not None
    assert outcome.drill.steps is not None
    assert min(outcome.drill.steps.restore_ms, outcome.drill.steps.verify_ms) > 0
    assert min(outcome.drill.steps.fetch_ms, outcome.drill.steps.decrypt_ms) >= 0  # from memory in less than one
    found = ground.proofs.verify()
    chain, unasked = found.chain, found.unasked
    assert (chain.problems, unasked, len(chain.records)) == ((), (), 1)
    assert replace(chain.records[0].drill) == outcome.drill  # type: ignore[type-var]
    copies = [b"".join(ground.store.read(each.key)) for each in ground.store.entries(f"{HOST}/evidence/")]
    assert verify_chain(copies).head == outcome.head
    assert "proved" in (ground.home / f"state/reports/{outcome.drill.drill_id}.md").read_text()


def test_a_run_of_the_agent_is_proved_with_the_postgres_database_in_it(
    ground: Ground, rich: str, tmp_path: Path
) -> None:
    server, name = where(rich)
    (tmp_path / "metrics").mkdir()
    recipients = Path(ground.taker.recipients)
    around = take.Around(
        server=server, state=tmp_path / "s", recipients=recipients, metrics=tmp_path / "metrics", cores=2
    )
    done = take.run(replace(ground.config, databases=(name,)), lambda: ground.store, around)
    assert "postgres" in done.databases
    outcome = ground.drill()
    assert (outcome.code, outcome.drill.tried[0].reasons) == (0, ())


def test_what_the_globals_hold_does_not_stop_a_drill(ground: Ground, rich: str, new_database: Make) -> None:
    """Roles that lock out, tablespaces of places that are not here, memberships granted, settings that cut short."""
    _, name = where(rich)
    group, member = (f"slipway_t_{os.urandom(3).hex()}" for _ in range(2))
    try:
        sql(
            rich, f"CREATE ROLE {group} NOLOGIN", f"CREATE ROLE {member} LOGIN PASSWORD 'hunter2'",
            f"GRANT {group} TO {member} WITH ADMIN OPTION", f"ALTER TABLE app.notes OWNER TO {member}",
            f"ALTER ROLE {member} SET search_path = app",
            f"COMMENT ON ROLE {member} IS E'CREATE ROLE postgres;\nCREATE ROLE postgres;\n'",
            f"ALTER DATABASE {name} SET default_transaction_read_only = on",
        )  # fmt: skip
        ground.taker.take([rich], stamp=False)
        outcome = ground.drill()
        sentinel = [each for each in outcome.drill.checks if each.status != "passed"]
        assert {each.name for each in sentinel} == {"sentinel", "assertions"}
        assert outcome.code == 5  # nobody stamped it, so that check could not run
    finally:
        sql(
            rich,
            "SET default_transaction_read_only = off",
            f"REASSIGN OWNED BY {member} TO postgres",
            f"DROP ROLE {member}",
            f"DROP ROLE {group}",
        )


@pytest.mark.parametrize(
    ("how", "check", "code"),
    [
        ("flipped", "objects", 4),
        ("cut", "objects", 4),
        ("swapped", "objects", 4),
        ("longer", "objects", 4),
        ("gone", "objects", 4),
        ("manifest", "objects", 4),
        ("other key", "decryption", 4),
        ("no key", "decryption", 5),
        ("unreachable", "objects", 5),
        ("stale sentinel", "sentinel", 4),
        ("rows missing", "counts", 4),
        ("content", "content", 4),
        ("no major", "restore", 5),
        ("no disk", "restore", 5),
        ("no locale", "restore", 5),
    ],
)
def test_each_fault_has_its_check_its_verdict_and_its_exit_code(
    *, ground: Ground, rich: str, monkeypatch: pytest.MonkeyPatch, how: str, check: str, code: int
) -> None:
    taken = ground.taker.take([rich])
    spoil(ground, taken, how, monkeypatch)
    outcome = ground.drill()
    wrong = {each.name: each for each in outcome.drill.checks if each.status in ("failed", "skipped")}
    assert (outcome.code, wrong[check].status) == (code, "failed" if code == 4 else "skipped"), outcome.drill
    assert outcome.drill.verdict == ("failed" if code == 4 else "inconclusive")
    assert outcome.drill.recovery is None
    assert all(each.actual for each in outcome.drill.checks if each.status == "skipped")
    assert ground.proofs.read().records[-1].drill == outcome.drill
    print(how, "->", wrong[check].actual)


def spoil(ground: Ground, taken: Manifest, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    key = f"{HOST}/{taken.backup_id}/manifest.json"
    dump = taken.objects[-1]
    body = b"".join(ground.store.read(dump.key))
    if how in ("flipped", "cut", "swapped"):
        ground.store.put(dump.key, damage(body, how))
    elif how == "longer":
        ground.store.put(dump.key, body + b"x")
    elif how == "gone":
        ground.store.delete(dump.key, "")
    elif how == "manifest":
        ground.store.put(
            key, b"".join(ground.store.read(key)).replace(b'"rows":50', b'"rows":51').replace(b"db1", b"db2")
        )
    elif how == "other key":
        other = ground.home / "other"
        subprocess.run(["age-keygen", "-o", str(other)], check=True, capture_output=True)
        ground.identity = str(other)
    elif how == "no key":
        ground.identity = ""
    elif how == "unreachable":

        def refuse(_key: str, **_given: object) -> None:
            raise StoreError("Reading failed: no route to host")

        monkeypatch.setattr(ground.store, "read", refuse)
    elif how == "no major":
        monkeypatch.setattr(scratch, "PROGRAMS", ground.home / "none")
    elif how == "no disk":
        monkeypatch.setattr(scratch.shutil, "disk_usage", lambda _path: SimpleNamespace(free=100 * 1024**2))
    else:
        ground.store.put(key, manifest.write(altered(taken, how)))


def altered(taken: Manifest, how: str) -> Manifest:
    """The manifest as it would be had the source been otherwise."""
    (database,) = taken.contents.databases
    if how == "stale sentinel":
        assert database.sentinel is not None
        moved = replace(database.snapshot, at=database.sentinel.at + timedelta(hours=2))
        database = replace(database, snapshot=replace(database.snapshot, at=moved.at))
    if how in ("rows missing", "content"):
        table = next(each for each in database.tables if each.name == "app.notes")
        other = replace(table, rows=table.rows + 1) if how == "rows missing" else replace(table, content="12345")
        database = replace(database, tables=tuple(other if each is table else each for each in database.tables))
    if how == "no locale":
        database = replace(database, collation="c xx_YY.UTF-8 xx_YY.UTF-8")
    return replace(taken, contents=replace(taken.contents, databases=(database,)))


def test_a_clock_that_is_an_hour_behind_makes_ages_meaningless_and_the_drill_inconclusive(
    ground: Ground, rich: str
) -> None:
    ground.taker.take([rich])
    outcome = ground.drill(clock=lambda: datetime.now(UTC) - timedelta(hours=1))
    (clock,) = (each for each in outcome.drill.checks if each.name == "clock")
    assert (outcome.code, clock.status) == (5, "skipped")
    assert "in the future: one of the two hosts has a wrong clock" in clock.actual
    assert {each.status for each in outcome.drill.checks if each.name != "clock"} == {"passed", "not applicable"}


def test_a_role_that_the_globals_lack_is_named(ground: Ground, rich: str) -> None:
    role = f"slipway_t_{os.urandom(3).hex()}"
    sql(rich, f"CREATE ROLE {role}", f"ALTER TABLE app.notes OWNER TO {role}")
    try:
        taken = ground.taker.take([rich])
        first = taken.objects[0]
        ground.store.delete(first.key, "")
        stage = Stage("printf", ["printf", "%s", "CREATE ROLE postgres;\nCREATE ROLE somebody;\n"])
        other = ground.taker.put(first.key, stage, "globals")
        made = manifest.write(replace(taken, objects=(other, *taken.objects[1:])))
        ground.store.put(f"{HOST}/{taken.backup_id}/manifest.json", made)
        outcome = ground.drill()
    finally:
        sql(rich, f"REASSIGN OWNED BY {role} TO postgres", f"DROP ROLE {role}")
    (restore,) = (each for each in outcome.drill.checks if each.name == "restore")
    assert outcome.code == 4
    assert f'role "{role}" does not exist' in restore.actual
    assert "missing from the backup's globals" in restore.actual


@pytest.mark.parametrize(
    ("said", "unknown", "words"),
    [
        ('could not open extension control file "/x/postgis.control": No such file', True, "install it on this host"),
        ('extension "postgis" is not available', True, "install it on this host"),
        ("could not extend file: No space left on device", True, "free some space"),
        ("pg_restore was killed by SIGKILL", True, "memory is short"),
        ('could not create unique index "x"', False, "without a single error"),
    ],
)
def test_a_restore_that_fails_by_the_hosts_fault_says_nothing_on_the_backup(
    said: str, unknown: bool, words: str
) -> None:
    error = restore_error("restore", PipelineError(said, culprit="pg_restore"), "app")
    assert error.unknown is unknown
    assert said in str(error)
    assert words in str(error)


def test_when_the_newest_fails_the_next_older_is_tried_and_its_age_is_the_effective_rpo(
    ground: Ground, rich: str
) -> None:
    older = ground.taker.take([rich], age=5 * 3600, stamp=False)
    newest = ground.taker.take([rich])
    spoil(ground, newest, "cut", pytest.MonkeyPatch())
    outcome = ground.drill()
    assert [each.backup_id for each in outcome.drill.tried] == [newest.backup_id, older.backup_id]
    assert [each.verdict for each in outcome.drill.tried] == ["failed", "inconclusive"]
    assert outcome.code == 5


def test_an_older_one_that_is_proved_is_evidence_but_no_good_news(ground: Ground, rich: str) -> None:
    older = ground.taker.take([rich], age=600)
    newest = ground.taker.take([rich])
    spoil(ground, newest, "flipped", pytest.MonkeyPatch())
    outcome = ground.drill()
    assert outcome.drill.verdict == "proved"
    assert [each.verdict for each in outcome.drill.tried] == ["failed", "proved"]
    assert outcome.drill.tried[1].backup_id == older.backup_id
    assert outcome.code == 4
    assert outcome.drill.recovery is not None
    assert outcome.drill.recovery.rpo_now_ms >= 600_000


@pytest.mark.parametrize(
    ("query", "kind", "value", "good"),
    [
        ("SELECT count(*) FROM app.notes", "at_least", 50, True),
        ("SELECT count(*) FROM app.notes", "at_most", 3, False),
        ("SELECT now() - interval '40 days'", "newer_than", "26 h", False),
        ("DELETE FROM app.notes", "rows", 0, False),
        ("SELECT pg_sleep(600)", "rows", 1, False),
        ("SELECT nothing", "value", 1, False),
    ],
)
def test_the_users_own_sql_decides_too(
    *, ground: Ground, rich: str, query: str, kind: str, value: object, good: bool
) -> None:
    ground.taker.take([rich])
    ground.assertions = (Assertion("mine", query, timeout_s=1 if "sleep" in query else 60, expected=((kind, value),)),)
    outcome = ground.drill()
    assert status(outcome, "assertions") == {"passed" if good else "failed"}
    assert outcome.code == (0 if good else 4)


def test_a_row_that_points_nowhere_is_found_though_the_restore_did_not_mind(ground: Ground, new_database: Make) -> None:
    conninfo = new_database()
    sql(
        conninfo, "CREATE TABLE parent (a int, b text, PRIMARY KEY (a, b))", "CREATE TABLE child (a int, b text)",
        "INSERT INTO parent VALUES (1, 'x')", "INSERT INTO child VALUES (1, 'x'), (2, 'y'), (3, NULL)",
        "ALTER TABLE child ADD CONSTRAINT old FOREIGN KEY (a, b) REFERENCES parent NOT VALID",
    )  # fmt: skip
    ground.taker.take([conninfo])
    outcome = ground.drill()
    assert outcome.code == 0
    assert any("child.old is NOT VALID on the source, 1 rows" in each for each in outcome.drill.notes)
    sql(conninfo, "UPDATE pg_constraint SET convalidated = true WHERE conname = 'old'")
    ground.taker.take([conninfo])  # its restore fails, and would say so itself
    outcome = ground.drill()
    assert outcome.code == 4
