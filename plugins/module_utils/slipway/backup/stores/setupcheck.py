# SPDX-License-Identifier: Apache-2.0
"""Whether the writer's key is what it should be, found out by trying: it writes, and can neither read, list nor destroy.

What it leaves it may not remove: :func:`sweep` does, with a key that may (set_up_bucket.yml, pruning).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from .s3 import S3Store
from .store import SMALLEST_PART, AccessError, Entry, Lock, Sent, Store, StoreError, content_md5

ALLOWED, REFUSED = "allowed", "refused"
FOLDER = "setup-check"
LOCKED_FOR = timedelta(seconds=60)
"""S3 asks for a moment in the future, by its clock: long enough for ours to be off a little and to try to break the lock."""


@dataclass(frozen=True)
class Tried:
    """One right as tried. ``expected``/``found``: ``allowed`` or ``refused``, or what the store said instead."""

    what: str
    expected: str
    found: str

    @property
    def good(self) -> bool:
        """Whether it is as it should be."""
        return self.found == self.expected


@dataclass
class Locks:
    """What came of locking. ``left``: probes that stay until ``until`` at least; ``notes``: what is good to know."""

    until: datetime
    tries: list[Tried] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


FORGETS = (
    "the store forgets the lock that an upload in parts is begun with (Ceph before 19 does): Slipway sets it again after "
    "completing, which this key may"
)
UNABLE = (
    "this key may not set a lock after completing, so where the store forgets the one that an upload in parts is begun with, "
    "backups stay unlocked: give it writeFileRetentions (B2) or s3:PutObjectRetention, or set a default retention on the bucket"
)


def shortest(mode: str, now: datetime) -> Lock:
    """The lock of a probe: of the kind that backups get, for as long as trying takes."""
    until = (now + LOCKED_FOR).replace(microsecond=0) + timedelta(seconds=1)
    return Lock("COMPLIANCE" if mode.upper() == "COMPLIANCE" else "GOVERNANCE", until)


def locks(store: S3Store, host: str, name: str, lock: Lock) -> Locks:
    """Try with the writer's key that what it writes, in one go and in parts, is locked and that it cannot take that back.

    It may not read a lock: one that it could shorten was never there. Raises StoreError when the store is away.
    """
    made = Locks(lock.until + timedelta(seconds=1))
    whole, parts = f"{host}/{FOLDER}/{name}.locked", f"{host}/{FOLDER}/{name}.locked-parts"
    shorter = replace(lock, until=lock.until - LOCKED_FOR / 3)
    versions: dict[str, str] = {}
    for what, key, attempt in (
        ("lock what it writes", whole, lambda: store.put(whole, _PROBE, lock=lock).version),
        ("lock what it uploads in parts", parts, lambda: _in_parts(store, parts, lock)),
    ):
        came = tried(what, ALLOWED, lambda key=key, attempt=attempt: versions.update({key: attempt()}))  # type: ignore[misc]
        made.tries.append(came)
        if came.good:
            made.left.append(key)
    if parts in versions:
        early = tried("", ALLOWED, lambda: store.lock(parts, shorter, version=versions[parts]))
        later = tried("set a lock afterwards", ALLOWED, lambda: store.lock(parts, replace(lock, until=made.until), version=versions[parts]))  # fmt: skip
        made.tries.append(later)
        if early.good:
            made.notes.append(FORGETS)
        if not later.good:
            made.notes.append(UNABLE)
    made.tries += [
        tried(f"shorten the lock of what it {how}", REFUSED, lambda key=key: store.lock(key, shorter, version=versions[key]))  # type: ignore[misc]
        for key, how in ((whole, "wrote"), (parts, "uploaded in parts")) if key in versions
    ]  # fmt: skip
    return made


_PROBE = b"slipway: a probe\n"


def _in_parts(store: S3Store, key: str, lock: Lock) -> str:
    """An upload in one part, as :class:`~.s3.S3Store` does it short of locking it again at the end; its version."""
    held: Any = {"ObjectLockMode": lock.mode, "ObjectLockRetainUntilDate": lock.until}
    begun = store.call("create_multipart_upload", f"beginning {key}", Key=key, **held)
    about: Any = {"Key": key, "UploadId": begun["UploadId"]}
    sent = store.call(
        "upload_part", f"sending {key}", **about, PartNumber=1, Body=_PROBE, ContentMD5=content_md5(_PROBE)
    )
    parts = {"Parts": [{"PartNumber": 1, "ETag": sent["ETag"]}]}
    answer = store.call("complete_multipart_upload", f"completing {key}", **about, MultipartUpload=parts)
    return str(answer.get("VersionId", ""))


def sweep(store: Store, host: str, *, before: datetime | None = None) -> list[str]:
    """Remove probes (those from ``before`` alone); the keys of what a lock still holds. Raises StoreError.

    Takes a key that may destroy: the owner's or the pruner's.
    """
    kept: list[str] = []
    places: list[Entry] = [*store.versions(f"{host}/{FOLDER}/"), *store.versions(f"{host}/evidence/{FOLDER}-")]
    for entry in sorted(places, key=lambda each: each.hidden):  # markers last: they hide what is locked until then
        if before is not None and entry.modified > before:
            continue
        try:
            store.delete(entry.key, entry.version or "null")
        except AccessError:
            kept.append(entry.key)
    return sorted(set(kept))


def writer(store: Store, host: str, name: str) -> list[Tried]:
    """Try the writer's key. It leaves an object of a few bytes, ``<host>/setup-check/<name>``, which it may not remove."""
    key = f"{host}/{FOLDER}/{name}"
    sent: list[Sent] = []

    def put() -> None:
        sent.append(store.put(key, _PROBE))

    def upload() -> None:
        with store.upload(f"{key}.parts", part_size=SMALLEST_PART, concurrency=1):
            pass  # begun and aborted

    tries = [tried("write an object", ALLOWED, put), tried("begin and abort an upload in parts", ALLOWED, upload)]
    if not sent:
        return tries
    version = sent[0].version or "null"
    return [
        *tries,
        tried("read what it wrote", REFUSED, lambda: b"".join(store.read(key))),
        tried("see whether an object is there", REFUSED, lambda: store.head(key)),
        tried("list objects", REFUSED, lambda: next(iter(store.entries(f"{host}/")), None)),
        tried("list versions", REFUSED, lambda: next(iter(store.versions(f"{host}/")), None)),
        tried("destroy what it wrote", REFUSED, lambda: store.delete(key, version)),
    ]


def tried(what: str, expected: str, attempt: Callable[[], object]) -> Tried:
    """What came of trying; any other error of the store is told in its place."""
    try:
        attempt()
    except AccessError:
        return Tried(what, expected, REFUSED)
    except StoreError as error:
        return Tried(what, expected, str(error))
    return Tried(what, expected, ALLOWED)


def render(tries: list[Tried]) -> str:
    """For a terminal: a line each."""
    width = max(len(each.what) for each in tries)
    lines = []
    for each in tries:
        verdict = "as it should be" if each.good else f"WRONG, it should be {each.expected}"
        lines.append(f"{each.what:<{width}}  {each.found}: {verdict}")
    return "\n".join(lines)
