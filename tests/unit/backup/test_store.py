# SPDX-License-Identifier: Apache-2.0
"""Both stores: the same promises, kept by a directory and by a bucket."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slipway.backup.stores import store as stores
from slipway.backup.stores.retry import Retry
from slipway.backup.stores.s3 import Bucket, S3Store
from slipway.backup.stores.store import MB, DirectoryStore, Hasher, MissingError, Store, StoreError
from slipway.errors import InputError

from .fake_s3 import FakeS3

PART = 5 * MB


def s3_store(fake: FakeS3, **policy: float) -> S3Store:
    retry = Retry(attempts=int(policy.get("attempts", 4)), sleep=lambda _seconds: None)
    return S3Store(Bucket("b", fake.endpoint, "eu-central-003", "key", "hidden"), retry=retry)


@pytest.fixture(params=["directory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "directory":
        yield DirectoryStore(tmp_path / "backups")
        return
    server = FakeS3(page=3)
    yield s3_store(server)
    server.close()


def whole(store: Store, key: str) -> bytes:
    return b"".join(store.read(key))


def test_what_is_put_is_read_back_and_hashed(store: Store) -> None:
    sent = store.put("host/a/manifest.json", b"hello")
    assert whole(store, "host/a/manifest.json") == b"hello"
    assert (sent.size, sent.sha256) == (5, hashlib.sha256(b"hello").hexdigest())
    assert sent.part_md5 == (hashlib.md5(b"hello", usedforsecurity=False).hexdigest(),)
    store.put("host/a/manifest.json", b"")
    assert whole(store, "host/a/manifest.json") == b""


def test_an_upload_in_odd_pieces_is_one_object_with_a_hash_for_each_part(store: Store) -> None:
    body = os.urandom(2 * PART + 17)
    with store.upload("h/dump", part_size=PART) as upload:
        for start in range(0, len(body), 777_777):
            upload.write(body[start : start + 777_777])
        assert store.head("h/dump") is None
        sent = upload.complete()
    assert whole(store, "h/dump") == body
    parts = [body[:PART], body[PART : 2 * PART], body[2 * PART :]]
    assert sent.part_md5 == tuple(hashlib.md5(p, usedforsecurity=False).hexdigest() for p in parts)
    assert (sent.sha256, sent.size) == (hashlib.sha256(body).hexdigest(), len(body))


def test_a_run_that_dies_before_completing_leaves_no_object_and_nothing_unfinished(store: Store) -> None:
    def die() -> None:
        with store.upload("h/dump", part_size=PART) as upload:
            upload.write(b"x" * (PART + 1))
            raise KeyError

    with pytest.raises(KeyError):
        die()
    assert list(store.entries()) == []
    assert store.head("h/dump") is None
    assert store.abort_stale(datetime.now(UTC) + timedelta(days=1)) == []


def test_stale_uploads_of_dead_runs_are_aborted_and_young_ones_are_not(store: Store) -> None:
    names = [f"h/dump{n}" for n in range(5)]
    left = [store.upload(name, part_size=PART) for name in names]
    other = store.upload("other/dump", part_size=PART)
    assert store.abort_stale(datetime.now(UTC) - timedelta(hours=1)) == []
    store.abort(names[0], left[0].id)
    assert sorted(store.abort_stale(datetime.now(UTC) + timedelta(hours=1), "h/")) == names[1:]
    other.write(b"still alive")
    assert other.complete().size == 11
    for upload in left:
        upload.abort()


def test_listings_are_whole_in_order_and_by_prefix(store: Store) -> None:
    names = [f"h/{n:02}/m" for n in range(10)] + ["other/x"]
    for name in reversed(names):
        store.put(name, b"12")
    assert [each.key for each in store.entries("h/")] == names[:-1]
    assert [each.key for each in store.entries()] == names
    assert {each.size for each in store.versions()} == {2}


def test_a_missing_object_is_said_to_be_missing(store: Store) -> None:
    assert store.head("h/none") is None
    with pytest.raises(MissingError):
        whole(store, "h/none")


def test_deleting_a_version_destroys_it_and_twice_is_no_error(store: Store) -> None:
    store.put("h/a", b"1")
    (entry,) = store.versions("h/")
    version = entry.version or "none"
    store.delete("h/a", version)
    store.delete("h/a", version)
    assert list(store.versions()) == []


@pytest.mark.parametrize("bad", ["", "/a", "a/", "a//b", "../x", "a/../b", "a/.hidden", "a b", "a\n", "ä", "x" * 901])
def test_a_key_that_could_mean_something_else_is_refused(bad: str, store: Store) -> None:
    with pytest.raises(InputError, match="no object key"):
        store.put(bad, b"")


@given(st.lists(st.binary(max_size=50), max_size=20), st.integers(1, 40))
def test_hashes_do_not_depend_on_the_pieces(pieces: list[bytes], part_size: int) -> None:
    one, many = Hasher(part_size), Hasher(part_size)
    body = b"".join(pieces)
    one.update(body)
    for piece in pieces:
        many.update(piece)
    assert one.sent("k") == many.sent("k")
    first = stores.content_md5(body[:part_size])
    assert many.part(0) == first
    assert len(one.sent("k").part_md5) == -(-len(body) // part_size)


def test_part_sizes_leave_room_for_a_wrong_guess_and_keep_to_the_memory() -> None:
    assert stores.part_size_for(0) == stores.PART_SIZE
    assert stores.part_size_for(200 * 1024 * MB) * stores.MOST_PARTS >= 2 * 200 * 1024 * MB
    assert stores.part_size_for(MB, memory=20 * MB) == 5 * MB
    with pytest.raises(StoreError, match="at most 160 MB"):
        stores.part_size_for(600 * 1024 * MB)


def test_a_directory_keeps_files_to_its_owner_and_removes_empty_folders(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "backups")
    store.put("h/a/manifest.json", b"1")
    path = tmp_path / "backups/h/a/manifest.json"
    assert path.stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "backups/h").stat().st_mode & 0o777 == 0o750
    store.delete("h/a/manifest.json", "")
    assert not (tmp_path / "backups/h").exists()


def test_a_full_disk_is_an_error_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("slipway.backup.stores.store.os.fsync", full)
    store = DirectoryStore(tmp_path)
    with pytest.raises(StoreError, match=r"No space left on device\. To mend it: free some space"):
        store.put("h/a", b"1")
    assert list(store.entries()) == []
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_directory_cannot_lock_and_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot lock"):
        DirectoryStore(tmp_path).put("a", b"", lock=stores.Lock("COMPLIANCE", datetime.now(UTC)))


def test_a_folder_takes_small_objects_from_whom_only_their_folder_is_open_to(tmp_path: Path) -> None:
    """A drill may put evidence beside the backups, and nothing else of them is its own to write."""
    store = DirectoryStore(tmp_path)
    (tmp_path / "db1/evidence").mkdir(parents=True)
    store.put("db1/evidence/000001.json", b"{}")
    assert [path.name for path in (tmp_path / "db1/evidence").iterdir()] == ["000001.json"]
    assert not (tmp_path / ".uploads").exists()
