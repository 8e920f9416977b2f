# SPDX-License-Identifier: Apache-2.0
"""Where backups are kept: what every store can do, and the embedded default, a directory.

Bytes go in by :class:`Upload`, which becomes an object only by ``complete``: a run that dies leaves no object at all.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import os
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol

from ...errors import InputError, SlipwayError

MB = 1024 * 1024
PART_SIZE = 16 * MB
SMALLEST_PART, MOST_PARTS = 5 * MB, 10_000
_UPLOADS = ".uploads"
_KEY = re.compile(r"[A-Za-z0-9_=][A-Za-z0-9._=+-]*(/[A-Za-z0-9_=][A-Za-z0-9._=+-]*)*")


class StoreError(SlipwayError):
    """The store failed, or said something that cannot be."""


class AccessError(StoreError):
    """The store refused the key: unknown, revoked, or without the right that this takes."""


class MissingError(StoreError):
    """There is no such object."""


class UncertainError(StoreError):
    """Nobody can say whether the object is there: the answer was lost and the key may not look. Treat it as not there."""


@dataclass(frozen=True)
class Entry:
    """One version of an object in a listing. ``hidden``: a delete marker, which has no content.

    ``latest``: what a read without a version gives. ``version`` is empty in stores without versions.
    """

    key: str
    size: int
    modified: datetime
    version: str = ""
    latest: bool = True
    hidden: bool = False
    etag: str = ""


@dataclass(frozen=True)
class Sent:
    """What a finished upload put there, as hashed on its way out."""

    key: str
    size: int
    sha256: str
    part_size: int
    part_md5: tuple[str, ...]
    version: str = ""


@dataclass(frozen=True)
class Lock:
    """Object Lock for what is written: nobody (COMPLIANCE) or few (GOVERNANCE) can delete it before ``until``."""

    mode: Literal["GOVERNANCE", "COMPLIANCE"]
    until: datetime


class Upload(Protocol):
    """An object in the making; as a context manager it aborts itself unless ``complete`` was reached.

    ``unlocked``: after ``complete``, why the lock that was asked for may not hold; empty where it was set or none was wanted.
    """

    id: str
    unlocked: str

    def write(self, piece: bytes) -> None:
        """Take the next bytes; may wait until earlier ones are away. Raises StoreError."""

    def complete(self) -> Sent:
        """Make it an object. Raises StoreError, UncertainError."""

    def abort(self) -> None:
        """Drop what was sent; never raises."""

    def __enter__(self) -> Upload: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Store(Protocol):
    """A place for objects. Every method raises StoreError (AccessError, MissingError) and nothing else for its failures."""

    def put(self, key: str, body: bytes, *, lock: Lock | None = None) -> Sent:
        """Write a small object in one go; an existing one is replaced (a new version where there are versions)."""

    def upload(self, key: str, *, part_size: int = PART_SIZE, concurrency: int = 2, lock: Lock | None = None) -> Upload:
        """Begin a large one. Memory: ``part_size * (concurrency + 1)`` bytes."""

    def read(self, key: str, *, version: str = "") -> Iterator[bytes]:
        """The content in chunks, whole or an error."""

    def head(self, key: str, *, version: str = "") -> Entry | None:
        """What a listing would say of it, or None."""

    def locked(self, key: str, *, version: str = "") -> Lock | None:
        """The lock of an object, which may be over; None for one without. AccessError for who may not look."""

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """Current objects by key, however many; hidden ones are not among them."""

    def versions(self, prefix: str = "") -> Iterator[Entry]:
        """Every version and delete marker by key, newest first for each."""

    def delete(self, key: str, version: str) -> None:
        """Destroy one version; no error if it is gone already."""

    def abort(self, key: str, upload_id: str) -> None:
        """Abort the unfinished upload of a dead run, as its run recorded it."""

    def abort_stale(self, before: datetime, prefix: str = "") -> list[str]:
        """Abort unfinished uploads begun before that; their keys."""


def check_key(key: str) -> str:
    """``key`` if it is one that every store and file system takes. Raises InputError."""
    if not _KEY.fullmatch(key) or len(key) > 900:
        raise InputError(
            f"'{key}' is no object key", "letters, digits and . _ = + - in parts joined by /, no leading dot"
        )
    return key


def part_size_for(expected: int, *, memory: int = 160 * MB, concurrency: int = 2, usual: int = PART_SIZE) -> int:
    """Part size for an upload of about ``expected`` bytes: half the parts stay free for a wrong guess.

    ``usual``: of those that are not too large for it. Raises StoreError where ``memory`` (bytes, for ``concurrency + 1`` parts) does not allow it.
    """
    needed = max(usual if memory >= usual * (concurrency + 1) else SMALLEST_PART, -(-expected // (MOST_PARTS // 2)))
    size = -(-needed // MB) * MB
    if size * (concurrency + 1) > memory:
        raise StoreError(
            f"An upload of {expected // MB} MB needs parts of {size // MB} MB, {concurrency + 1} at a time",
            f"at most {memory // MB} MB of memory", "lower the concurrency, or allow more memory",
        )  # fmt: skip
    return size


class Hasher:
    """Size, SHA-256 of the whole and MD5 of each part, for bytes that pass by in any pieces."""

    def __init__(self, part_size: int) -> None:
        self.part_size, self.size = part_size, 0
        self._whole, self._part, self._filled = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
        self._done: list[str] = []

    def update(self, piece: bytes | bytearray) -> None:
        """Take the next bytes."""
        self._whole.update(piece)
        self.size += len(piece)
        view = memoryview(piece)
        while view:
            taken = view[: self.part_size - self._filled]
            self._part.update(taken)
            self._filled += len(taken)
            view = view[len(taken) :]
            if self._filled == self.part_size:
                self._close()

    def _close(self) -> None:
        self._done.append(self._part.hexdigest())
        self._part, self._filled = hashlib.md5(usedforsecurity=False), 0

    def part(self, place: int) -> str:
        """Content-MD5 of a part (from 0) that is full, or of the one that is not full yet: hashed once, used twice."""
        digest = bytes.fromhex(self._done[place]) if place < len(self._done) else self._part.digest()
        return base64.b64encode(digest).decode()

    def sent(self, key: str, version: str = "") -> Sent:
        """The record of an upload that had exactly these bytes."""
        parts = [*self._done, self._part.hexdigest()] if self._filled else self._done
        return Sent(key, self.size, self._whole.hexdigest(), self.part_size, tuple(parts), version)


def etag_of(part_md5: tuple[str, ...]) -> str:
    """The ETag that S3 gives an object uploaded in these parts: the MD5 of their MD5s, and their number."""
    joined = hashlib.md5(b"".join(bytes.fromhex(each) for each in part_md5), usedforsecurity=False)
    return f"{joined.hexdigest()}-{len(part_md5)}"


def content_md5(body: bytes | bytearray) -> str:
    """The Content-MD5 header: what a bucket with Object Lock asks of every part, and what finds a bit lost on the way."""
    return base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()


@contextlib.contextmanager
def _explained(what: str, key: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise MissingError(f"There is no object {key}") from error
    except OSError as error:
        remedy = "free some space, or let retention remove old backups" if error.errno == errno.ENOSPC else ""
        kind = AccessError if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) else StoreError
        raise kind(f"{what} {key} failed: {error.strerror}", "", remedy) from error


class DirectoryStore:
    """Objects as files below a folder, for trying things out or for a mounted disk. No versions, no locks.

    A file appears whole or not at all: written aside, flushed, renamed, and the folder flushed too.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def _path(self, key: str) -> Path:
        return self.root / check_key(key)

    def put(self, key: str, body: bytes, *, lock: Lock | None = None) -> Sent:
        """See :class:`Store`. Beside its place and not in the folder of uploads: who may write there alone, may do this."""
        with self._open(key, max(1, len(body)), lock, beside=True) as upload:
            upload.write(body)
            return upload.complete()

    def upload(self, key: str, *, part_size: int = PART_SIZE, concurrency: int = 2, lock: Lock | None = None) -> Upload:  # noqa: ARG002
        """See :class:`Store`; a directory takes no lock."""
        return self._open(key, part_size, lock, beside=False)

    def _open(self, key: str, part_size: int, lock: Lock | None, *, beside: bool) -> Upload:
        if lock is not None:
            raise StoreError("a directory cannot lock what is in it", "a bucket with Object Lock, or no lock")
        return _FileUpload(self, key, part_size, beside=beside)

    def read(self, key: str, *, version: str = "") -> Iterator[bytes]:  # noqa: ARG002
        """See :class:`Store`."""
        with _explained("Reading", key), self._path(key).open("rb") as file:
            while piece := file.read(MB):
                yield piece

    def head(self, key: str, *, version: str = "") -> Entry | None:  # noqa: ARG002
        """See :class:`Store`."""
        try:
            with _explained("Looking at", key):
                path = self._path(key)
                return self._entry(key, path) if path.is_file() else None
        except MissingError:
            return None

    def locked(self, key: str, *, version: str = "") -> Lock | None:  # noqa: ARG002
        """See :class:`Store`: there are none here."""
        return None

    @staticmethod
    def _entry(key: str, path: Path) -> Entry:
        status = path.stat()
        return Entry(key, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """See :class:`Store`. A file that vanishes meanwhile is left out."""
        found = []
        for folder, folders, names in os.walk(self.root):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in names:
                key = (Path(folder) / name).relative_to(self.root).as_posix()
                if key.startswith(prefix) and not name.startswith("."):
                    found.append(key)
        for key in sorted(found):
            entry = self.head(key)
            if entry is not None:
                yield entry

    def versions(self, prefix: str = "") -> Iterator[Entry]:
        """See :class:`Store`: each file is its only version."""
        return self.entries(prefix)

    def delete(self, key: str, version: str) -> None:  # noqa: ARG002
        """See :class:`Store`."""
        with _explained("Deleting", key):
            path = self._path(key)
            path.unlink(missing_ok=True)
            if path.parent.is_dir():
                _flush_folder(path.parent)
            for parent in path.relative_to(self.root).parents[:-1]:
                with contextlib.suppress(OSError):  # not empty: others are in it
                    (self.root / parent).rmdir()

    def abort(self, key: str, upload_id: str) -> None:
        """See :class:`Store`."""
        with _explained("Aborting", key):
            (self.root / _UPLOADS / Path(upload_id).name).unlink(missing_ok=True)

    def abort_stale(self, before: datetime, prefix: str = "") -> list[str]:
        """See :class:`Store`; what was written to last before that counts as begun before it."""
        gone = []
        with _explained("Sweeping", _UPLOADS):
            for path in sorted((self.root / _UPLOADS).glob("*")):
                key = path.name.partition("-")[2].replace("%", "/")
                if key.startswith(prefix) and path.stat().st_mtime < before.timestamp():
                    path.unlink(missing_ok=True)
                    gone.append(key)
        return gone


class _FileUpload:
    """See :class:`Upload`."""

    unlocked = ""

    def __init__(self, store: DirectoryStore, key: str, part_size: int, *, beside: bool) -> None:
        self._target, self._key, self._hasher = store._path(key), key, Hasher(part_size)
        self.id = f"{uuid.uuid4().hex}-{key.replace('/', '%')}"
        aside = self._target.with_name(f".{self._target.name}.{self.id[:8]}")  # names with a dot are no objects
        self._aside = aside if beside else store.root / _UPLOADS / self.id
        with _explained("Writing", key):
            _make(self._aside.parent)
            self._file = os.fdopen(
                os.open(self._aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640), "wb"
            )

    def write(self, piece: bytes) -> None:
        with _explained("Writing", self._key):
            self._file.write(piece)
        self._hasher.update(piece)

    def complete(self) -> Sent:
        with _explained("Writing", self._key):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            _make(self._target.parent)
            self._aside.rename(self._target)
            _flush_folder(self._target.parent)
        return self._hasher.sent(self._key)

    def abort(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            self._aside.unlink()

    def __enter__(self) -> Upload:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()  # after complete there is nothing left aside to drop


def _make(folder: Path) -> None:
    """Make a folder and those above it, on disk, for its owner and to be read by its group (drills are of another user)."""
    if not folder.is_dir():
        _make(folder.parent)
        folder.mkdir(mode=0o750, exist_ok=True)
        _flush_folder(folder.parent)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
