# SPDX-License-Identifier: Apache-2.0
"""A whole run on a real PostgreSQL: what is in the store afterwards, what is on record, and that it can be restored."""

from __future__ import annotations

import time
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
from slipway.backup.stores.store import DirectoryStore, Store
from slipway.backup.taking import dumping, runs, take

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


@pytest.mark.parametrize(("cores", "apart"), [(2, True), (4, False)])
def test_on_few_cores_the_rows_are_hashed_after_the_dumps_and_not_beside_them(
    *, rich: str, around: take.Around, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int, apart: bool
) -> None:
    _, name = where(rich)
    seen: list[str] = []
    send, read = dumping.send, catalog.read_table

    def sending(means: dumping.Means, place: int, part: dumping.Part, *, at_once: int = 1) -> manifest.StoredObject:
        if part.database == name:
            time.sleep(0.5)
        sent = send(means, place, part, at_once=at_once)
        seen.extend(["sent"] if part.database == name else [])
        return sent

    def reading(conn: psycopg.Connection[Any], *given: Any, **named: Any) -> manifest.Table:
        seen.extend(["read"] if conn.info.dbname == name else [])
        return read(conn, *given, **named)

    monkeypatch.setattr(dumping, "send", sending)
    monkeypatch.setattr(catalog, "read_table", reading)
    store = DirectoryStore(tmp_path / "store")
    take.run(settings(tmp_path, rich), lambda: store, replace(around, cores=cores))
    assert ("read" in seen[: seen.index("sent")]) != apart
    assert seen.count("read") > 1
