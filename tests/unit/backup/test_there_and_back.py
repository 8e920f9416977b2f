# SPDX-License-Identifier: Apache-2.0
"""The parts together: a real database dumped, sealed, stored, fetched, restored, compared and judged."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from slipway.backup import argv, catalog, manifest
from slipway.backup.compare import SETTING, Difference, compare
from slipway.backup.manifest import Contents, Database, Manifest, StoredObject
from slipway.backup.pipeline import PipelineError, Stage, run
from slipway.backup.stores.store import MB, DirectoryStore, Store
from slipway.backup.verdict import from_comparison, judge

from .fake_s3 import FakeS3, Fault
from .test_catalog import RICH
from .test_store import PART, s3_store

Make = Callable[..., str]


@pytest.fixture
def rich(new_database: Make) -> str:
    conninfo = new_database()
    with psycopg.connect(conninfo, autocommit=True) as conn:
        conn.execute(RICH.encode())
        conn.execute("INSERT INTO app.scratch SELECT i FROM generate_series(1, 150000) i")
        conn.execute(
            """CREATE TABLE "Odd.Schema"."b*g $1" AS SELECT i, md5(i::text) FROM generate_series(1, 60000) i"""
        )
    return conninfo


def where(conninfo: str) -> tuple[argv.Server, str]:
    info = dict(each.split("=", 1) for each in conninfo.split())
    return argv.Server(info["host"], int(info.get("port", 5432)), info["user"]), info["dbname"]


def seal_stages(recipients: str) -> list[Stage]:
    return [Stage("zstd", argv.compress(1, 1)), *([Stage("age", argv.encrypt(recipients))] if recipients else [])]


def open_stages(identity: str) -> list[Stage]:
    return [*([Stage("age", argv.decrypt(identity))] if identity else []), Stage("zstd", argv.decompress())]


@pytest.fixture
def keys(tmp_path: Path) -> tuple[str, str]:
    """(recipients file, identity file); both empty, and so no encryption, where age is not installed."""
    if not (shutil.which("zstd") and shutil.which("pg_dump")):
        pytest.skip("zstd or pg_dump is not installed here")
    if not shutil.which("age"):
        return "", ""
    identity, recipients = tmp_path / "id", tmp_path / "recipients"
    subprocess.run(["age-keygen", "-o", str(identity)], check=True, capture_output=True)
    done = subprocess.run(["age-keygen", "-y", str(identity)], check=True, capture_output=True)
    recipients.write_bytes(done.stdout)
    return str(recipients), str(identity)


def back_up(conninfo: str, store: Store, recipients: str, *, count: int = 0) -> Manifest:
    """A backup as the agent will take it: one dump, or with ``count`` a schema, data streams, the rest and indexes."""
    server, name = where(conninfo)
    begun = datetime.now(UTC)
    identifier = manifest.backup_id(begun, "db1", "0a1b2c")
    with psycopg.connect(conninfo, autocommit=True) as conn:
        sentinel = catalog.stamp(conn, identifier)
        exported, snapshot = catalog.hold(conn)
        sequences = catalog.read_sequences(conn)
        seen = catalog.read_database(conn, snapshot, sequences=sequences)
        assert seen.sentinel == sentinel
        plan: list[tuple[str, list[str]]] = [("dump", argv.dump(server, name, snapshot=exported))]
        if count:
            shares = argv.streams({each.name: each.bytes for each in seen.tables}, count, smallest=MB)
            assert len(shares) == count
            named = [table for share in shares for table in share]
            plan = [("schema", argv.dump(server, name, snapshot=exported, section="pre-data"))]
            plan += [
                ("data", argv.dump(server, name, snapshot=exported, section="data", tables=each)) for each in shares
            ]
            plan += [("data", argv.dump(server, name, snapshot=exported, section="data", without_data_of=named))]
            plan += [("indexes", argv.dump(server, name, snapshot=exported, section="post-data"))]
        objects = []
        for place, (holds, command) in enumerate(plan):
            with store.upload(f"db1/{identifier}/{place}", part_size=PART) as upload:
                flow = run([Stage("pg_dump", command), *seal_stages(recipients)], upload.write, timeout=60)
                sent = upload.complete()
            assert (flow.size, flow.sha256) == (sent.size, sent.sha256)
            objects.append(StoredObject(**asdict(sent), holds=holds, database=name, stream=place))
        cluster = catalog.read_cluster(conn)
        snapshot = catalog.release(conn, snapshot, datetime.now(UTC))
    taken = Manifest(identifier, "db1", begun, datetime.now(UTC), Contents(cluster, (replace(seen, snapshot=snapshot),)),
                     tuple(objects), ("none" if not recipients else "age1",), {"pg_dump": "x"})  # fmt: skip
    store.put(f"db1/{identifier}/manifest.json", manifest.write(taken))
    return taken


def restore(taken: Manifest, store: Store, identity: str, target: str) -> None:
    server, name = where(target)
    for each in taken.objects:
        stages = [*open_stages(identity), Stage("pg_restore", argv.restore(server, name))]
        run(stages, source=store.read(each.key), may_be_empty=True, timeout=60)


def observed(taken: Manifest, target: str) -> list[Difference]:
    """Differences of the copy, read as if it had its source's name; its settings are those of another database."""
    (was,) = taken.contents.databases
    with psycopg.connect(target, autocommit=True) as conn, catalog.snapshot_of(conn) as snapshot:
        seen = catalog.read_database(conn, snapshot, samples={each.name: each.sample for each in was.tables})
        cluster = catalog.read_cluster(conn)

    def renamed(database: Database) -> Database:
        access = tuple(replace(a, name=was.name) if a.kind == "database" else a for a in database.access)
        return replace(database, name=was.name, access=access)

    found = compare(Contents(taken.contents.cluster, (renamed(was),)), Contents(cluster, (renamed(seen),)))
    return [each for each in found if each.kind != SETTING]


