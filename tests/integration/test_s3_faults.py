# SPDX-License-Identifier: Apache-2.0
"""The store for buckets through a proxy that misbehaves, in front of a real S3 server."""

from __future__ import annotations

import hashlib
import time
from datetime import timedelta

import pytest
from slipway.backup.stores.retry import Retry
from slipway.backup.stores.s3 import Bucket, S3Store
from slipway.backup.stores.store import MB, SMALLEST_PART, AccessError, StoreError, UncertainError

from lab.fault_proxy import Fault, FaultProxy
from tests.integration.s3_fixture import Bay

pytest_plugins = ["tests.integration.s3_fixture"]
pytestmark = pytest.mark.lab
PART = hashlib.shake_256(b"part").digest(MB) * 5
WHOLE = PART + PART + b"the end"


def send(store: S3Store, key: str) -> str:
    """An object of three parts; its version."""
    with store.upload(key, part_size=SMALLEST_PART) as upload:
        upload.write(WHOLE)
        return upload.complete().version


def sha(data: bytes) -> str:
    """Short enough to show."""
    return hashlib.sha256(data).hexdigest()


PASSING = {
    "500 on a part": Fault("status", "upload_part", times=2, status=500, code="InternalError"),
    "503 on a part": Fault("status", "upload_part", times=2, retry_after=1),
    "503 at the beginning": Fault("status", "create_multipart_upload", code="SlowDown"),
    "503 at completing": Fault("status", "complete_multipart_upload"),
    "reset in a part": Fault("reset", "upload_part", times=2, after=2 * MB),
    "lost answer to a part": Fault("swallow", "upload_part", times=2),
    "part done, 500 said": Fault("late_error", "upload_part", status=500, code="InternalError"),
    "bit lost on the way up": Fault("flip", "upload_part", after=3 * MB),
    "a slow moment": Fault("delay", "upload_part", seconds=1.0),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING.keys())
def test_a_passing_fault_costs_an_attempt_and_nothing_else(
    bay: Bay, proxy: FaultProxy, prefix: str, fault: Fault
) -> None:
    proxy.add(fault)
    send(bay.store("writer", at=proxy.url), f"{prefix}/data")
    assert proxy.faults == [], "the fault never happened"
    assert sha(bay.content(f"{prefix}/data")) == sha(WHOLE)
    assert len(list(bay.store("reader").versions(f"{prefix}/"))) == 1


def test_retry_after_is_waited_for(bay: Bay, proxy: FaultProxy, prefix: str) -> None:
    waits: list[float] = []
    store = S3Store(bay.bucket("writer", at=proxy.url), retry=Retry(base=0.01, sleep=waits.append))
    proxy.add(Fault("status", "put_object", retry_after=7))
    store.put(f"{prefix}/a", b"x")
    assert waits == [7.0]


def test_a_fault_that_does_not_pass_ends_in_one_message_and_no_object(bay: Bay, proxy: FaultProxy, prefix: str) -> None:
    proxy.add(Fault("status", "upload_part", times=99))
    with pytest.raises(
        StoreError, match=r"The store failed at sending part \d of .* after 5 attempts: ServiceUnavailable"
    ):
        send(bay.store("writer", at=proxy.url), f"{prefix}/data")
    assert list(bay.store("reader").versions(f"{prefix}/")) == []
    assert not bay.client().list_multipart_uploads(Bucket=bay.access.bucket, Prefix=prefix).get("Uploads")


@pytest.mark.parametrize("kind", ["swallow", "late_error"])
def test_a_lost_answer_to_completing_is_uncertain_for_who_may_not_look(
    bay: Bay, proxy: FaultProxy, prefix: str, kind: str
) -> None:
    """Ceph's gateway answers a repeated completion as if it were the first for a while; B2 says NoSuchUpload."""
    proxy.add(Fault(kind, "complete_multipart_upload", status=500, code="InternalError"))  # type: ignore[arg-type]
    proxy.add(Fault("status", "head_object", status=403, code="AccessDenied"))
    try:
        send(bay.store("writer", at=proxy.url), f"{prefix}/data")
    except UncertainError as error:
        assert "counts as not taken" in str(error)  # noqa: PT017 - either answer is right, nothing else is
    assert sha(bay.content(f"{prefix}/data")) == sha(WHOLE)


