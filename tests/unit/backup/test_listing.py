# SPDX-License-Identifier: Apache-2.0
"""What a store is said to hold, and what pruning makes of it: in a directory and in a bucket with versions."""

from __future__ import annotations

from datetime import timedelta

import pytest
from slipway.backup.config import Config, Place
from slipway.backup.keeping import listing, prune
from slipway.backup.stores.store import AccessError, DirectoryStore, Store, StoreError

from .fake_s3 import FakeS3, Fault
from .shelf import CHAIN, NOW, Shelf
from .test_store import s3_store, store

__all__ = ["store"]

CONFIG = Config("db1", Place("directory", "/x"), ("app",), keeps={"daily": 3, "weekly": 0, "monthly": 0, "minimum": 1})


def days(count: float) -> timedelta:
    return timedelta(days=count)


def test_backups_are_listed_newest_first_with_their_proof_and_what_is_wrong(store: Store) -> None:
    shelf = Shelf(store)
    old, new = shelf.put(days(3)), shelf.put(days(1))
    shelf.drill(old)
    unfinished = shelf.put(days(0.5), finish=False)
    store.put("db1/20260315T030000Z-db1-ffffff/manifest.json", b'{"manifest": 1}')
    store.put("db1/holds/" + new, b"before split_db")
    store.put("other/" + new + "/manifest.json", b"of another host")
    found = listing.read(store, "db1")
    assert [each.id for each in found.backups] == ["20260315T030000Z-db1-ffffff", unfinished, new, old]
    assert [each.whole for each in found.backups] == [False, False, True, True]
    assert "is no manifest" in found.backups[0].problem
    assert "no manifest" in found.backups[1].problem
    assert [each.proof for each in found.backups] == ["none", "none", "none", "proved"]
    assert found.backups[2].held == "before split_db"
    assert found.named("latest") == found.backups[2]
    assert found.notes == ()


def test_the_latest_drill_decides_and_only_for_the_manifest_that_it_drilled(store: Store) -> None:
    shelf = Shelf(store)
    twice, other = shelf.put(days(2)), shelf.put(days(1))
    shelf.drill(twice, "proved")
    shelf.drill(twice, "failed")
    shelf.drill(other, "proved", digest="e" * 64)
    assert [each.proof for each in listing.read(store, "db1").backups] == ["none", "failed"]


def test_a_lost_or_shortened_object_makes_a_backup_not_whole(store: Store) -> None:
    shelf = Shelf(store)
    first, second = shelf.put(days(2), objects=2), shelf.put(days(1), objects=2)
    entry = next(each for each in store.versions(f"db1/{first}/01"))
    store.delete(entry.key, entry.version)
    if isinstance(store, DirectoryStore):
        store.put(f"db1/{second}/00-dump-app", b"cut")
    found = {each.id: each for each in listing.read(store, "db1").backups}
    assert found[first].problem == "objects are missing or of another size: 01-dump-app"
    assert found[second].whole != isinstance(store, DirectoryStore)


def test_a_record_that_was_altered_is_told_and_proves_nothing(store: Store) -> None:
    shelf = Shelf(store)
    shelf.drill(shelf.put(days(1)))
    shelf.drill(shelf.put(days(2)))
    key = f"db1/evidence/{CHAIN}/000002.json"
    body = b"".join(store.read(key)).replace(b"proved", b"PROVED")
    entry = next(iter(store.versions(key)))
    store.delete(key, entry.version)
    store.put(key, body)
    found = listing.read(store, "db1")
    assert [each.proof for each in found.backups] == ["proved", "none"]
    assert any("does not match its own hash" in note for note in found.notes)


def test_hosts_that_drill_from_one_store_keep_their_records_apart_and_the_latest_word_counts(store: Store) -> None:
    shelf = Shelf(store)
    first, second = shelf.put(days(2)), shelf.put(days(1))
    shelf.drill(first, "failed")
    shelf.drill(second, chain="drill2-11111111")
    shelf.drill(second, "failed", chain="drill1-22222222")  # the same host, made anew
    shelf.drill(first)
    found = listing.read(store, "db1")
    assert {each.id: each.proof for each in found.backups} == {first: "proved", second: "failed"}
    assert found.notes == (
        "Evidence is from 3 chains, one for each host that ever drilled: drill1-0a1b2c3d, drill1-22222222, drill2-11111111.",
    )


def test_what_somebody_with_the_writers_key_puts_on_top_changes_nothing(fake: FakeS3) -> None:
    shelf = Shelf(s3_store(fake))
    hidden, over = shelf.put(days(2)), shelf.put(days(1))
    shelf.drill(over)
    fake.hide(f"db1/{hidden}/manifest.json")
    fake.hide(f"db1/{hidden}/00-dump-app")
    shelf.store.put(f"db1/{over}/manifest.json", b"a forged one")
    shelf.store.put(f"db1/evidence/{CHAIN}/000001.json", b"another one")
    found = listing.read(shelf.store, "db1")
    assert [(each.id, each.whole, each.proof) for each in found.backups] == [
        (over, True, "proved"),
        (hidden, True, "none"),
    ]
    assert "written over" in found.backups[0].notes[0]
    assert ["is hidden by a delete marker" in note for note in found.backups[1].notes] == [True, True]
    assert "written over" in found.notes[0]


