# SPDX-License-Identifier: Apache-2.0
"""A whole run on a real PostgreSQL: what is in the store afterwards, what is on record, and that it can be restored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from slipway.backup import argv, manifest
from slipway.backup.config import Config, Place
from slipway.backup.manifest import Manifest
from slipway.backup.pipeline import Stage
from slipway.backup.pipeline import run as pipe
from slipway.backup.stores.store import DirectoryStore, Store
from slipway.backup.taking import runs, take

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
