# SPDX-License-Identifier: Apache-2.0
"""A backup and its drill through a proxy that misbehaves, in front of a stand-in bucket: the whole way, on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from slipway.backup.keeping import listing
from slipway.backup.stores.retry import Retry
from slipway.backup.stores.s3 import Bucket, S3Store
from slipway.backup.taking import take
from slipway.errors import SlipwayError

from lab.fault_proxy import Fault, FaultProxy

from .drilling import Ground, ground
from .fake_s3 import FakeS3
from .taking import HOST, where
from .test_there_and_back import Make, keys

__all__ = ["ground", "keys"]
MB = 1024 * 1024


@pytest.fixture
def proxy(fake: FakeS3) -> Iterator[FaultProxy]:
    with FaultProxy(fake.endpoint, b2=True) as made:
        yield made


def store_at(url: str) -> S3Store:
    return S3Store(Bucket("b", url, "lab", "key", "secret"), retry=Retry(8, base=0.02, cap=1.5))


def noise(conninfo: str, rows: int) -> str:
    """Random bytes, which nothing compresses, into a database; its conninfo."""
    with psycopg.connect(conninfo, autocommit=True) as conn:
        conn.execute("CREATE TABLE noise AS SELECT i AS id, sha512(random()::text::bytea) AS body "
                     "FROM generate_series(1, %s) i", (rows,))  # fmt: skip
        conn.execute("ALTER TABLE noise ADD PRIMARY KEY (id)")
    return conninfo


def taker(ground: Ground, conninfo: str, keys: tuple[str, str], url: str) -> str:
    """A backup by the agent; its id. The drill's store is the same."""
    server, name = where(conninfo)
    ground.config = replace(ground.config, databases=(name,))
    ground.store = store_at(url)
    around = take.Around(
        server=server, state=ground.home / "taker", recipients=Path(keys[0]), metrics=ground.home, cores=2
    )
    return take.run(ground.config, lambda: ground.store, around).id


def test_a_backup_through_a_misbehaving_store_is_proved_by_a_drill_through_it(
    ground: Ground, new_database: Make, keys: tuple[str, str], proxy: FaultProxy, fake: FakeS3
) -> None:
    proxy.add(
        Fault("status", "upload_part", times=2, retry_after=1),
        Fault("reset", "upload_part", after=2 * MB),
        Fault("swallow", "upload_part"),
        Fault("flip", "upload_part", after=100),
        Fault("status", "create_multipart_upload", status=500, code="InternalError"),
        Fault("swallow", "put_object", key="manifest.json"),
    )
    identifier = taker(ground, noise(new_database(), 300_000), keys, proxy.url)
    assert proxy.faults == [], "a fault never happened"
    proxy.add(Fault("truncate", "get_object", times=2, after=1000))
    outcome = ground.drill()
    assert [(each.name, each.actual) for each in outcome.drill.checks if each.status == "failed"] == []
    assert (outcome.drill.verdict, outcome.drill.tried[0].backup_id) == ("proved", identifier)
    found = listing.read(store_at(fake.endpoint), HOST)
    assert [(each.id, each.proof) for each in found.whole] == [(identifier, "proved")]


def test_a_byte_flipped_in_the_store_fails_the_drill_and_the_older_backup_is_proved(
    ground: Ground, new_database: Make, keys: tuple[str, str], proxy: FaultProxy, fake: FakeS3
) -> None:
    conninfo = noise(new_database(), 1000)
    older, newer = (taker(ground, conninfo, keys, proxy.url) for _ in range(2))
    proxy.add(Fault("flip", "get_object", key=f"{newer}/(?!manifest)", times=99, after=3000))
    outcome = ground.drill()
    assert [(each.backup_id, each.verdict) for each in outcome.drill.tried] == [(newer, "failed"), (older, "proved")]
    assert outcome.code == 4
    found = listing.read(store_at(fake.endpoint), HOST).whole
    assert {each.id: each.proof for each in found} == {newer: "failed", older: "proved"}


def test_a_run_that_dies_before_its_manifest_leaves_no_backup_and_the_next_is_good(
    ground: Ground, new_database: Make, keys: tuple[str, str], proxy: FaultProxy, fake: FakeS3
) -> None:
    conninfo = noise(new_database(), 1000)
    proxy.add(Fault("status", "put_object", key="manifest.json", times=99, status=403, code="InvalidAccessKeyId"))
    with pytest.raises(SlipwayError, match="InvalidAccessKeyId"):
        taker(ground, conninfo, keys, proxy.url)
    assert listing.read(store_at(fake.endpoint), HOST).whole == ()
    proxy.reset()
    identifier = taker(ground, conninfo, keys, proxy.url)
    assert [each.id for each in listing.read(store_at(fake.endpoint), HOST).whole] == [identifier]
