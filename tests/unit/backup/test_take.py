# SPDX-License-Identifier: Apache-2.0
"""A whole run on a real PostgreSQL: what is in the store afterwards, what is on record, and that it can be restored."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from slipway.backup import argv, catalog, manifest
from slipway.backup.config import Config, Place
from slipway.backup.manifest import Manifest
from slipway.backup.pipeline import Stage
from slipway.backup.pipeline import run as pipe
from slipway.backup.stores.store import DirectoryStore, Sent, Store, _FileUpload
from slipway.backup.taking import dumping, runs, take

from tests.unit.waiting import LONG, until

from .test_there_and_back import Make, keys, observed, open_stages, rich, where

__all__ = ["keys", "rich"]


@pytest.fixture
def around(rich: str, keys: tuple[str, str], tmp_path: Path) -> take.Around:
    (tmp_path / "metrics").mkdir()
    server, _ = where(rich)
    return take.Around(
        server=server,
        state=tmp_path / "state",
        recipients=Path(keys[0]),
        metrics=tmp_path / "metrics",
        cores=2,
        by="ann",
    )


def settings(tmp_path: Path, conninfo: str, **given: object) -> Config:
    _, name = where(conninfo)
    return Config("db1", Place("directory", str(tmp_path / "store")), (name,), **given)  # type: ignore[arg-type]


def stored(store: Store, identifier: str) -> Manifest:
    return manifest.read(b"".join(store.read(f"db1/{identifier}/manifest.json")))


@pytest.mark.parametrize("parallel_mb", [0, 1024])
def test_a_run_leaves_a_backup_that_restores_and_a_record_of_it(
    *, rich: str, around: take.Around, keys: tuple[str, str], tmp_path: Path, new_database: Make, parallel_mb: int
) -> None:
    config = settings(tmp_path, rich, parallel_mb=parallel_mb)
    store = DirectoryStore(tmp_path / "store")
    done = take.run(config, lambda: store, around)
    found = stored(store, done.id)
    _, name = where(rich)
    mine = [each for each in found.objects if each.database == name]
    assert found.objects[0].holds == "globals"
    assert (mine[0].holds == "schema") == (parallel_mb == 0)
    assert {each.name for each in found.contents.databases} >= {name, "postgres"}
    copy = new_database()
    server, target = where(copy)
    for each in mine:
        stages = [*open_stages(keys[1]), Stage("pg_restore", argv.restore(server, target))]
        pipe(stages, source=store.read(each.key), may_be_empty=True, timeout=60)
    seen = found.contents.database(name)
    assert seen is not None
    only = replace(found, contents=manifest.Contents(found.contents.cluster, (seen,)))
    assert [str(each) for each in observed(only, copy)] == []
    assert runs.records(around.state) == [done]
    assert done.good
    assert done.by == "ann"
    assert done.databases[name].rows == sum(table.rows for table in seen.tables) > 200_000
    assert (
        f"slipway_backup_newest_timestamp_seconds {int(found.taken.timestamp())}"
        in (around.metrics / "backup.prom").read_text()
    )


@pytest.fixture
def seen(rich: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happens to one database, in order: ``sent`` when an object with rows is complete, ``read`` when a table's
    reading begins, ``done`` when it has ended."""
    _, name = where(rich)
    found: list[str] = []
    complete, read = _FileUpload.complete, catalog.read_table

    def completing(self: _FileUpload) -> Sent:
        wanted = self._key.endswith((f"dump-{name}", f"data-{name}"))
        time.sleep(0.5 if wanted else 0)
        sent = complete(self)
        found.extend(["sent"] if wanted else [])
        return sent

    def reading(conn: psycopg.Connection[Any], *given: Any, **named: Any) -> manifest.Table:
        mine = conn.info.dbname == name
        found.extend(["read"] if mine else [])
        table = read(conn, *given, **named)
        found.extend(["done"] if mine else [])
        return table

    monkeypatch.setattr(_FileUpload, "complete", completing)
    monkeypatch.setattr(catalog, "read_table", reading)
    return found


