# SPDX-License-Identifier: Apache-2.0
"""A bucket that misbehaves: nothing lost, nothing called good that is not, nothing silent."""

from __future__ import annotations

import os
import ssl
import time
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import urllib3
from slipway.backup.stores.retry import Retry
from slipway.backup.stores.s3 import Bucket, S3Store
from slipway.backup.stores.store import MB, AccessError, Lock, MissingError, StoreError, UncertainError
from slipway.errors import InputError

from .fake_s3 import FakeS3, Fault
from .test_store import PART, s3_store

BODY = os.urandom(2 * PART + 5)
TRANSIENT = ["reset", "lost", "500 InternalError", "503 SlowDown", "429 TooManyRequests"]


def send(fake: FakeS3, key: str = "h/dump", **policy: float) -> None:
    with s3_store(fake, **policy).upload(key, part_size=PART) as upload:
        upload.write(BODY)
        upload.complete()


@pytest.mark.parametrize("how", TRANSIENT)
@pytest.mark.parametrize("operation", ["CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"])
def test_an_upload_survives_what_passes(fake: FakeS3, operation: str, how: str) -> None:
    fake.faults = [Fault(operation, how, times=2 if operation == "UploadPart" else 1)]
    send(fake)
    (version,) = fake.objects["h/dump"]
    assert version.body == BODY
    assert fake.faults[0].times == 0


@pytest.mark.parametrize("how", TRANSIENT)
@pytest.mark.parametrize("operation", ["PutObject", "GetObject", "HeadObject", "ListObjectsV2", "DeleteObject"])
def test_so_does_every_other_call(fake: FakeS3, operation: str, how: str) -> None:
    store = s3_store(fake)
    fake.faults = [Fault(operation, how)]
    store.put("h/a", b"body")
    found = store.head("h/a")
    assert found is not None
    assert b"".join(store.read("h/a")) == b"body"
    assert [each.key for each in store.entries()] == ["h/a"]
    for each in list(store.versions()):
        store.delete("h/a", each.version)
    assert fake.objects == {}
    assert fake.faults[0].times == 0


@pytest.mark.parametrize("operation", ["CreateMultipartUpload", "UploadPart", "PutObject"])
def test_what_does_not_pass_is_an_error_that_names_it(fake: FakeS3, operation: str) -> None:
    fake.faults = [Fault(operation, "503 SlowDown", times=99)]
    with pytest.raises(StoreError, match=r"after 3 attempts: SlowDown \(503\)"):
        send(fake, attempts=3) if operation != "PutObject" else s3_store(fake, attempts=3).put("h/a", b"1")
    assert fake.objects == {}
    assert fake.uploads == {}


def test_a_completing_call_that_never_answers_is_uncertain_and_not_a_success(fake: FakeS3) -> None:
    fake.faults = [Fault("CompleteMultipartUpload", "reset", times=99)]
    with pytest.raises(UncertainError, match="counts as not taken"):
        send(fake, attempts=3)
    assert fake.objects == {}


def test_a_lost_answer_to_completing_is_settled_by_looking(fake: FakeS3) -> None:
    fake.faults = [Fault("CompleteMultipartUpload", "lost")]
    with s3_store(fake).upload("h/dump", part_size=PART) as upload:
        upload.write(BODY)
        sent = upload.complete()
    assert sent.version == fake.objects["h/dump"][0].version
    assert fake.calls.count("HeadObject") == 1


def test_a_key_that_may_not_look_leaves_a_lost_answer_uncertain(fake: FakeS3) -> None:
    """The writer's key can neither read nor list: what it cannot know it must not claim."""
    fake.denied = {"HeadObject"}
    fake.faults = [Fault("CompleteMultipartUpload", "lost")]
    with pytest.raises(UncertainError, match="may not look"):
        send(fake)


def test_other_content_under_the_key_after_a_lost_answer_is_no_success(fake: FakeS3) -> None:
    store = s3_store(fake)
    with store.upload("h/dump", part_size=PART) as upload:
        upload.write(BODY)
        fake.faults = [Fault("CompleteMultipartUpload", "lost")]
        fake.altered = b"something else"
        with pytest.raises(StoreError, match="other content"):
            upload.complete()


def test_an_upload_that_somebody_aborted_is_an_error(fake: FakeS3) -> None:
    with s3_store(fake).upload("h/dump", part_size=PART) as upload:
        upload.write(b"x")
        fake.uploads.clear()
        with pytest.raises(StoreError, match="NoSuchUpload"):
            upload.complete()
    assert fake.objects == {}


