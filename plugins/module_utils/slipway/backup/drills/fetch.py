# SPDX-License-Identifier: Apache-2.0
"""From the store to plain data: every object hashed on its way, decrypted by age, unpacked by zstd, never trusted.

What is wrong with an object has one of three names, and a drill keeps them apart: it is not what the manifest says
(``objects``), it cannot be decrypted (``decryption``), or the store could not be asked (nobody knows).
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import SlipwayError
from .. import argv
from ..manifest import StoredObject
from ..pipeline import Flow, PipelineError, Stage, run
from ..stores.store import MB, MissingError, Store, StoreError

_TEXT_LIMIT = 64 * MB


class BackupError(SlipwayError):
    """A backup could not be brought back. ``check``: which of the drill's checks says so.

    ``unknown``: True where the backup may be good all the same, because something else was missing (the store's
    answer, room on the disk, a package): such a drill is inconclusive.
    """

    def __init__(self, check: str, found: str, expected: str = "", remedy: str = "", *, unknown: bool = False) -> None:
        super().__init__(found, expected, remedy)
        self.check, self.unknown = check, unknown


@dataclass
class Times:
    """Wall-clock milliseconds by step, taken where one waits: they add up to the whole though steps overlap.

    ``fetch``: waited for the store. ``decrypt``: the rest of the time in which an object was made plain on its own;
    while it streams into the restore, decrypting costs nothing extra and counts as restore.
    """

    fetch: float = 0.0
    decrypt: float = 0.0
    restore: float = 0.0


@dataclass
class Fetcher:
    """Reads the objects of one backup. ``identity``: age's identity file. ``env``: for the programs it starts.

    ``seen``: object key -> SHA-256 of what the store gave, for those read to their end. ``halt``: once set, every
    stream ends with an error: for those in other threads.
    """

    store: Store
    identity: str
    env: Mapping[str, str] = field(default_factory=dict)
    deadline: float | None = None
    seen: dict[str, str] = field(default_factory=dict)
    halt: threading.Event = field(default_factory=threading.Event)

    def check(self, each: StoredObject) -> None:
        """Read an object once to its end and compare its size and hash. Raises BackupError."""
        for _piece in self.pieces(each, [0.0]):
            pass

    def look(self, objects: Iterable[StoredObject]) -> None:
        """Whether all are there in full size, before anything is done with one. Raises BackupError."""
        for each in objects:
            try:
                entry = self.store.head(each.key, version=each.version)
            except StoreError as error:
                raise BackupError("objects", str(error), unknown=True) from error
            if entry is None:
                raise BackupError("objects", f"{each.key} is gone from the store", "every object of the manifest")
            if entry.size != each.size:
                raise BackupError(
                    "objects", f"{each.key} has {entry.size} bytes", f"{each.size} bytes, as the manifest says",
                    "the object was damaged or exchanged after the backup: restore another backup",
                )  # fmt: skip

    def pieces(self, each: StoredObject, waited: list[float]) -> Iterator[bytes]:
        """The ciphertext; raises BackupError at its end if it is another than the manifest's. ``waited[0]``: seconds."""
        digest, size = hashlib.sha256(), 0
        begun = time.monotonic()
        try:
            for piece in self.store.read(each.key, version=each.version):
                waited[0] += time.monotonic() - begun
                digest.update(piece)
                size += len(piece)
                if self.halt.is_set():
                    raise BackupError("restore", "stopped, because another stream was", unknown=True)
                if size > each.size:
                    break
                yield piece
                begun = time.monotonic()
        except MissingError as error:
            raise BackupError(
                "objects", f"{each.key} is gone from the store", "every object that the manifest names"
            ) from error
        except StoreError as error:
            raise BackupError("objects", str(error), unknown=True) from error
        waited[0] += time.monotonic() - begun
        found = digest.hexdigest()
        if size != each.size or found != each.sha256:
            what = f"more than {each.size}" if size > each.size else str(size)
            raise BackupError(
                "objects", f"{each.key} has {what} bytes with SHA-256 {found[:16]}",
                f"{each.size} bytes with SHA-256 {each.sha256[:16]}, as the manifest says",
                "the object was damaged or exchanged after the backup: restore another backup",
            )  # fmt: skip
        self.seen[each.key] = found

    def stream(
        self,
        each: StoredObject,
        stages: Sequence[Stage] = (),
        sink: Callable[[bytes], object] | None = None,
        *,
        may_be_empty: bool = False,
    ) -> tuple[Flow, float]:
        """An object's plain data into ``stages`` and then ``sink``; what came out, and the seconds waited for the store.

        Raises BackupError for what is wrong with the object, PipelineError for one of ``stages``.
        """
        waited = [0.0]
        opening = [
            Stage("age", argv.decrypt(self.identity), self.env),
            Stage("zstd", argv.decompress(), self.env),
        ]
        left = None if self.deadline is None else max(1.0, self.deadline - time.monotonic())
        try:
            flow = run(
                [*opening, *stages], sink, source=self.pieces(each, waited), hashed=False, timeout=left,
                may_be_empty=may_be_empty,
            )  # fmt: skip
        except PipelineError as error:
            if error.culprit not in ("age", "zstd"):
                raise
            self.check(each)  # a damaged object says so by its hash; age can only say that it is not whole
            raise self._undecryptable(each, error) from error
        return flow, waited[0]

    def _undecryptable(self, each: StoredObject, error: PipelineError) -> BackupError:
        if "no identity matched" in error.found:
            return BackupError(
                "decryption", f"The age identity of this host opens no lock of {each.key}",
                "the identity of one of the recipients that the backup was made for",
                "put the right identity in place; with the recovery identity the backup can still be opened",
            )  # fmt: skip
        host = _hosts_fault(error.found)
        if host or "could not be started" in error.found:
            return BackupError("decryption", error.found, host, unknown=True)
        return BackupError("decryption", f"{each.key}: {error.found}", "every byte authenticated")

    def text(self, each: StoredObject) -> tuple[bytes, float]:
        """A small object whole, in memory: the globals. Raises BackupError."""
        found = bytearray()

        def take(piece: bytes) -> None:
            found.extend(piece)
            if len(found) > _TEXT_LIMIT:
                raise BackupError("globals", f"{each.key} holds more than {_TEXT_LIMIT // MB} MB", "roles and settings")

        _flow, waited = self.stream(each, sink=take)
        return bytes(found), waited

    def spool(self, each: StoredObject, path: Path) -> float:
        """An object's plain data into a new file that only we can read; seconds waited for the store."""
        with open(path, "xb", opener=_private) as file:
            try:
                _flow, waited = self.stream(each, sink=file.write)
            except OSError as error:
                raise BackupError("restore", f"Writing {path} failed: {error.strerror}", unknown=True) from error
        return waited


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