def test_the_plan_goes_by_the_store_and_is_carried_out_manifest_first(store: Store) -> None:
    shelf = Shelf(store)
    names = [shelf.put(days(each)) for each in range(1, 8)]
    shelf.drill(names[0])
    shelf.put(days(40), finish=False)
    chosen = prune.plan(store, CONFIG, NOW)
    assert [each.id for each in chosen.plan.kept] == names[:3]
    assert len(chosen.doomed) == 5
    assert chosen.bytes == sum(each.bytes for each in chosen.doomed) > 5000
    assert len(listing.read(store, "db1").backups) == 8  # a plan only looks
    told: list[str] = []
    done = prune.apply(store, chosen, told.append)
    assert done.removed == [each.id for each in chosen.doomed]
    assert done.bytes == chosen.bytes
    assert [each.id for each in listing.read(store, "db1").backups] == names[:3]
    assert len(told) == 5


def test_nothing_goes_while_nothing_is_proved_or_the_proof_cannot_be_read(fake: FakeS3) -> None:
    shelf = Shelf(s3_store(fake))
    names = [shelf.put(days(each)) for each in range(1, 8)]
    assert prune.plan(shelf.store, CONFIG, NOW).doomed == ()
    shelf.drill(names[0])
    assert len(prune.plan(shelf.store, CONFIG, NOW).doomed) == 4
    assert prune.plan(shelf.store, CONFIG, NOW + days(4)).doomed == ()  # backups have stopped
    fake.store(f"db1/evidence/{CHAIN}/000001.json", b"")  # on top of the real one: changes nothing
    assert len(prune.plan(shelf.store, CONFIG, NOW).doomed) == 4
    fake.objects[f"db1/evidence/{CHAIN}/000001.json"].pop()
    assert prune.plan(shelf.store, CONFIG, NOW).doomed == ()


def test_a_delete_marker_on_the_newest_loses_neither_it_nor_those_that_it_protects(fake: FakeS3) -> None:
    shelf = Shelf(s3_store(fake))
    names = [shelf.put(days(each)) for each in range(1, 8)]
    shelf.drill(names[0])
    before = [each.id for each in prune.plan(shelf.store, CONFIG, NOW).doomed]
    fake.hide(f"db1/{names[0]}/manifest.json")
    assert [each.id for each in prune.plan(shelf.store, CONFIG, NOW).doomed] == before
    assert names[0] not in before


def test_more_than_a_thousand_objects_are_seen_and_removed() -> None:
    fake = FakeS3(page=1000)
    try:
        shelf = Shelf(s3_store(fake))
        gone, kept = shelf.put(days(9), objects=600), shelf.put(days(1), objects=600)
        shelf.drill(kept)
        for place in range(300):
            fake.hide(f"db1/{gone}/{place:02}-dump-app")
        chosen = prune.plan(shelf.store, Config("db1", Place("directory", "/x"), (), keeps={"daily": 1, "weekly": 0, "monthly": 0, "minimum": 1}), NOW)  # fmt: skip
        assert [each.id for each in chosen.doomed] == [gone]
        assert prune.apply(shelf.store, chosen).removed == [gone]
        assert not any(key.startswith(f"db1/{gone}/") for key in fake.objects)
        assert sum(key.startswith(f"db1/{kept}/") for key in fake.objects) == 601
    finally:
        fake.close()


def test_what_is_locked_is_kept_whole_and_said(fake: FakeS3, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = Shelf(s3_store(fake))
    names = [shelf.put(days(each)) for each in range(1, 7)]
    shelf.drill(names[0])
    real = shelf.store.delete

    def delete(key: str, version: str) -> None:
        if names[5] in key:
            raise AccessError("the object is locked")
        real(key, version)

    monkeypatch.setattr(shelf.store, "delete", delete)
    done = prune.apply(shelf.store, prune.plan(shelf.store, CONFIG, NOW))
    assert done.removed == [names[4], names[3]]
    assert "the object is locked" in done.kept[names[5]]
    assert listing.read(shelf.store, "db1").backups[-1].whole
    locked = Config("db1", Place("s3", endpoint="e", region="r", bucket="b", lock_mode="GOVERNANCE", lock_days=30), ())
    kept = prune.plan(shelf.store, locked, NOW).plan
    assert kept.removed == ()
    assert any("locked until" in reason for reason in kept.decisions[-1].reasons)


def test_a_removal_that_is_cut_off_leaves_no_backup_that_looks_whole(fake: FakeS3) -> None:
    shelf = Shelf(s3_store(fake))
    names = [shelf.put(days(each), objects=3) for each in range(1, 7)]
    shelf.drill(names[0])
    chosen = prune.plan(shelf.store, CONFIG, NOW)
    fake.faults = [Fault("DeleteObject", "lost"), Fault("DeleteObject", "503 SlowDown", 1)]
    real, left = shelf.store.delete, [2]

    def dying(key: str, version: str) -> None:
        if not left[0]:
            raise StoreError("gone")
        left[0] -= 1
        real(key, version)

    shelf.store.delete = dying  # type: ignore[method-assign]
    with pytest.raises(StoreError):
        prune.apply(shelf.store, chosen)
    last = listing.read(shelf.store, "db1").backups[-1]
    assert (last.id, last.whole) == (names[5], False)
    shelf.store.delete = real  # type: ignore[method-assign]
    again = prune.plan(shelf.store, CONFIG, NOW + days(30) - timedelta(hours=1))
    assert again.plan.paused  # backups have stopped meanwhile: even leftovers stay


def test_a_key_that_may_not_list_is_one_error(fake: FakeS3) -> None:
    fake.denied = {"ListObjectVersions"}
    with pytest.raises(AccessError):
        listing.read(s3_store(fake), "db1")
