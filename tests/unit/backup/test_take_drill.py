# SPDX-License-Identifier: Apache-2.0
"""What a run leaves, a drill proves: globals and every database of the cluster, whole and in several streams."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from slipway.backup.keeping import listing, prune
from slipway.backup.stores.store import DirectoryStore
from slipway.backup.taking import take

from .drilling import Ground, ground, rich
from .taking import where
from .test_there_and_back import Make, keys

__all__ = ["ground", "keys", "rich"]


@pytest.mark.parametrize("parallel_mb", [0, 1024])
def test_a_run_and_its_drill_agree_and_the_listing_knows_of_both(
    rich: str, new_database: Make, ground: Ground, keys: tuple[str, str], *, parallel_mb: int
) -> None:
    odd = where(new_database())[1]
    server, name = where(rich)
    store = ground.store
    assert isinstance(store, DirectoryStore)
    config = replace(ground.config, parallel_mb=parallel_mb, databases=(name,))
    around = take.Around(
        server=server, state=ground.home / "taker", recipients=Path(keys[0]), metrics=ground.home, cores=2
    )
    with psycopg.connect(server.conninfo("postgres"), autocommit=True) as conn:
        conn.execute(f'ALTER DATABASE {odd} RENAME TO "Od d/{odd}"'.encode())
        try:
            done = take.run(config, lambda: store, around)
        finally:
            conn.execute(f'ALTER DATABASE "Od d/{odd}" RENAME TO {odd}'.encode())
    assert f"Od d/{odd}" in done.unlisted
    outcome = ground.drill()
    assert [(each.name, each.actual) for each in outcome.drill.checks if each.status == "failed"] == []
    assert outcome.drill.verdict == "proved"
    assert outcome.drill.tried[0].backup_id == done.id
    (listed,) = listing.read(store, config.host).whole
    assert (listed.id, listed.proof) == (done.id, "proved")
    later = listed.taken + timedelta(days=400)
    assert prune.plan(store, config, later).doomed == ()  # the newest proved one never goes
