# SPDX-License-Identifier: Apache-2.0
"""Restore drills on a real PostgreSQL: the good backup that is proved, and every bad one that is not."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import psycopg
import pytest
from slipway.backup import drill
from slipway.backup.assertions import Assertion
from slipway.backup.attempt import Means
from slipway.backup.config import Config, Place
from slipway.backup.drill import Outcome
from slipway.backup.evidence import verify_chain
from slipway.backup.proofs import Proofs
from slipway.backup.store import DirectoryStore, Store

from .taking import HOST, Taker
from .test_catalog import RICH
from .test_there_and_back import keys  # noqa: F401 - a fixture

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
def ground(keys: tuple[str, str]) -> Iterator[Ground]:  # noqa: F811
    if not keys[0]:
        pytest.skip("age is not installed here")
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


@pytest.mark.parametrize("count", [0, 2])
def test_a_good_backup_is_proved_with_every_check_and_leaves_nothing_behind(
    ground: Ground, rich: str, new_database: Make, count: int
) -> None:
    with psycopg.connect(rich, autocommit=True) as conn:
        conn.execute("CREATE TABLE app.big AS SELECT i, md5(i::text) FROM generate_series(1, 60000) i")
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
    assert min(vars(outcome.drill.steps).values()) > 0
    chain, unasked = ground.proofs.verify()
    assert (chain.problems, unasked, len(chain.records)) == ((), [], 1)
    assert replace(chain.records[0].drill) == outcome.drill  # type: ignore[type-var]
    copies = [b"".join(ground.store.read(each.key)) for each in ground.store.entries(f"{HOST}/evidence/")]
    assert verify_chain(copies).head == outcome.head
    assert "proved" in (ground.home / f"state/reports/{outcome.drill.drill_id}.md").read_text()