def test_a_revoked_key_is_told_at_once_and_never_shown(fake: FakeS3) -> None:
    fake.faults = [Fault("CreateMultipartUpload", "403 InvalidAccessKeyId", times=99)]
    with pytest.raises(AccessError, match="InvalidAccessKeyId") as caught:
        send(fake)
    assert fake.calls == ["CreateMultipartUpload"]
    assert "hidden" not in str(caught.value) + repr(Bucket("b", "e", "r", "k", "hidden"))


def test_a_key_revoked_between_two_parts_fails_the_upload_at_the_next_write(fake: FakeS3) -> None:
    def send_on() -> None:
        with s3_store(fake).upload("h/dump", part_size=PART, concurrency=1) as upload:
            upload.write(BODY[:PART])
            fake.denied = {"UploadPart"}
            for _ in range(4):
                upload.write(BODY[:PART])

    with pytest.raises(AccessError):
        send_on()
    assert fake.objects == {}


def test_a_wrong_clock_is_named(fake: FakeS3) -> None:
    fake.faults = [Fault("PutObject", "403 RequestTimeTooSkewed")]
    with pytest.raises(StoreError, match="this host's clock within 15 minutes"):
        s3_store(fake).put("h/a", b"")


def test_a_read_that_breaks_off_is_resumed_where_it_broke(fake: FakeS3) -> None:
    fake.store("h/dump", BODY)
    fake.faults = [Fault("GetObject", "cut", times=3)]
    assert b"".join(s3_store(fake).read("h/dump")) == BODY
    assert fake.calls.count("GetObject") == 4


def test_a_read_is_never_resumed_with_another_objects_bytes(fake: FakeS3) -> None:
    fake.store("h/dump", BODY)
    fake.faults = [Fault("GetObject", "cut")]
    pieces = s3_store(fake).read("h/dump")
    next(pieces)
    fake.store("h/dump", os.urandom(len(BODY)))
    with pytest.raises(StoreError, match="PreconditionFailed"):
        list(pieces)


def test_a_read_that_breaks_off_for_ever_is_an_error(fake: FakeS3) -> None:
    fake.store("h/dump", b"xy")
    fake.faults = [Fault("GetObject", "cut"), Fault("GetObject", "reset", times=99)]
    with pytest.raises(StoreError, match="reading h/dump after 3 attempts"):
        list(s3_store(fake, attempts=3).read("h/dump"))


def test_more_than_a_thousand_objects_are_all_listed(fake: FakeS3) -> None:
    for n in range(2345):
        fake.store(f"h/{n:05}", b"")
    store = s3_store(fake)
    assert [each.key for each in store.entries("h/")] == [f"h/{n:05}" for n in range(2345)]
    assert len(list(store.versions("h/"))) == 2345
    assert fake.calls.count("ListObjectsV2") == 3


def test_a_delete_marker_on_the_newest_hides_it_from_the_listing_and_not_from_the_versions(fake: FakeS3) -> None:
    first = fake.store("h/a", b"1")
    fake.hide("h/a")
    store = s3_store(fake)
    assert list(store.entries()) == []
    assert [(each.hidden, each.latest) for each in store.versions()] == [(True, True), (False, False)]
    with pytest.raises(MissingError):
        list(store.read("h/a"))
    assert b"".join(store.read("h/a", version=first.version)) == b"1"


def test_a_delete_without_a_version_is_refused_because_it_would_only_hide(fake: FakeS3) -> None:
    with pytest.raises(InputError, match="only hides"):
        s3_store(fake).delete("h/a", "")
    assert fake.calls == []


def test_a_lock_is_asked_for_with_what_is_written(fake: FakeS3) -> None:
    until = datetime(2027, 1, 1, tzinfo=UTC)
    s3_store(fake).put("h/a", b"1", lock=Lock("COMPLIANCE", until))
    headers = fake.objects["h/a"][0].headers
    assert headers["x-amz-object-lock-mode"] == "COMPLIANCE"
    assert headers["x-amz-object-lock-retain-until-date"].startswith("2027-01-01")


