# SPDX-License-Identifier: Apache-2.0
"""Backups in a bucket: Backblaze B2 by its S3-compatible API first of all, and any other S3.

What B2 asks for and AWS does not mind: no CRC32 trailers, ``Content-MD5`` on every PUT and part (Object Lock), deleting
one version at a time. What every network asks for: that a lost answer is not taken for a failure, nor for a success.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from types import TracebackType
from typing import Any, Literal

from ...errors import InputError
from .fate import explain, fate_of
from .retry import Retry
from .store import (
    MB,
    MOST_PARTS,
    PART_SIZE,
    SMALLEST_PART,
    AccessError,
    Entry,
    Hasher,
    Lock,
    Sent,
    StoreError,
    UncertainError,
    Upload,
    check_key,
    content_md5,
    etag_of,
)


@dataclass(frozen=True)
class Bucket:
    """A bucket and a key to it. ``secret_key`` never shows in a repr. ``ca``: file of an own certificate authority."""

    name: str
    endpoint: str
    region: str
    access_key: str
    secret_key: str
    addressing: Literal["path", "virtual", "auto"] = "path"
    ca: str = ""

    def __repr__(self) -> str:
        return f"Bucket({self.name!r}, {self.endpoint!r})"


@cache
def _session() -> Any:
    """One session: reading the service's description takes half a second."""
    import boto3

    return boto3.session.Session()


def client_for(bucket: Bucket, *, connections: int = 10) -> Any:
    """A boto3 client that leaves trying again to us and adds no checksum that nobody asked for. Not for several threads at once."""
    from botocore.config import Config

    settings: dict[str, Any] = {
        "signature_version": "s3v4",
        "s3": {"addressing_style": bucket.addressing},
        "retries": {"total_max_attempts": 1, "mode": "standard"},
        "connect_timeout": 10,
        "read_timeout": 60,
        "tcp_keepalive": True,
        "max_pool_connections": connections,
    }
    checksums = {"request_checksum_calculation": "when_required", "response_checksum_validation": "when_required"}
    try:
        config = Config(**settings, **checksums)
    except TypeError:  # boto3 before 1.36: knows no such setting and adds no such checksum
        config = Config(**settings)
    client = _session().client(
        "s3", endpoint_url=bucket.endpoint, region_name=bucket.region, aws_access_key_id=bucket.access_key,
        aws_secret_access_key=bucket.secret_key, verify=bucket.ca or None, config=config,
    )  # fmt: skip
    for operation in _CHECKED:
        client.meta.events.register(f"before-sign.s3.{operation}", _md5_instead)
    return client


_CHECKED = ("PutObjectRetention", "PutObjectLockConfiguration", "PutBucketLifecycleConfiguration")


def _md5_instead(request: Any, **_: Any) -> None:
    """These must carry a checksum, boto3 since 1.36 takes CRC32 whatever is set, and B2 refuses that: the older MD5."""
    for name in [
        each for each in request.headers if each.lower().startswith(("x-amz-checksum-", "x-amz-sdk-checksum-"))
    ]:
        del request.headers[name]
    body = request.data if isinstance(request.data, bytes) else str(request.data or "").encode()
    del request.headers["Content-MD5"]
    request.headers["Content-MD5"] = content_md5(body)


