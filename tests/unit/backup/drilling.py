# SPDX-License-Identifier: Apache-2.0
"""A drill host for tests: its store, its folders, its age key, and a fixture that sees that nothing is left behind."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest
from slipway.backup.config import Config, Place
from slipway.backup.drills import drill, scratch
from slipway.backup.drills.assertions import Assertion
from slipway.backup.drills.attempt import Means
from slipway.backup.drills.drill import Outcome
from slipway.backup.drills.proofs import Proofs
from slipway.backup.stores.store import DirectoryStore, Store

from .taking import HOST, Taker
from .test_catalog import RICH
from .test_there_and_back import keys

__all__ = ["Ground", "Make", "ground", "keys", "rich", "sql", "status"]

Make = Callable[..., str]


@dataclass
class Ground:
    """A drill host: its store, its folders, its age key."""

    home: Path
    store: Store
    taker: Taker
    identity: str
    config: Config
    assertions: tuple[Assertion, ...] = ()
    said: list[str] = field(default_factory=list)

    @property
    def proofs(self) -> Proofs:
        return Proofs(self.home / "state", self.store, HOST, self.home / "journal.jsonl")

    @property
    def means(self) -> Means:
        return Means(self.store, self.identity, self.home / "scratch", self.assertions, 2, self.said.append)

    def drill(self, **given: object) -> Outcome:
        state = self.home / "state"
        return drill.run(self.config, self.means, self.proofs, state=state, started_by="test", **given)  # type: ignore[arg-type]


@pytest.fixture
def ground(keys: tuple[str, str], quick_programs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ground]:
    if not keys[0]:
        pytest.skip("age is not installed here")
    monkeypatch.setattr(scratch, "PROGRAMS", quick_programs)
    home = Path(tempfile.mkdtemp(prefix="slipway-d-"))
    home.chmod(0o711)
    store = DirectoryStore(home / "store")
    config = Config(HOST, Place("directory", str(home / "store")), ("app",), scratch_mb=64)
    yield Ground(home, store, Taker(store, keys[0]), keys[1], config)
    leftovers = list((home / "scratch").glob("*")) if (home / "scratch").exists() else []
    shutil.rmtree(home, ignore_errors=True)
    assert leftovers == []


@pytest.fixture
def rich(new_database: Make) -> str:
    conninfo = new_database()
    with psycopg.connect(conninfo, autocommit=True) as conn:
        conn.execute(RICH.encode())
    return conninfo


def status(outcome: Outcome, name: str) -> set[str]:
    return {each.status for each in outcome.drill.checks if each.name == name}


def sql(conninfo: str, *statements: str) -> None:
    with psycopg.connect(conninfo, autocommit=True) as conn:
        for each in statements:
            conn.execute(each.encode())