@pytest.mark.parametrize("count", [0, 2])
@pytest.mark.parametrize("kind", ["directory", "s3"])
def test_what_was_backed_up_comes_back_the_same(
    *, rich: str, new_database: Make, tmp_path: Path, fake: FakeS3, keys: tuple[str, str], count: int, kind: str
) -> None:
    store: Store = DirectoryStore(tmp_path / "store") if kind == "directory" else s3_store(fake)
    fake.faults = [Fault("UploadPart", "lost"), Fault("GetObject", "cut"), Fault("CompleteMultipartUpload", "lost")]
    taken = back_up(rich, store, keys[0], count=count)
    key = f"db1/{taken.backup_id}/manifest.json"
    read = manifest.read(b"".join(store.read(key)))
    assert read == taken
    for each in read.objects:
        body = b"".join(store.read(each.key))
        assert (len(body), hashlib.sha256(body).hexdigest()) == (each.size, each.sha256)
    copy = new_database()
    restore(read, store, keys[1], copy)
    differences = observed(read, copy)
    assert [str(each) for each in differences] == []
    checks = from_comparison(differences, sentinel_stamped=True)
    assert judge(checks, required={each.name for each in checks}).verdict == "proved"
    assert judge(checks).verdict == "inconclusive"  # a comparison alone is no drill


@pytest.mark.parametrize("count", [0, 2])
def test_a_database_that_is_gone_comes_back_under_its_name_with_owner_grants_and_settings(
    *, rich: str, tmp_path: Path, keys: tuple[str, str], count: int
) -> None:
    server, name = where(rich)
    with psycopg.connect(rich, autocommit=True) as conn:
        conn.execute(f"ALTER DATABASE {name} SET work_mem = '7MB'".encode())
        conn.execute(f"ALTER ROLE postgres IN DATABASE {name} SET app.secret = 'hunter2'".encode())
        conn.execute(f"REVOKE CONNECT ON DATABASE {name} FROM PUBLIC".encode())
    store = DirectoryStore(tmp_path / "store")
    taken = back_up(rich, store, keys[0], count=count)
    assert b"hunter2" not in manifest.write(taken)
    with psycopg.connect(rich.replace(name, "postgres"), autocommit=True) as conn:
        conn.execute(f"DROP DATABASE {name}".encode())
    for place, each in enumerate(taken.objects):
        command = argv.restore(server, "postgres" if place == 0 else name, create=place == 0)
        stages = [*open_stages(keys[1]), Stage("pg_restore", command)]
        run(stages, source=store.read(each.key), may_be_empty=True, timeout=60)
    with psycopg.connect(rich, autocommit=True) as conn, catalog.snapshot_of(conn) as snapshot:
        seen = catalog.read_database(conn, snapshot)
        now = Contents(catalog.read_cluster(conn), (seen,))
    assert compare(taken.contents, now) == []
    assert seen.settings["work_mem"] == "7MB"
    assert len(seen.settings) == 2


