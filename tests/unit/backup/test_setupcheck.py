# SPDX-License-Identifier: Apache-2.0
"""Trying the writer's key with locks: what holds, what the store forgets, and what is left behind."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from slipway.backup.stores import setupcheck
from slipway.backup.stores.store import Lock

from .fake_s3 import FakeS3
from .test_store import s3_store

NOW = datetime(2031, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)


def tried(fake: FakeS3) -> tuple[setupcheck.Locks, dict[str, bool]]:
    found = setupcheck.locks(s3_store(fake), "db1", "x", setupcheck.shortest("compliance", NOW))
    return found, {each.what: each.good for each in found.tries}


def test_a_probes_lock_is_a_minute_in_whole_seconds_and_of_the_kind_that_backups_get() -> None:
    assert setupcheck.shortest("governance", NOW) == Lock("GOVERNANCE", datetime(2031, 5, 6, 7, 9, 10, tzinfo=UTC))
    assert setupcheck.shortest("COMPLIANCE", NOW).mode == "COMPLIANCE"


def test_locks_that_hold_are_as_they_should_be_and_what_is_left_is_named(fake: FakeS3) -> None:
    found, goods = tried(fake)
    assert (len(goods), set(goods.values())) == (5, {True})
    assert found.notes == []
    assert found.left == ["db1/setup-check/x.locked", "db1/setup-check/x.locked-parts"]
    assert found.until == datetime(2031, 5, 6, 7, 9, 11, tzinfo=UTC)


def test_a_store_that_forgets_is_told_and_what_slipway_does_about_it(fake: FakeS3) -> None:
    fake.forgets = True
    found, goods = tried(fake)
    assert set(goods.values()) == {True}
    assert found.notes == [setupcheck.FORGETS]


def test_a_key_that_may_set_no_lock_afterwards_is_told_with_the_ways_out(fake: FakeS3) -> None:
    fake.forgets = True
    fake.denied.add("PutObjectRetention")
    found, goods = tried(fake)
    assert [what for what, good in goods.items() if not good] == ["set a lock afterwards"]
    assert found.notes == [setupcheck.UNABLE]
    assert "default retention" in setupcheck.UNABLE


def test_a_store_without_locks_is_said_to_have_none(fake: FakeS3) -> None:
    fake.denied |= {"PutObject", "CreateMultipartUpload"}
    found, goods = tried(fake)
    assert goods == {"lock what it writes": False, "lock what it uploads in parts": False}
    assert found.left == []


@pytest.mark.parametrize("hours", [0, 2])
def test_probes_are_swept_and_those_of_a_check_under_way_left(fake: FakeS3, hours: int) -> None:
    store = s3_store(fake)
    for key in ("db1/setup-check/x", "db1/evidence/setup-check-x", "db1/evidence/000001.json", "db2/setup-check/x"):
        store.put(key, b"x")
    assert setupcheck.sweep(store, "db1", before=datetime.now(UTC) - timedelta(hours=1 - hours)) == []
    left = {"db1/evidence/000001.json", "db2/setup-check/x"}
    assert set(fake.objects) == (left if hours else left | {"db1/setup-check/x", "db1/evidence/setup-check-x"})
