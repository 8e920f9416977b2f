# SPDX-License-Identifier: Apache-2.0
"""What runs of the backup leave on their host: a record each, the lock while they run, and notes on unfinished uploads.

A record is written however a run ends. A run that was killed cannot write its own: the next one finds its note in the
lock's file and writes it. Uploads are noted before their first byte, since the writer's key may not list them later.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from ... import atomic, lock
from ...errors import BusyError, SlipwayError
from ..codec import FormatError, canonical, decode, parse_json
from ..stores.store import Store, StoreError

FORMAT = 1
RECORDS, LOCK, PENDING = "runs.jsonl", "lock", "pending"
KEPT = 2000  # records; half of them go when there are more
GOOD, FAILED = "good", "failed"


class StateError(SlipwayError):
    """A file of the runs' own could not be read or written."""


class LockError(StateError):
    """The lock's file cannot be opened, so nothing can be begun."""


@dataclass(frozen=True)
class Seen:
    """One database as a run saw it. ``rows``: of all its tables; ``held_ms``: how long its snapshot was held."""

    bytes: int = 0
    rows: int = 0
    tables: int = 0
    held_ms: int = 0
    schemas: tuple[str, ...] = ()


@dataclass(frozen=True)
class Run:
    """One run as it ended. ``result``: ``good`` or ``failed``, with ``reason`` then; ``taken``: its recovery point.

    ``stored_bytes``: what it put into the store; ``hash_ms``: time spent on counting and hashing, beside the dumps.
    ``unlisted``: databases that nobody listed; ``warnings``: what a person should look at though it succeeded.
    """

    id: str
    host: str
    started: datetime
    finished: datetime
    result: str
    by: str = ""
    reason: str = ""
    taken: datetime | None = None
    stored_bytes: int = 0
    objects: int = 0
    hash_ms: int = 0
    databases: Mapping[str, Seen] = field(default_factory=dict)
    unlisted: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    manifest_sha256: str = ""
    format: int = FORMAT

    @property
    def good(self) -> bool:
        """Whether a whole backup is in the store."""
        return self.result == GOOD

    @property
    def duration_ms(self) -> int:
        """From its start to its end."""
        return max(0, int((self.finished - self.started).total_seconds() * 1000))

    @property
    def held_ms(self) -> int:
        """The longest time that a snapshot was held."""
        return max((each.held_ms for each in self.databases.values()), default=0)


@dataclass(frozen=True)
class Holder:
    """Who holds the lock, as noted in its file."""

    id: str
    since: datetime
    by: str = ""
    pid: int = 0


def append(state: Path, run: Run) -> None:
    """Add a record; it is on disk when this returns. Raises StateError."""
    path = state / RECORDS
    try:
        with _opened(path, 0o640) as descriptor:
            text = path.read_bytes()
            cut = b"" if not text or text.endswith(b"\n") else b"\n"  # a line that a crash cut off stays a line
            _write(descriptor, cut + canonical(run) + b"\n")
            if text.count(b"\n") >= KEPT:
                _shorten(path)
    except OSError as error:
        raise StateError(f"The record of the run could not be written to {path}: {error.strerror}") from error


def _write(descriptor: int, line: bytes) -> None:
    written = 0
    while written < len(line):
        written += os.write(descriptor, line[written:])
    os.fsync(descriptor)


def _shorten(path: Path) -> None:
    atomic.replace(path, b"".join(path.read_bytes().splitlines(keepends=True)[-KEPT // 2 :]), 0o640)


def records(state: Path) -> list[Run]:
    """The records that can be read, oldest first. Raises StateError where the file may not be read."""
    path = state / RECORDS
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StateError(
            f"{path} cannot be read: {error.strerror}", "the right to", "run it as root (sudo slipway ...)"
        ) from error
    found = []
    for line in lines:
        with contextlib.suppress(FormatError):  # cut by a crash, or of a newer version
            found.append(decode(Run, parse_json(line, str(path)), str(path)))
    return found


@contextlib.contextmanager
def held(state: Path, holder: Holder, *, name: str = LOCK, what: str = "backup") -> Iterator[Holder | None]:
    """Hold the lock for a block; gives the holder that died without letting it go, if one did.

    The kernel frees it however the process ends, so a stale file is no obstacle. Raises BusyError, StateError.
    """
    path = state / name
    try:
        state.mkdir(mode=0o750, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise LockError(f"The lock {path} cannot be opened: {error.strerror}", "a folder of this user") from error
    try:
        if not lock.taken(descriptor):
            raise _busy(_note(path), what)
        dead = _note(path)
        _replace(descriptor, canonical(holder))
        try:
            yield dead
        finally:
            _replace(descriptor, b"")
    finally:
        os.close(descriptor)


def _replace(descriptor: int, note: bytes) -> None:
    with contextlib.suppress(OSError):  # on a full disk the lock still holds; only who holds it is not told
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, note, 0)


def _busy(note: Holder | None, what: str) -> BusyError:
    who = f"{what} {note.id}, begun {note.since:%Y-%m-%d %H:%M:%S} UTC by {note.by or 'the timer'}," if note else what
    return BusyError(f"Another run is at work: {who} is not over yet", f"one {what} at a time", "wait until it is over")


def running(state: Path, *, name: str = LOCK) -> Holder | None:
    """Who holds the lock now; None when it is free, also when the last one died with it."""
    path = state / name
    return _note(path) if lock.busy(path) else None


def _note(path: Path) -> Holder | None:
    try:
        return decode(Holder, parse_json(path.read_bytes(), str(path)), str(path))
    except (OSError, FormatError):
        return None


@dataclass(frozen=True)
class Pending:
    """An upload begun and not known to have ended."""

    key: str
    upload: str


class Uploads:
    """The notes on uploads in the making, a file each."""

    def __init__(self, state: Path) -> None:
        self.folder = state / PENDING

    def note(self, key: str, upload: str) -> Path:
        """Note one before its first byte. Raises StateError."""
        path = self.folder / f"{uuid.uuid4().hex}.json"
        try:
            self.folder.mkdir(mode=0o750, exist_ok=True)
            path.write_bytes(canonical(Pending(key, upload)))
        except OSError as error:
            raise StateError(f"{path} cannot be written: {error.strerror}", "", "free some space") from error
        return path

    def sweep(self, store: Store) -> tuple[list[str], list[str]]:
        """Abort what dead runs left; (keys aborted, complaints). Only under the lock, when every note is of a dead run."""
        gone, complaints = [], []
        for path in sorted(self.folder.glob("*.json")):
            try:
                pending = decode(Pending, parse_json(path.read_bytes(), path.name), path.name)
                store.abort(pending.key, pending.upload)
            except FormatError:
                complaints.append(f"The note {path.name} on an unfinished upload is not readable; it is dropped.")
            except (OSError, StoreError) as error:
                complaints.append(f"An unfinished upload of an earlier run could not be aborted: {error}")
                continue
            else:
                gone.append(pending.key)
            path.unlink(missing_ok=True)
        return gone, complaints


@contextlib.contextmanager
def _opened(path: Path, mode: int) -> Iterator[int]:
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, mode)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)