def test_a_lost_answer_and_then_no_such_upload_is_uncertain(bay: Bay, proxy: FaultProxy, prefix: str) -> None:
    proxy.add(Fault("swallow", "complete_multipart_upload"))
    store = bay.store("writer", at=proxy.url)
    upload = store.upload(f"{prefix}/data", part_size=SMALLEST_PART)
    upload.write(WHOLE)
    original = store.client.complete_multipart_upload

    def second(**given: object) -> object:
        if proxy.count("complete_multipart_upload"):
            proxy.add(Fault("status", "complete_multipart_upload", status=404, code="NoSuchUpload"))
        return original(**given)

    store.client.complete_multipart_upload = second
    with pytest.raises(UncertainError, match=r"lost, and this key may not look.*\n?(.|\n)*counts as not taken"):
        upload.complete()


def test_a_lost_answer_is_looked_up_by_who_may(bay: Bay, proxy: FaultProxy, prefix: str) -> None:
    proxy.add(Fault("swallow", "complete_multipart_upload"))
    version = send(bay.store("owner", at=proxy.url), f"{prefix}/data")
    (found,) = bay.store("reader").versions(f"{prefix}/")
    # Ceph's gateway, asked again to complete what is complete, answers without the version's id.
    assert version in (found.version, "")


def test_completing_that_never_answers_is_uncertain_and_no_success(bay: Bay, proxy: FaultProxy, prefix: str) -> None:
    proxy.add(Fault("reset", "complete_multipart_upload", times=99))
    with pytest.raises(UncertainError, match=r"failed at completing .* after 5 attempts"):
        send(bay.store("writer", at=proxy.url), f"{prefix}/data")
    assert list(bay.store("reader").versions(f"{prefix}/")) == []


def test_a_lost_answer_to_a_put_makes_a_version_more_of_the_same(bay: Bay, proxy: FaultProxy, prefix: str) -> None:
    proxy.add(Fault("swallow", "put_object"))
    bay.store("writer", at=proxy.url).put(f"{prefix}/manifest", b"{}")
    found = list(bay.store("reader").versions(f"{prefix}/"))
    assert len(found) == 2
    assert len({each.etag for each in found}) == 1


def test_a_revoked_key_ends_at_once_and_says_what_to_look_at(bay: Bay, proxy: FaultProxy, prefix: str) -> None:
    proxy.add(Fault("status", "put_object", times=9, status=403, code="InvalidAccessKeyId"))
    with pytest.raises(AccessError, match=r"InvalidAccessKeyId(.|\n)*capabilities"):
        bay.store("writer", at=proxy.url).put(f"{prefix}/a", b"x")
    assert proxy.count("put_object") == 1, "a refusal is not tried again"


def test_a_clock_off_by_an_hour_is_named_as_such(bay: Bay, proxy: FaultProxy, prefix: str) -> None:
    proxy.add(Fault("skew", seconds=-3600, times=9))
    with pytest.raises(StoreError, match=r"RequestTimeTooSkewed(.|\n)*timedatectl"):
        bay.store("writer", at=proxy.url).put(f"{prefix}/a", b"x")


