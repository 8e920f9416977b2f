# SPDX-License-Identifier: Apache-2.0
"""The backups that a store holds for a host, by their manifests alone: all that a drill's key has to be able to read.

As everywhere, the *first* version of a manifest counts: a stolen writer's key can lay versions and delete markers on top
of it, but cannot take it away.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ..manifest import Manifest, read
from ..stores.store import Entry, MissingError, Store, StoreError
from ..verdict import REQUIRED, SKIPPED, Check
from .fetch import BackupError

_KEY = re.compile(r"(?P<id>(?P<at>[0-9]{8}T[0-9]{6})Z-[a-z0-9.-]+)/manifest\.json")
CLOCKS = timedelta(minutes=15)


@dataclass(frozen=True)
class Found:
    """One backup: the version of its manifest to read. ``hidden``: under a delete marker; ``writes``: versions that it has."""

    id: str
    entry: Entry
    hidden: bool = False
    writes: int = 1

    @property
    def named(self) -> datetime:
        """The time in its name: all that is known while its manifest cannot be read."""
        return datetime.strptime(self.id[:15], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)

    @property
    def notes(self) -> list[str]:
        """What about it a person should look into."""
        notes = []
        if self.hidden:
            notes.append(
                f"{self.id} is hidden by a delete marker that no Slipway sets: see who has keys, and remove the marker"
            )
        if self.writes > 1:
            notes.append(
                f"the manifest of {self.id} was written {self.writes} times: the first counts; see who has keys"
            )
        return notes


def backups(store: Store, host: str) -> list[Found]:
    """All backups of ``host``, newest first. Raises StoreError."""
    by_key: dict[str, list[Entry]] = {}
    for entry in store.versions(f"{host}/"):
        by_key.setdefault(entry.key, []).append(entry)
    found = []
    for key, entries in by_key.items():
        match = _KEY.fullmatch(key.removeprefix(f"{host}/"))
        real = [each for each in entries if not each.hidden]
        if match and real:
            hidden = any(each.hidden and each.latest for each in entries)
            found.append(Found(match["id"], real[-1], hidden, len(real)))  # newest first, as stores list versions
    return sorted(found, key=lambda each: each.id, reverse=True)


def manifest(store: Store, found: Found, host: str) -> tuple[Manifest, str]:
    """A backup's manifest and the SHA-256 of its text. Raises BackupError."""
    from ..codec import FormatError

    try:
        text = b"".join(store.read(found.entry.key, version=found.entry.version))
        taken = read(text, f"the manifest of {found.id}")
    except FormatError as error:
        raise BackupError("objects", str(error)) from error
    except MissingError as error:
        raise BackupError("objects", f"The manifest of {found.id} was there and is gone", "it") from error
    except StoreError as error:
        raise BackupError("objects", str(error), unknown=True) from error
    if taken.backup_id != found.id or taken.host != host:
        raise BackupError("objects", f"The manifest of {found.id} is that of {taken.backup_id} of host {taken.host}",
                          f"its own, of host {host}", "somebody copied it: restore another backup")  # fmt: skip
    return taken, hashlib.sha256(text).hexdigest()


def clocks(taken: Manifest, entry: Entry, now: datetime) -> list[Check]:
    """Whether host, store and we agree on the time, so that ages mean something; empty if they do.

    The store's clock is the third, independent one: it dates the manifest. (A directory has none of its own: a file
    copied there is dated anew.)
    """
    late = entry.modified - taken.finished
    if entry.version and abs(late) > CLOCKS:
        seconds = int(late.total_seconds())
        reason = f"the store dates the manifest {abs(seconds)} s {'after' if seconds > 0 else 'before'} its host: a clock is wrong"
        return [Check("clock", SKIPPED, REQUIRED["clock"], reason)]
    if entry.version and entry.modified - now > CLOCKS:
        return [
            Check(
                "clock",
                SKIPPED,
                REQUIRED["clock"],
                "the store dates the manifest in the future of this host: a clock is wrong",
            )
        ]
    return []