class S3Store:
    """A bucket as a :class:`~.store.Store`. Safe to use from several threads."""

    def __init__(self, bucket: Bucket, *, retry: Retry | None = None, client: Any = None) -> None:
        self.bucket = bucket.name
        self.retry = retry or Retry()
        self.client = client or client_for(bucket)

    def call(
        self, operation: str, what: str, on_code: Mapping[str, Callable[[bool], Any]] | None = None, **given: Any
    ) -> Any:
        """One S3 operation, tried again as the policy allows.

        ``on_code``: error code -> what to answer instead; it is told whether an earlier attempt's fate is unknown.
        """
        failed, unsure = 0, False
        while True:
            try:
                return getattr(self.client, operation)(Bucket=self.bucket, **given)
            except Exception as error:
                fate = fate_of(error)
                if fate is None:
                    raise
                if on_code and fate.code in on_code:
                    return on_code[fate.code](unsure)
                failed, unsure = failed + 1, unsure or fate.unsure
                if not fate.again or not self.retry.wait(failed, fate.asked):
                    raise explain(fate, what, failed, unsure=unsure) from error

    def put(self, key: str, body: bytes, *, lock: Lock | None = None) -> Sent:
        """See :class:`~.store.Store`. Sending it twice is harmless: the same bytes, a version more."""
        hasher = Hasher(max(1, len(body)))
        hasher.update(body)
        answer = self.call(
            "put_object", f"writing {key}", Key=check_key(key), Body=body, ContentMD5=content_md5(body), **_locked(lock)
        )
        return hasher.sent(key, answer.get("VersionId", ""))

    def upload(self, key: str, *, part_size: int = PART_SIZE, concurrency: int = 2, lock: Lock | None = None) -> Upload:
        """See :class:`~.store.Store`."""
        if part_size < SMALLEST_PART or concurrency < 1:
            raise InputError(
                f"parts of {part_size} bytes, {concurrency} at a time", "5 MB or more, 1 or more at a time"
            )
        return _PartUpload(self, check_key(key), part_size, concurrency, lock)

    def read(self, key: str, *, version: str = "") -> Iterator[bytes]:
        """See :class:`~.store.Store`. A broken connection is resumed where it broke, of the same version or not at all."""
        place, size, etag, failed = 0, -1, "", 0
        given = _object(key, version)
        while place != size:
            resumed: dict[str, Any] = {"Range": f"bytes={place}-", "IfMatch": etag} if place else {}
            answer = self.call("get_object", f"reading {key}", **given, **resumed)
            if not place:
                size, etag = answer["ContentLength"], answer["ETag"]
            elif answer["ResponseMetadata"]["HTTPStatusCode"] != 206:
                raise StoreError(f"The store ignored the range asked for when reading {key} was resumed", "status 206")
            try:
                for piece in answer["Body"].iter_chunks(MB):
                    place, failed = place + len(piece), 0
                    yield piece
                if place != size:
                    raise StoreError(f"Reading {key} gave {place} of {size} bytes", "all of them")
            except Exception as error:
                fate = fate_of(error)
                failed += 1
                if fate is None:
                    raise
                if not self.retry.wait(failed):
                    raise explain(fate, f"reading {key}", failed, unsure=False) from error
            finally:
                answer["Body"].close()

    def head(self, key: str, *, version: str = "") -> Entry | None:
        """See :class:`~.store.Store`."""
        given = _object(key, version)
        absent = dict.fromkeys(("404", "NoSuchKey", "NoSuchVersion", "NotFound"), lambda _unsure: None)
        answer = self.call("head_object", f"looking at {key}", absent, **given)
        if answer is None:
            return None
        etag, its_version = answer["ETag"].strip('"'), answer.get("VersionId", "")
        return Entry(key, answer["ContentLength"], answer["LastModified"].astimezone(UTC), its_version, etag=etag)

    def lock(self, key: str, lock: Lock, *, version: str = "") -> None:
        """Lock what is there. Never shortens a lock. Raises StoreError, AccessError for who may not set one."""
        retention = {"Mode": lock.mode, "RetainUntilDate": lock.until}
        self.call("put_object_retention", f"locking {key}", **_object(key, version), Retention=retention)

    def locked(self, key: str, *, version: str = "") -> Lock | None:
        """See :class:`~.store.Store`."""
        none: dict[str, Callable[[bool], Any]] = dict.fromkeys(_NO_LOCK, lambda _unsure: {})
        answer = self.call("get_object_retention", f"looking at the lock of {key}", none, **_object(key, version))
        found = answer.get("Retention") or {}
        if not found.get("RetainUntilDate"):
            return None
        return Lock(
            "COMPLIANCE" if found.get("Mode") == "COMPLIANCE" else "GOVERNANCE",
            found["RetainUntilDate"].astimezone(UTC),
        )

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """See :class:`~.store.Store`."""
        given: dict[str, Any] = {"Prefix": prefix}
        while True:
            page = self.call("list_objects_v2", f"listing {prefix or 'the bucket'}", **given)
            for each in page.get("Contents", ()):
                yield Entry(
                    each["Key"], each["Size"], each["LastModified"].astimezone(UTC), etag=each["ETag"].strip('"')
                )
            if not page.get("IsTruncated"):
                return
            given["ContinuationToken"] = page["NextContinuationToken"]

    def versions(self, prefix: str = "") -> Iterator[Entry]:
        """See :class:`~.store.Store`."""
        given: dict[str, Any] = {"Prefix": prefix}
        while True:
            page = self.call("list_object_versions", f"listing versions of {prefix or 'the bucket'}", **given)
            kinds = (("Versions", False), ("DeleteMarkers", True))
            found = [_version(each, hidden) for kind, hidden in kinds for each in page.get(kind, ())]
            # Two lists in one page: put back into one order, newest first, the current one before any of its second.
            yield from sorted(found, key=lambda e: (e.key, not e.latest, -e.modified.timestamp()))
            if not page.get("IsTruncated"):
                return
            given |= {"KeyMarker": page["NextKeyMarker"], "VersionIdMarker": page.get("NextVersionIdMarker", "")}

    def delete(self, key: str, version: str) -> None:
        """See :class:`~.store.Store`. Without a version B2 would only hide the object, so one is required."""
        if not version:
            raise InputError(f"no version of {key} is named", "the version: a delete by name alone only hides it")
        self.call("delete_object", f"deleting {key}", _gone("NoSuchKey", "NoSuchVersion"), Key=key, VersionId=version)

    def abort(self, key: str, upload_id: str) -> None:
        """See :class:`~.store.Store`."""
        self.call("abort_multipart_upload", f"aborting {key}", _gone("NoSuchUpload"), Key=key, UploadId=upload_id)

    def abort_stale(self, before: datetime, prefix: str = "") -> list[str]:
        """See :class:`~.store.Store`. Needs the right to list, which a writer's key should not have."""
        given: dict[str, Any] = {"Prefix": prefix}
        stale = []
        while True:
            page = self.call("list_multipart_uploads", "listing unfinished uploads", **given)
            stale += [(each["Key"], each["UploadId"]) for each in page.get("Uploads", ()) if each["Initiated"] < before]
            if not page.get("IsTruncated"):
                break
            given |= {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}
        for key, upload_id in stale:
            self.abort(key, upload_id)
        return [key for key, _upload_id in stale]