def test_a_clock_off_by_an_hour_is_refused_though_the_signature_is_right(
    bay: Bay, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a host whose clock is wrong: the proxy above changes the date alone."""
    from botocore import auth

    real = auth.get_current_datetime
    for hours in (-1, 1):
        monkeypatch.setattr(auth, "get_current_datetime", lambda hours=hours: real() + timedelta(hours=hours))
        with pytest.raises(StoreError, match=r"RequestTimeTooSkewed \(403\)(.|\n)*timedatectl"):
            bay.store("writer").put(f"{prefix}/a", b"x")
        with pytest.raises(StoreError, match="RequestTimeTooSkewed"):
            send(bay.store("writer"), f"{prefix}/data")
    monkeypatch.undo()
    assert list(bay.store("reader").versions(f"{prefix}/")) == []


def test_a_bucket_that_is_not_there_is_named(bay: Bay, prefix: str) -> None:
    for attempt in (lambda store: store.put(f"{prefix}/a", b"x"), lambda store: send(store, f"{prefix}/data"),
                    lambda store: list(store.versions(f"{prefix}/"))):  # fmt: skip
        with pytest.raises(StoreError, match=r"NoSuchBucket(.|\n)*the name of the bucket"):
            attempt(bay.store("owner", name="no-such-bucket"))


def test_an_unreachable_store_ends_in_one_message(bay: Bay, prefix: str) -> None:
    with pytest.raises(StoreError, match=r"The store failed at writing .* after 2 attempts: .*(refused|connect)"):
        bay.store("writer", at="https://127.0.0.1:9", attempts=2).put(f"{prefix}/a", b"x")


def test_a_store_that_shows_another_certificate_is_not_believed(bay: Bay, prefix: str) -> None:
    about = bay.bucket("writer")
    stranger = Bucket(about.name, about.endpoint, about.region, about.access_key, about.secret_key)
    with pytest.raises(StoreError, match=r"(?i)certificate"):
        S3Store(stranger, retry=Retry(1)).put(f"{prefix}/a", b"x")


# -- downloads


def test_a_download_that_breaks_off_is_resumed_where_it_broke(bay: Bay, proxy: FaultProxy, prefix: str) -> None:
    send(bay.store("writer"), f"{prefix}/data")
    proxy.add(Fault("truncate", "get_object", times=2, after=3 * MB + 17))
    started = time.monotonic()
    assert sha(b"".join(bay.store("reader", at=proxy.url).read(f"{prefix}/data"))) == sha(WHOLE)
    ranges = [each.headers.get("range") for each in proxy.seen if each.operation == "get_object"]
    assert ranges[0] is None
    assert len(ranges) == 3
    assert all(each and each != "bytes=0-" for each in ranges[1:])
    assert time.monotonic() - started < 30


def test_an_object_replaced_while_it_is_read_is_an_error_and_no_mixture(
    bay: Bay, proxy: FaultProxy, prefix: str
) -> None:
    writer = bay.store("writer")
    send(writer, f"{prefix}/data")
    proxy.add(Fault("truncate", "get_object", after=6 * MB))
    pieces = bay.store("reader", at=proxy.url).read(f"{prefix}/data")
    next(pieces)
    writer.put(f"{prefix}/data", b"another")
    with pytest.raises(StoreError, match=r"PreconditionFailed|412"):
        list(pieces)


@pytest.mark.parametrize("kind", ["flip", "cut"])
def test_only_hashes_find_what_a_store_gives_wrongly(bay: Bay, proxy: FaultProxy, prefix: str, kind: str) -> None:
    """S3 promises no check on the way down: who reads a backup compares with the manifest's hash and size."""
    send(bay.store("writer"), f"{prefix}/data")
    proxy.add(Fault(kind, "get_object", after=6 * MB))  # type: ignore[arg-type]
    read = b"".join(bay.store("reader", at=proxy.url).read(f"{prefix}/data"))
    assert sha(read) != sha(WHOLE)
    assert len(read) == (len(WHOLE) if kind == "flip" else 6 * MB)


def test_a_listing_that_fails_half_way_is_an_error_and_never_a_short_list(
    bay: Bay, proxy: FaultProxy, prefix: str
) -> None:
    bay.store("writer").put(f"{prefix}/a", b"x")
    proxy.add(Fault("status", "list_object_versions", times=2))
    assert len(list(bay.store("reader", at=proxy.url).versions(f"{prefix}/"))) == 1
    proxy.add(Fault("status", "list_object_versions", times=99))
    with pytest.raises(StoreError, match="after 5 attempts"):
        list(bay.store("reader", at=proxy.url).versions(f"{prefix}/"))
