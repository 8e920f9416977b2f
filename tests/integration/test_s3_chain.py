# SPDX-License-Identifier: Apache-2.0
"""The whole way on a real PostgreSQL and a real S3 server that misbehaves: backup, drill, listing, pruning, each with its own key."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from botocore import auth
from slipway.backup.config import Place
from slipway.backup.drills import drill
from slipway.backup.drills.attempt import Means
from slipway.backup.drills.drill import Outcome
from slipway.backup.drills.proofs import Proofs
from slipway.backup.keeping import listing, prune
from slipway.backup.stores.retry import Retry
from slipway.backup.stores.s3 import S3Store
from slipway.backup.taking import runs, take
from slipway.backup.taking.runs import Run
from slipway.errors import SlipwayError

from lab.fault_proxy import Fault, FaultProxy
from tests.integration.s3_fixture import Bay
from tests.unit.backup.conftest import new_database, postgres, quick_programs
from tests.unit.backup.drilling import Ground, ground
from tests.unit.backup.taking import HOST, where
from tests.unit.backup.test_there_and_back import Make, keys

__all__ = ["ground", "keys", "new_database", "postgres", "quick_programs"]
pytest_plugins = ["tests.integration.s3_fixture"]
pytestmark = pytest.mark.lab
MB = 1024 * 1024


@dataclass
class Chain:
    """A database host and a drill host at one bucket, through one proxy."""

    bay: Bay
    proxy: FaultProxy
    ground: Ground
    around: take.Around

    def store(self, purpose: str) -> S3Store:
        return self.bay.store(
            purpose, at=self.proxy.url, attempts=8
        )  # as many as users have: one part may meet every fault

    def run(self, store: S3Store | None = None) -> Run:
        """A backup with the writer's key, or into another store; its record."""
        around = replace(self.around, stop=take.Around().stop)
        return take.run(self.ground.config, lambda: store or self.store("writer"), around)

    def take(self) -> str:
        """A backup with the writer's key; its id."""
        return self.run().id

    def lock(self, mode: str) -> None:
        """From now on the settings ask for a lock of a day."""
        place = Place("s3", endpoint="https://s3.test", region="r", bucket="b", lock_mode=mode, lock_days=1)
        self.ground.config = replace(self.ground.config, place=place)

    def records(self) -> list[Run]:
        """What the runs on the database host noted."""
        return runs.records(self.ground.home / "taker")

    def drill(self) -> Outcome:
        """A drill with the reader's key, whose evidence goes up with the evidence key."""
        home = self.ground.home
        means = Means(self.store("reader"), self.ground.identity, home / "scratch", (), 2, self.ground.said.append)
        proofs = Proofs(home / "state", self.store("evidence"), HOST, home / "journal.jsonl")
        return drill.run(self.ground.config, means, proofs, state=home / "state", started_by="test")

    def listed(self) -> listing.Listing:
        """What the bucket holds, as the reader sees it without the proxy."""
        return listing.read(self.bay.store("reader"), HOST)


def noise(conninfo: str, rows: int) -> str:
    """Random bytes, which nothing compresses, into a database; its conninfo."""
    with psycopg.connect(conninfo, autocommit=True) as conn:
        conn.execute("CREATE TABLE noise AS SELECT i AS id, sha512(random()::text::bytea) AS body "
                     "FROM generate_series(1, %s) i", (rows,))  # fmt: skip
        conn.execute("ALTER TABLE noise ADD PRIMARY KEY (id)")
    return conninfo


@pytest.fixture
def small(new_database: Make) -> str:
    """A database whose dump is one part."""
    return noise(new_database(), 2000)


@pytest.fixture
def chain(bay: Bay, proxy: FaultProxy, ground: Ground, small: str, keys: tuple[str, str]) -> Chain:
    """With nothing in the bucket but what the test puts there."""
    owner = bay.store("owner")
    # Probes of a bucket that was set up with a lock cannot be removed while it lasts; backups here are locked by governance.
    for entry in (each for each in owner.versions(f"{HOST}/") if "/setup-check/" not in each.key):
        owner.call("delete_object", "x", Key=entry.key, VersionId=entry.version, BypassGovernanceRetention=True)
    server, name = where(small)
    ground.config = replace(ground.config, databases=(name,))
    around = take.Around(
        server=server, state=ground.home / "taker", recipients=Path(keys[0]), metrics=ground.home, cores=2
    )
    return Chain(bay, proxy, ground, around)


def test_a_backup_through_a_misbehaving_store_is_proved_by_a_drill_through_it(chain: Chain, new_database: Make) -> None:
    noise(new_database(), 300_000)  # a dump of several parts
    chain.proxy.add(
        Fault("status", "upload_part", times=2, retry_after=1),
        Fault("reset", "upload_part", after=2 * MB),
        Fault("swallow", "upload_part"),
        Fault("flip", "upload_part", after=1 * MB),
        Fault("status", "create_multipart_upload", status=500, code="InternalError"),
        Fault("swallow", "put_object", key="manifest.json"),
    )
    identifier = chain.take()
    assert chain.proxy.faults == [], "a fault never happened"
    assert chain.proxy.count("upload_part") > 4, "the dump is too small for this test"
    chain.proxy.add(Fault("truncate", "get_object", key=r"chain|app|\.age|\d", times=2, after=100_000))
    outcome = chain.drill()
    assert [(each.name, each.actual) for each in outcome.drill.checks if each.status == "failed"] == []
    assert outcome.drill.verdict == "proved", outcome.drill
    assert outcome.drill.tried[0].backup_id == identifier
    found = chain.listed()
    assert [(each.id, each.proof) for each in found.whole] == [(identifier, "proved")]