# What a program says when the host that restores is to blame, and what to do about it.
_HOST: Mapping[str, str] = {
    "No space left on device": "room on the disk: free some space",
    "could not open extension control file": "the extension's package: install it on this host",
    "is not available": "the extension's package: install it on this host",
    "could not access file": "the library's package: install it on this host",
    "could not load library": "the library's package: install it on this host",
    "out of memory": "more memory: raise the limit of the unit, or lower backup_scratch_mb",
    "Cannot allocate memory": "more memory",
    "out of shared memory": "more room for locks: raise max_locks_per_transaction",
    "invalid locale name": "the locale: run locale-gen on this host",
    "is not valid for locale": "the locale: run locale-gen on this host",
    "collation for encoding": "the locale: run locale-gen on this host",
    "server closed the connection": "a server that stays up while it restores: see its log",
    "the database system is shutting down": "a server that stays up while it restores",
    "terminating connection": "a server that stays up while it restores",
    "when the time allowed was over": "more time: raise the longest duration",
    "was killed by SIGKILL": "nobody to kill it: the kernel does when memory is short",
    "was killed by SIGTERM": "nobody to stop it",
    "could not connect": "a server that stays up while it restores",
    "Too many open files": "a higher limit of open files",
}


def _hosts_fault(said: str) -> str:
    return next((remedy for words, remedy in _HOST.items() if words in said), "")


def restore_error(check: str, error: PipelineError, database: str = "") -> BackupError:
    """A failed program of the restore as a drill sees it: the backup's fault, unless its words name the host's."""
    place = f"Database {database}: " if database else ""
    remedy = _hosts_fault(error.found)
    if remedy:
        return BackupError(check, f"{place}{error.found}", remedy, unknown=True)
    missing = "role " in error.found and "does not exist" in error.found
    return BackupError(
        check, f"{place}{error.found}", "a restore without a single error",
        "the role is missing from the backup's globals: see who removed it while the dump ran" if missing else "",
    )  # fmt: skip