@pytest.mark.parametrize(
    ("loss", "check"),
    [
        ("DELETE FROM app.scratch WHERE a = 77", "counts"),
        ("UPDATE app.scratch SET a = -a WHERE a = 77", "content"),
        ("SELECT setval('app.notes_id_seq', 1)", "sequences"),
        ("DROP INDEX app.notes_body", "catalog"),
        ("UPDATE slipway.sentinel SET token = 'an older one'", "sentinel"),
    ],
)
def test_a_valid_dump_of_wrong_data_is_found_out(
    *, rich: str, new_database: Make, tmp_path: Path, keys: tuple[str, str], loss: str, check: str
) -> None:
    store = DirectoryStore(tmp_path / "store")
    taken = back_up(rich, store, keys[0])
    copy = new_database()
    restore(taken, store, keys[1], copy)
    with psycopg.connect(copy, autocommit=True) as conn:
        conn.execute(loss.encode())
    checks = from_comparison(observed(taken, copy), sentinel_stamped=True)
    assert check in {each.name for each in checks if each.status == "failed"}
    assert judge(checks).verdict == "failed"


def damage(body: bytes, how: str) -> bytes:
    middle = len(body) // 2
    if how == "cut":
        return body[:middle]
    if how == "flipped":
        return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
    return body[: middle - 4096] + body[middle : middle + 4096] + body[middle - 4096 : middle] + body[middle + 4096 :]


@pytest.mark.parametrize("how", ["cut", "flipped", "swapped"])
def test_a_damaged_object_is_found_by_its_hash_and_again_by_its_decryption(
    rich: str, new_database: Make, tmp_path: Path, keys: tuple[str, str], how: str
) -> None:
    if not keys[0]:
        pytest.skip("age is not installed here")
    store = DirectoryStore(tmp_path / "store")
    taken = back_up(rich, store, keys[0])
    (each,) = taken.objects
    damaged = damage(b"".join(store.read(each.key)), how)
    store.put(each.key, damaged)
    assert hashlib.sha256(damaged).hexdigest() != each.sha256
    with pytest.raises(PipelineError) as caught:
        restore(taken, store, keys[1], new_database())
    assert caught.value.culprit == "age"


@pytest.mark.parametrize("victim", ["pg_dump", "zstd"])
def test_a_backup_whose_program_fails_leaves_no_object(
    rich: str, tmp_path: Path, keys: tuple[str, str], victim: str
) -> None:
    server, name = where(rich)
    store = DirectoryStore(tmp_path / "store")
    # A snapshot that nobody holds makes pg_dump fail.
    stages = [Stage("pg_dump", argv.dump(server, name, snapshot="00000003-00000001-1")), *seal_stages(keys[0])]
    if victim == "zstd":
        stages[:2] = [Stage("pg_dump", ["yes"]), Stage("zstd", ["zstd", "--no-such-option"])]

    def attempt(these: Sequence[Stage]) -> None:
        with store.upload("db1/x/dump", part_size=PART) as upload:
            run(these, upload.write)
            upload.complete()

    with pytest.raises(PipelineError) as caught:
        attempt(stages)
    assert caught.value.culprit == victim
    assert list(store.entries()) == []
    assert store.abort_stale(datetime.now(UTC) + timedelta(days=1)) == []