def test_memory_stays_at_the_parts_under_way_and_the_one_being_filled() -> None:
    store = S3Store(Bucket("b", "http://nowhere", "r", "k", "s"), client=_Void())
    piece = b"x" * MB
    tracemalloc.start()
    with store.upload("h/dump", part_size=PART, concurrency=2) as upload:
        for _ in range(20 * PART // MB):
            upload.write(piece)
        assert upload.complete().size == 20 * PART
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * PART + 4 * MB


class _Void:
    """A client that keeps nothing and takes everything, slowly enough for parts to queue up."""

    def create_multipart_upload(self, **_given: object) -> dict[str, str]:
        return {"UploadId": "1"}

    def upload_part(self, **_given: object) -> dict[str, str]:
        time.sleep(0.02)
        return {"ETag": "e"}

    def complete_multipart_upload(self, **_given: object) -> dict[str, str]:
        return {}


def test_waits_grow_have_jitter_and_end() -> None:
    waits: list[float] = []
    policy = Retry(attempts=5, base=1, cap=4, sleep=waits.append, random=lambda: 0.5)
    assert [policy.wait(n) for n in range(1, 6)] == [True, True, True, True, False]
    assert waits == [0.5, 1.0, 2.0, 2.0]
    assert policy.wait(1, asked=3.0)
    assert waits[-1] == 3.0


def test_stale_uploads_are_found_over_all_pages() -> None:
    server = FakeS3(page=2)
    try:
        store = s3_store(server)
        for n in range(5):
            store.upload(f"h/{n}", part_size=PART)
        assert len(store.abort_stale(datetime.now(UTC) + timedelta(hours=1))) == 5
        assert server.uploads == {}
    finally:
        server.close()


# -- locks


UNTIL = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)


@pytest.mark.parametrize("forgets", [False, True])
def test_what_goes_up_in_parts_is_locked_though_the_store_forgets_how_it_was_begun(fake: FakeS3, forgets: bool) -> None:
    fake.forgets = forgets
    store = s3_store(fake)
    with store.upload("a", lock=Lock("COMPLIANCE", UNTIL)) as upload:
        upload.write(b"x")
        upload.complete()
    assert upload.unlocked == ""
    assert store.locked("a") == Lock("COMPLIANCE", UNTIL + timedelta(seconds=1))
    assert fake.calls.count("PutObjectRetention") == 1


def test_a_lock_that_cannot_be_set_afterwards_is_told_and_the_object_is_there(fake: FakeS3) -> None:
    fake.denied.add("PutObjectRetention")
    store = s3_store(fake)
    with store.upload("a", lock=Lock("GOVERNANCE", UNTIL)) as upload:
        upload.write(b"x")
        upload.complete()
    assert "a may be without its lock" in upload.unlocked
    assert "AccessDenied (403)" in upload.unlocked
    assert b"".join(store.read("a")) == b"x"


def test_an_object_without_a_lock_has_none_and_who_may_not_look_is_told_so(fake: FakeS3) -> None:
    store = s3_store(fake)
    with store.upload("a") as upload:
        upload.complete()
    assert "PutObjectRetention" not in fake.calls
    assert store.locked("a") is None
    fake.denied.add("GetObjectRetention")
    with pytest.raises(AccessError):
        store.locked("a")


# -- downloads


class _Torn:
    """A body that ends with an error after its first piece."""

    def __init__(self, body: Any, error: Exception) -> None:
        self.body, self.error = body, error

    def iter_chunks(self, _size: int) -> Iterator[bytes]:
        if piece := self.body.read(100):
            yield piece
        raise self.error

    def close(self) -> None:
        self.body.close()


@pytest.mark.parametrize(
    "error", [urllib3.exceptions.SSLError("bad record mac"), ssl.SSLError(1, "bad record mac"), ConnectionResetError(), TimeoutError()],
    ids=lambda error: f"{type(error).__module__}.{type(error).__name__}",
)  # fmt: skip
def test_a_download_survives_what_boto3_does_not_wrap(fake: FakeS3, error: Exception) -> None:
    store = s3_store(fake)
    store.put("a", BODY)
    real, torn = store.client.get_object, list[int]()

    def once(**given: object) -> Any:
        answer = real(**given)
        if not torn:
            torn.append(1)
            answer["Body"] = _Torn(answer["Body"], error)
        return answer

    store.client.get_object = once
    assert b"".join(store.read("a")) == BODY


def test_a_download_that_never_goes_on_is_one_message(fake: FakeS3) -> None:
    store = s3_store(fake, attempts=3)
    store.put("a", BODY)
    real = store.client.get_object

    def torn(**given: object) -> Any:
        answer = real(**given)
        answer["Body"].read(len(BODY))  # nothing is left to come
        answer["Body"] = _Torn(answer["Body"], urllib3.exceptions.SSLError("bad record mac"))
        return answer

    store.client.get_object = torn
    with pytest.raises(StoreError, match="failed at reading a after 3 attempts: bad record mac"):
        list(store.read("a"))