class _PartUpload:
    """See :class:`~.store.Upload`. Parts go up from threads; the one being filled is the only other one in memory."""

    def __init__(self, store: S3Store, key: str, part_size: int, concurrency: int, lock: Lock | None) -> None:
        self._store, self._key, self._size, self._lock, self.unlocked = store, key, part_size, lock, ""
        answer = store.call("create_multipart_upload", f"beginning {key}", Key=key, **_locked(lock))
        self.id: str = answer["UploadId"]
        self._hasher, self._buffer, self._etags = Hasher(part_size), bytearray(), list[str]()
        self._free = threading.Semaphore(concurrency)
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="upload")
        self._error: BaseException | None = None
        self._open = True

    def write(self, piece: bytes) -> None:
        self._hasher.update(piece)
        view = memoryview(piece)
        while view:
            taken = view[: self._size - len(self._buffer)]
            self._buffer += taken
            view = view[len(taken) :]
            if len(self._buffer) == self._size:
                self._send()

    def _send(self) -> None:
        self._free.acquire()  # before the next buffer begins: this bounds the memory
        if self._error is not None:
            raise self._error
        number, md5 = len(self._etags) + 1, self._hasher.part(len(self._etags))
        if number > MOST_PARTS:
            raise StoreError(
                f"{self._key} is larger than {MOST_PARTS} parts of {self._size // MB} MB", "a larger part size",
                "see part_size_for: give it a better estimate",
            )  # fmt: skip
        body, self._buffer = self._buffer, bytearray()
        self._etags.append("")
        self._pool.submit(self._send_part, number, body, md5)

    def _send_part(self, number: int, body: bytearray, md5: str) -> None:
        try:
            if self._error is None:
                answer = self._store.call(
                    "upload_part", f"sending part {number} of {self._key}", Key=self._key, UploadId=self.id,
                    PartNumber=number, Body=body, ContentMD5=md5,
                )  # fmt: skip
                self._etags[number - 1] = answer["ETag"]
        except BaseException as error:  # handed to the thread that writes
            self._error = self._error or error
        finally:
            self._free.release()

    def complete(self) -> Sent:
        if self._buffer or not self._etags:
            self._send()
        self._pool.shutdown(wait=True)
        if self._error is not None:
            raise self._error
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(self._etags, 1)]
        answer = self._store.call(
            "complete_multipart_upload", f"completing {self._key}",
            {"NoSuchUpload": self._after_a_lost_answer}, Key=self._key, UploadId=self.id,
            MultipartUpload={"Parts": parts},
        )  # fmt: skip
        self._open = False
        self._hold(answer.get("VersionId", ""))
        return self._hasher.sent(self._key, answer.get("VersionId", ""))

    def _hold(self, version: str) -> None:
        """Lock it once more: there are servers (Ceph before 19) that forget the lock which an upload in parts was begun with.

        A second longer, since every server lets a lock grow. Nothing is lost where this fails: it is told, not raised.
        """
        if self._lock is None:
            return
        try:
            self._store.lock(
                self._key, replace(self._lock, until=self._lock.until + timedelta(seconds=1)), version=version
            )
        except StoreError as error:
            self.unlocked = f"{self._key} may be without its lock, which not every store keeps that is set at the beginning: {error.found}"

    def _after_a_lost_answer(self, unsure: bool) -> dict[str, str]:
        """No such upload (any more): because an earlier call completed it, or because somebody aborted it?"""
        lost = StoreError(f"The upload of {self._key} was aborted by somebody else before it was complete", "nobody to")
        if not unsure:
            raise lost
        try:
            found = self._store.head(self._key)
        except AccessError as error:
            raise UncertainError(
                f"The answer to completing {self._key} was lost, and this key may not look whether it is there",
                "an answer", "take the next backup: this one counts as not taken",
            ) from error  # fmt: skip
        sent = self._hasher.sent(self._key)
        if found is None:
            raise lost
        if (found.size, found.etag) != (sent.size, etag_of(sent.part_md5)):
            raise StoreError(f"{self._key} is there, but with other content than was sent", "what was sent")
        return {"VersionId": found.version}

    def abort(self) -> None:
        self._error = self._error or StoreError(f"The upload of {self._key} was aborted", "")
        self._pool.shutdown(wait=True, cancel_futures=True)
        if self._open:
            self._open = False
            with contextlib.suppress(
                StoreError
            ):  # left behind at worst: the next run and the bucket's lifecycle sweep it
                self._store.abort(self._key, self.id)

    def __enter__(self) -> Upload:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()


_NO_LOCK = (
    "NoSuchObjectLockConfiguration",
    "ObjectLockConfigurationNotFoundError",
    "InvalidRequest",
    "NoSuchRetention",
)
"""Words for an object or a bucket without a lock."""


def _gone(*codes: str) -> dict[str, Callable[[bool], None]]:
    return dict.fromkeys(codes, lambda _unsure: None)


def _locked(lock: Lock | None) -> dict[str, Any]:
    return {"ObjectLockMode": lock.mode, "ObjectLockRetainUntilDate": lock.until} if lock else {}


def _object(key: str, version: str) -> dict[str, Any]:
    return {"Key": check_key(key), **({"VersionId": version} if version else {})}


def _version(each: Mapping[str, Any], hidden: bool) -> Entry:
    etag, size = str(each.get("ETag", "")).strip('"'), each.get("Size", 0)
    modified = each["LastModified"].astimezone(UTC)
    return Entry(each["Key"], size, modified, each["VersionId"], each["IsLatest"], hidden, etag)
