# SPDX-License-Identifier: Apache-2.0
"""For tests of what goes wrong while a backup is taken: a small database, programs that misbehave, a run that must fail."""

from __future__ import annotations

import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from slipway.backup.config import Config, Place
from slipway.backup.keeping import listing
from slipway.backup.stores.store import DirectoryStore, Store
from slipway.backup.taking import runs, take
from slipway.errors import SlipwayError

from tests.unit.waiting import LIMIT, until

from .test_there_and_back import Make, keys, where

__all__ = ["keys"]


@pytest.fixture
def database(new_database: Make) -> str:
    conninfo = new_database()
    with psycopg.connect(conninfo, autocommit=True) as conn:
        conn.execute("CREATE TABLE t AS SELECT i, md5(i::text) FROM generate_series(1, 30000) i")
    return conninfo


@pytest.fixture
def around(database: str, keys: tuple[str, str], tmp_path: Path) -> take.Around:
    (tmp_path / "metrics").mkdir()
    server, _ = where(database)
    return take.Around(server=server, state=tmp_path / "state", recipients=Path(keys[0]), metrics=tmp_path / "metrics",
                       cores=2, pause=0.1)  # fmt: skip


@pytest.fixture
def config(database: str, tmp_path: Path) -> Config:
    return Config("db1", Place("directory", str(tmp_path / "store")), (where(database)[1],))


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store")


def programs(folder: Path, **scripts: str) -> str:
    """A folder with PostgreSQL's dump programs, some of them replaced by shell scripts; with a slash at its end."""
    folder.mkdir()
    for name in ("pg_dump", "pg_dumpall"):
        real = shutil.which(name)
        script = scripts.get(name, 'exec $REAL "$@"').replace("$REAL", str(real))
        (folder / name).write_text(f'#!/bin/sh\n[ "$1" = --version ] && exec {real} --version\n{script}\n')
        (folder / name).chmod(0o755)
    return f"{folder}/"


SLOW = '$REAL "$@" | { head -c 200000; echo $$ > "$0.begun"; sleep 300; }'
SLOW_ONCE = '[ -e "$0.begun" ] && exec $REAL "$@"; ' + SLOW


def fails(config: Config, store: Store | Callable[[], Store], around: take.Around, message: str) -> runs.Run:
    """A run that must fail with ``message``; its record. Nothing of it may count or linger."""
    begun = time.monotonic()
    with pytest.raises(SlipwayError, match=message):
        take.run(config, store if callable(store) else lambda: store, around)
    assert time.monotonic() - begun < LIMIT  # it ended because of the failure, not when the dump was over
    record = runs.records(around.state)[-1]
    assert record.result == "failed"
    assert re.search(message, record.reason)
    prom = (around.metrics / "backup.prom").read_text()
    assert "slipway_backup_last_run_good 0" in prom
    assert "slipway_backup_newest_timestamp_seconds" not in prom
    assert runs.running(around.state) is None
    if isinstance(store, DirectoryStore):
        assert listing.read(store, "db1").whole == ()
        assert list((store.root / ".uploads").glob("*")) == []
    return record


@contextmanager
def meanwhile(work: Callable[[], Any]) -> Iterator[None]:
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def await_file(path: Path) -> None:
    until(path.exists, f"{path}")
