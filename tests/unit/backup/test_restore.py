# SPDX-License-Identifier: Apache-2.0
"""Real restores on a real PostgreSQL: beside the live database, in its place and back, and single tables."""

# ruff: noqa: S608 - names are our own
from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime

import psycopg
import pytest
from slipway import cli
from slipway.backup import manifest
from slipway.backup.config import Config
from slipway.backup.drills import refill
from slipway.backup.restores import ctl as restorectl
from slipway.backup.restores import restore, swap
from slipway.backup.restores import tables as restore_tables
from slipway.backup.restores.restore import Means, RestoreError, Wish
from slipway.errors import InputError

from tests.unit.waiting import until

from .drilling import Ground, Make, ground, keys, rich, sql
from .taking import HOST, where

__all__ = ["ground", "keys", "rich"]


def ask(conninfo: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(conninfo, autocommit=True) as conn:
        return conn.execute(query.encode()).fetchall()


@pytest.fixture
def means(ground: Ground, rich: str) -> Iterator[Means]:
    server, _ = where(rich)
    before = {name for (name,) in ask(rich, "SELECT datname FROM pg_database")}
    yield Means(ground.store, ground.identity, server, ground.home / "restoring", jobs=2, say=ground.said.append)
    assert not (ground.home / "restoring").exists()
    for (name,) in ask(rich.rsplit(" ", 1)[0] + " dbname=postgres", "SELECT datname FROM pg_database"):
        if name not in before:
            restore.drop(server, str(name))


def test_a_restore_makes_a_new_database_that_is_the_same_and_leaves_the_live_one_alone(
    ground: Ground, rich: str, means: Means
) -> None:
    _, name = where(rich)
    role = f"{name}_owner"
    sql(rich, f"CREATE ROLE {role} PASSWORD 'hunter2'", f"ALTER DATABASE {name} OWNER TO {role}",
        f"REVOKE CONNECT ON DATABASE {name} FROM PUBLIC", f"ALTER DATABASE {name} SET work_mem = '7MB'")  # fmt: skip
    try:
        ground.taker.take([rich])
        sql(
            rich,
            "DELETE FROM app.notes",
            f"ALTER DATABASE {name} OWNER TO postgres",
            f"DROP OWNED BY {role}",
            f"DROP ROLE {role}",
        )
        made = restore.plan(ground.config, Wish(name), means)
        assert made.missing_roles == (role,)
        assert "make the roles that are missing here" in "\n".join(made.lines)
        done = restore.run(ground.config, Wish(name), means, made)
        assert (done.differences, done.notes) == ((), ())
        assert done.database == made.target
        there = rich.replace(name, done.database)
        assert ask(there, "SELECT count(*) FROM app.notes") == [(56,)]
        assert ask(rich, "SELECT count(*) FROM app.notes") == [(0,)]
        assert ask(there, "SHOW work_mem") == [("7MB",)]
        assert ask(there, f"SELECT rolpassword LIKE 'SCRAM%' FROM pg_authid WHERE rolname = '{role}'") == [(True,)]
        with pytest.raises(RestoreError, match="exists already"):
            restore.plan(ground.config, Wish(name, name=done.database), means)
        restore.drop(means.server, done.database)
    finally:
        sql(rich, f"DROP ROLE IF EXISTS {role}")


def test_a_restore_that_fails_or_is_stopped_leaves_no_database(
    ground: Ground, rich: str, means: Means, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, name = where(rich)
    taken = ground.taker.take([rich])
    body = b"".join(ground.store.read(taken.objects[1].key))
    ground.store.put(taken.objects[1].key, body[: len(body) // 2])
    with pytest.raises(RestoreError, match="was dropped again"):
        restore.run(ground.config, Wish(name), means)
    ground.store.put(taken.objects[1].key, body)

    def stop(*_given: object, **_more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(restore, "_compare", stop)
    with pytest.raises(KeyboardInterrupt):
        restore.run(ground.config, Wish(name), means)
    assert ask(rich, f"SELECT count(*) FROM pg_database WHERE datname LIKE '{name}_restored%'") == [(0,)]


def test_what_a_killed_restore_had_begun_to_make_is_dropped_by_the_next_and_nothing_else(
    ground: Ground, rich: str, means: Means
) -> None:
    _, name = where(rich)
    ground.taker.take([rich])
    done = restore.run(ground.config, Wish(name), means)
    dead = f"{name}_dead"
    sql(rich, f"CREATE DATABASE {dead}", f"COMMENT ON DATABASE {dead} IS '{restore.UNFINISHED}'")
    assert restore.sweep(means.server) == [dead]
    assert ask(rich.replace(name, done.database), "SELECT count(*) FROM app.notes") == [(56,)]


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        (Wish("nothing"), "has no database nothing"),
        (Wish("", backup="20200101T000000Z-db1-000000"), "There is not backup 2020"),
        (Wish("", backup="proved"), "any backup that a drill proved"),
    ],
)
def test_what_cannot_be_restored_is_said_before_anything_is_done(
    ground: Ground, rich: str, means: Means, wish: Wish, words: str
) -> None:
    _, name = where(rich)
    ground.taker.take([rich])
    with pytest.raises(InputError, match=words):
        restore.plan(ground.config, replace(wish, database=wish.database or name), means)


def test_after_a_server_was_set_up_anew_its_empty_backup_is_not_taken_for_the_latest(
    ground: Ground, rich: str, means: Means
) -> None:
    _, name = where(rich)
    older = ground.taker.take([rich], age=3600)
    cluster = replace(older.contents.cluster, system_identifier="42")  # of the server that is gone
    made = replace(older, contents=replace(older.contents, cluster=cluster))
    ground.store.put(f"{HOST}/{older.backup_id}/manifest.json", manifest.write(made))
    sql(rich, "DELETE FROM app.notes")
    newest = ground.taker.take([rich])
    with pytest.raises(RestoreError, match=f"--backup {older.backup_id} or --backup {newest.backup_id}"):
        restore.plan(ground.config, Wish(name), means)
    for each in (older, newest):
        assert restore.plan(ground.config, Wish(name, each.backup_id), means).taken.backup_id == each.backup_id


def test_over_a_live_database_the_backup_is_chosen_before_the_safety_backup_is_taken(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (ground.home / "config.json").write_text(json.dumps(asdict(ground.config)))
    asked: list[object] = []

    def start(unit: str, _say: object) -> int:
        asked.append(unit)
        result = {"backup_id": "the one", "database": "app_restored_1"}
        (ground.home / restorectl.RESULT).write_text(json.dumps(result))
        return 0

    monkeypatch.setattr(restorectl.unit, "active", lambda _unit: False)
    monkeypatch.setattr(restorectl.following, "ask", lambda _what, data: asked.append((data["backup"], data["plan"])))
    monkeypatch.setattr(restorectl.unit, "follow", start)
    monkeypatch.setattr(restorectl, "_exists", lambda _settings, _name: True)
    monkeypatch.setattr(restorectl, "_take_place", lambda *_given, **_more: asked.append("swap") or {"database": "app"})
    words = ["restore", "--database", "app", "--over", "app", "--json"]
    assert cli.main([*words, "--config", str(ground.home / "config.json"), "--state", str(ground.home)]) == 0
    assert json.loads(capsys.readouterr().out)["database"] == "app"
    unit = restorectl.UNIT
    assert asked == [("latest", True), unit, restorectl.BACKUP_UNIT, ("the one", False), unit, "swap"]


def test_the_plan_tells_the_time_that_the_last_drill_measured(ground: Ground, rich: str, means: Means) -> None:
    _, name = where(rich)
    ground.taker.take([rich])
    drilled = ground.drill().drill
    made = restore.plan(ground.config, Wish(name, "proved"), replace(means, drills=(drilled,)))
    assert made.expected_ms >= 1000
    assert any("says: proved" in line for line in made.lines)
    assert any("it should take about" in line for line in made.lines)


@pytest.mark.parametrize("count", [0, 2])
def test_single_tables_come_into_a_schema_of_their_own(ground: Ground, rich: str, means: Means, count: int) -> None:
    _, name = where(rich)
    sql(rich, "CREATE TABLE app.big AS SELECT i, md5(i::text) FROM generate_series(1, 60000) i")
    ground.taker.take([rich], count=count)
    sql(rich, "DELETE FROM app.notes", "DROP TABLE app.events", "DELETE FROM app.big")
    wish = Wish(name, tables=("app.notes", "app.events", "app.big", '"Odd.Schema"."Ta""ble.x"'))
    done = restore_tables.run(ground.config, wish, means)
    schema = done.database.rpartition(" ")[2]
    for table, rows in (("notes", 56), ("events", 30), ("big", 60000), ('"Ta""ble.x"', 2)):
        assert ask(rich, f"SELECT count(*) FROM {schema}.{table}") == [(rows,)]
    assert ask(rich, "SELECT count(*) FROM app.notes") == [(0,)]
    assert ask(rich, f"SELECT count(*) FROM pg_database WHERE datname LIKE '{name}_restored%'") == [(0,)]
    with pytest.raises(InputError, match=r"has no table app\.nothing"):
        restore_tables.run(ground.config, replace(wish, tables=("app.nothing",)), means)


@contextlib.contextmanager
def unpaused() -> Iterator[bool]:
    yield False


def test_a_restored_database_takes_the_live_ones_place_and_gives_it_back(new_database: Make) -> None:
    live, other = new_database(), new_database()
    server, name = where(live)
    _, restored = where(other)
    sql(live, "CREATE TABLE which AS SELECT 'live' AS name")
    sql(other, "CREATE TABLE which AS SELECT 'restored' AS name")
    over, answers, refused = threading.Event(), set[object](), [0]

    def app() -> None:
        """Comes back at once whenever it is cut off."""
        while not over.is_set():
            with contextlib.suppress(psycopg.Error), psycopg.connect(live, autocommit=True) as conn:
                while not over.is_set():
                    answers.add(conn.execute(b"SELECT name FROM which").fetchall()[0][0])
            refused[0] += 1

    threads = [threading.Thread(target=app) for _ in range(4)]
    for each in threads:
        each.start()
    admin = f"host={server.host} user=postgres dbname=postgres"

    def connect() -> contextlib.AbstractContextManager[psycopg.Connection[tuple[object, ...]]]:
        return psycopg.connect(admin, autocommit=True)

    def connected() -> bool:
        asked = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'"
        return ask(admin, asked) == [(4,)] and "live" in answers

    try:
        until(connected, "four sessions of the app")
        aside = restore.named(name, "before", datetime.now(UTC))
        done = swap.swap(connect, name, restored, aside, unpaused)
        until(lambda: "restored" in answers, "the app's return")
        assert ask(live, "SELECT name FROM which") == [("restored",)]
        assert ask(live.replace(name, aside), "SELECT name FROM which") == [("live",)]
        assert done.cut_off >= 4
        print(done)
        back = swap.undo(connect, name, datetime.now(UTC), unpaused)
        assert ask(live, "SELECT name FROM which") == [("live",)]
        assert answers == {"live", "restored"}
        assert "_undone_" in back.aside
        with pytest.raises(InputError, match="no database that was"):
            swap.undo(connect, name, datetime.now(UTC), unpaused)
    finally:
        over.set()
        for each in threads:
            each.join()
    sql(live.replace(name, "postgres"), f'ALTER DATABASE "{back.aside}" RENAME TO {restored}')


def test_a_rename_that_cannot_be_is_none_at_all(new_database: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    live, other = new_database(), new_database()
    server, name = where(live)
    _, restored = where(other)
    monkeypatch.setattr(swap, "LONGEST", 0.5)
    real = swap.execute

    def refuse(conn: object, statement: str) -> list[tuple[object, ...]]:
        if statement.endswith(f'TO "{name}"'):
            raise RestoreError("being accessed by other users")
        return real(conn, statement)  # type: ignore[arg-type]

    monkeypatch.setattr(swap, "execute", refuse)
    admin = f"host={server.host} user=postgres dbname=postgres"
    with pytest.raises(RestoreError, match="nothing was"):
        swap.swap(lambda: psycopg.connect(admin, autocommit=True), name, restored, f"{name}_x", unpaused)
    assert ask(live, "SELECT 1") == ask(other, "SELECT 1") == [(1,)]


def test_the_command_restores_shows_its_plan_and_wants_the_exact_name(
    ground: Ground, rich: str, means: Means, capsys: pytest.CaptureFixture[str]
) -> None:
    server, name = where(rich)
    ground.taker.take([rich])
    settings: Config = replace(ground.config, socket=server.host, role="postgres")
    file = ground.home / "config.json"
    file.write_text(json.dumps(asdict(settings)))
    base = ["restore", "--here", "--config", str(file), "--state", str(ground.home / "b"), "--drills",
            str(ground.home / "state"), "--identity", ground.identity, "--json"]  # fmt: skip
    assert cli.main([*base, "--database", name, "--plan"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert planned["result"] == "planned"
    assert cli.main([*base, "--database", name]) == 0
    done = json.loads(capsys.readouterr().out)
    assert done["result"] == "restored"
    assert ask(rich.replace(name, done["database"]), "SELECT count(*) FROM app.notes") == [(56,)]
    assert cli.main([*base, "--database", name, "--over", "other"]) == 1
    assert "exact name" in capsys.readouterr().err
    assert cli.main([*base, "--database", name, "--as", name]) == 1
    assert "exists already" in capsys.readouterr().err


def test_only_the_lines_of_missing_roles_are_taken_from_the_globals() -> None:
    text = b"CREATE ROLE a;\nALTER ROLE a WITH LOGIN PASSWORD 'x';\nCREATE ROLE ab;\nCREATE ROLE \"O d\";\nGRANT a TO ab;\n"
    assert (
        refill.lines_of(text, ["a", "O d"])
        == b"CREATE ROLE a;\nALTER ROLE a WITH LOGIN PASSWORD 'x';\nCREATE ROLE \"O d\";\n"
    )


def test_tablespaces_are_laid_inside_and_the_bootstrap_superuser_is_not_made_twice() -> None:
    text = b"CREATE ROLE postgres;\nCREATE ROLE app;\nCREATE TABLESPACE fast OWNER app LOCATION '/mnt/it''s';\n"
    fitted, moved = refill.fit_globals(text, "postgres")
    assert fitted == b"CREATE ROLE app;\nCREATE TABLESPACE fast OWNER app LOCATION '';\n"
    assert moved == "fast"


def test_names_are_cut_so_that_postgresql_takes_them_whole() -> None:
    at = datetime(2026, 1, 31, 3, 0, tzinfo=UTC)
    assert restore.named("app", "restored", at) == "app_restored_20260131_030000"
    long = restore.named("ü" * 60, "before", at)
    assert len(long.encode()) <= 63
    assert swap.aside_name("ü" * 60, long) == long