def test_damage_in_the_store_fails_the_drill_and_the_oldest_backup_is_proved(chain: Chain) -> None:
    old, swapped, cut = (chain.take() for _ in range(3))
    for name, kind in ((swapped, "swap"), (cut, "cut")):
        chain.proxy.add(Fault(kind, "get_object", key=f"{name}/(?!manifest)", times=99, after=3000))  # type: ignore[arg-type]
    outcome = chain.drill()
    tried = [(each.backup_id, each.verdict) for each in outcome.drill.tried]
    assert tried == [(cut, "failed"), (swapped, "failed"), (old, "proved")]
    assert all("as the manifest says" in " ".join(each.reasons) for each in outcome.drill.tried[:2])
    assert outcome.code == 4
    assert {each.id: each.proof for each in chain.listed().whole} == {cut: "failed", swapped: "failed", old: "proved"}


def test_a_run_that_dies_before_its_manifest_leaves_no_backup_and_the_next_is_good(chain: Chain) -> None:
    chain.proxy.add(Fault("status", "put_object", key="manifest.json", times=99, status=403, code="InvalidAccessKeyId"))
    with pytest.raises(SlipwayError, match="InvalidAccessKeyId"):
        chain.take()
    assert chain.listed().whole == ()
    chain.proxy.reset()
    identifier = chain.take()
    assert [each.id for each in chain.listed().whole] == [identifier]


def test_a_backup_that_a_thief_hides_and_writes_over_is_found_and_told(chain: Chain) -> None:
    identifier = chain.take()
    thief = chain.bay.store("writer")
    key = f"{HOST}/{identifier}/manifest.json"
    thief.put(key, b"{}")
    thief.call("delete_object", "hiding", Key=key)
    (found,) = chain.listed().whole
    assert found.id == identifier
    assert len([note for note in found.notes if "written over" in note or "hidden" in note]) == 2
    assert chain.drill().drill.verdict == "proved"


def test_pruning_with_its_own_key_removes_what_is_old_and_keeps_the_proved_one(chain: Chain) -> None:
    identifiers = [chain.take() for _ in range(2)]
    assert chain.drill().drill.tried[0].backup_id == identifiers[-1]
    pruner = chain.bay.store("pruner")
    config = replace(chain.ground.config, keeps={"minimum": 1, "stalled_hours": 100_000, "recent_hours": 0, "daily": 1})
    planned = prune.plan(pruner, config, datetime.now(UTC) + timedelta(days=5))
    assert [each.id for each in planned.doomed] == [identifiers[0]]
    done = prune.apply(pruner, planned)
    assert (done.removed, done.kept) == ([identifiers[0]], {})
    assert [each.id for each in chain.listed().backups] == [identifiers[1]]


# -- locks


def test_what_is_locked_stays_is_told_by_pruning_and_found_by_drills_where_it_is_missing(chain: Chain) -> None:
    chain.lock("GOVERNANCE")
    chain.proxy.add(Fault("status", "put_object_retention", times=99, status=403, code="AccessDenied"))
    bare = chain.run()
    chain.proxy.reset()
    assert [each for each in bare.warnings if "may be without its lock" in each], bare.warnings
    outcome = chain.drill()
    assert (outcome.drill.verdict, outcome.code) == ("proved", 0)
    (line,) = outcome.drill.findings
    assert f"3 of 4 objects of {bare.id} are not locked: 00-globals, 01-dump" in line  # the manifest is sent in one go
    locked = chain.run()
    assert not [each for each in locked.warnings if "lock" in each]
    outcome = chain.drill()
    assert (outcome.drill.verdict, outcome.drill.findings) == ("proved", ())
    config = replace(chain.ground.config, keeps={"minimum": 1, "stalled_hours": 100_000, "recent_hours": 0, "daily": 1})
    pruner = chain.bay.store("pruner")
    planned = prune.plan(pruner, config, datetime.now(UTC) + timedelta(days=5))
    assert [each.id for each in planned.doomed] == [bare.id]
    done = prune.apply(pruner, planned)
    assert (done.removed, list(done.kept)) == ([], [bare.id])
    assert "the store did not let manifest.json go" in done.kept[bare.id]
    assert "AccessDenied (403)" in done.kept[bare.id]
    assert [each.id for each in chain.listed().whole] == [locked.id, bare.id]


# -- a store that is lost while a run is under way


def test_a_key_revoked_in_the_middle_of_a_run_ends_it_with_the_reason_and_no_backup(chain: Chain) -> None:
    bucket, revoke = chain.bay.stranger()
    store = S3Store(bucket, retry=Retry(3, base=0.02))
    send = store.client.upload_part

    def revoked(**given: object) -> object:
        revoke()
        store.client.upload_part = send
        return send(**given)

    store.client.upload_part = revoked
    with pytest.raises(SlipwayError, match=r"InvalidAccessKeyId \(403\)(.|\n)*a key that is valid"):
        chain.run(store)
    (record,) = chain.records()
    assert not record.good
    assert "InvalidAccessKeyId" in record.reason
    assert "manifest.json" not in chain.bay.admin("bucket", "list", "--bucket", bucket.name, "--allow-unordered")


def test_a_bucket_that_is_gone_and_a_clock_that_is_wrong_are_told_and_recorded(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SlipwayError, match="NoSuchBucket"):
        chain.run(chain.bay.store("owner", name="no-such-bucket"))
    with monkeypatch.context() as patch:
        real = auth.get_current_datetime
        patch.setattr(auth, "get_current_datetime", lambda: real() - timedelta(hours=1))
        with pytest.raises(SlipwayError, match="timedatectl"):
            chain.run()
    assert [each.good for each in chain.records()] == [False, False]
    assert chain.listed().whole == ()