@pytest.mark.parametrize(("cores", "apart"), [(2, True), (4, False)])
def test_on_few_cores_the_rows_are_hashed_after_the_dump_and_not_beside_it(
    *, rich: str, around: take.Around, tmp_path: Path, seen: list[str], cores: int, apart: bool
) -> None:
    store = DirectoryStore(tmp_path / "store")
    take.run(settings(tmp_path, rich), lambda: store, replace(around, cores=cores))
    assert ("read" in seen[: seen.index("sent")]) != apart
    assert seen.count("read") > 1


def test_of_several_streams_on_two_cores_two_work_at_once_and_hashing_begins_where_one_has_ended(
    rich: str, around: take.Around, tmp_path: Path, seen: list[str]
) -> None:
    store = DirectoryStore(tmp_path / "store")
    take.run(settings(tmp_path, rich, parallel_mb=0), lambda: store, replace(around, cores=2))
    streams, reading = seen.count("sent"), 0
    assert streams == 3
    for place, each in enumerate(seen):
        reading += {"read": 1, "done": -1}.get(each, 0)
        dumping_now = streams - seen[: place + 1].count("sent")
        assert reading + min(2, dumping_now) <= 2
    assert "read" in seen[: len(seen) - seen[::-1].index("sent")] or seen.index("read") > 1


def test_a_dump_that_waits_for_its_turn_has_its_locks_already(
    rich: str, around: take.Around, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(rich, autocommit=True) as conn:
        conn.execute(
            "CREATE TABLE app.waits AS SELECT md5(i::text) || md5((-i)::text) FROM generate_series(1, 300000) i"
        )
        conn.execute(
            "CREATE TABLE app.first AS SELECT md5(i::text) || md5((-i)::text) FROM generate_series(1, 400000) i"
        )
    _, name = where(rich)
    complete, held = _FileUpload.complete, list[int]()

    def completing(self: _FileUpload) -> Sent:
        if self._key.endswith(f"-data-{name}") and not held:
            query = """SELECT count(DISTINCT l.pid) FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
              WHERE l.relation = 'app.waits'::regclass AND l.granted AND a.query LIKE 'COPY%'"""
            with psycopg.connect(rich, autocommit=True) as conn:
                until(lambda: conn.execute(query).fetchone() == (1,), "the second dump waits with its lock")
            held.append(1)
        return complete(self)

    monkeypatch.setattr(_FileUpload, "complete", completing)
    monkeypatch.setattr(dumping, "at_once", lambda _means, _parts: 1)
    store = DirectoryStore(tmp_path / "store")
    done = take.run(settings(tmp_path, rich, parallel_mb=0), lambda: store, replace(around, cores=2))
    assert held
    assert done.good


@pytest.mark.parametrize("app", [False, True])
def test_a_second_connection_hashes_only_as_long_as_the_app_asks_nothing(
    *, rich: str, around: take.Around, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, app: bool
) -> None:
    _, name = where(rich)
    read, by = catalog.read_table, set[int]()

    def reading(conn: psycopg.Connection[Any], *given: Any, **named: Any) -> manifest.Table:
        if conn.info.dbname == name:
            by.add(conn.info.backend_pid)
            time.sleep(0.5)
        return read(conn, *given, **named)

    monkeypatch.setattr(catalog, "read_table", reading)
    store = DirectoryStore(tmp_path / "store")
    config = settings(tmp_path, rich, parallel_mb=0)
    with psycopg.connect(rich, autocommit=True) as conn, ThreadPoolExecutor(1) as pool:
        asking = pool.submit(conn.execute, f"SELECT pg_sleep({LONG})".encode()) if app else None
        try:
            take.run(config, lambda: store, replace(around, cores=2))
        finally:
            conn.cancel()
        if asking:
            assert isinstance(asking.exception(), psycopg.errors.QueryCanceled)
    assert len(by) == (1 if app else 2)
