# SPDX-License-Identifier: Apache-2.0
"""Removing what retention lets go: a plan to look at first, and its execution with the pruner's key.

A backup goes manifest first: from then on it is an unfinished run to everybody, never a backup that looks whole and is
not. A version that the store refuses to delete (locked, or a key without that right) ends the removal of that backup.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ..config import Config
from ..stores.store import AccessError, Entry, Store, StoreError
from . import listing, retention


@dataclass(frozen=True)
class Prune:
    """What the store holds, and what would go."""

    found: listing.Listing
    plan: retention.Plan

    @property
    def doomed(self) -> tuple[listing.Listed, ...]:
        """What goes, oldest first: so that a removal that is cut off leaves the newer ones."""
        names = {each.id for each in self.plan.removed}
        return tuple(each for each in reversed(self.found.backups) if each.id in names)

    @property
    def bytes(self) -> int:
        """What would be freed."""
        return sum(each.bytes for each in self.doomed)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for ``--json`` and for playbooks."""
        return {"host": self.found.host, **self.plan.to_dict(), "bytes": self.bytes, "notes": list(self.found.notes)}


@dataclass
class Pruned:
    """What became of a plan. ``kept``: id to why the store did not let it go; ``bytes``: freed."""

    removed: list[str] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)
    bytes: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"removed": self.removed, "kept": self.kept, "bytes": self.bytes}


def plan(store: Store, config: Config, now: datetime) -> Prune:
    """Look at the store and decide. Reads only. Raises StoreError, InputError."""
    found = listing.read(store, config.host)
    backups = [each.for_retention(config.place.lock_days) for each in found.backups]
    return Prune(found, retention.plan(backups, config.retention(), now))


def order(entries: Sequence[Entry]) -> list[Entry]:
    """In which order the versions of one backup go. Pure.

    The manifest's first, the newest of them last: should it be cut off, the listing still reads the oldest or none.
    Markers last of all: deleting a marker brings back what it hides.
    """

    def rank(entry: Entry) -> tuple[bool, bool]:
        return entry.hidden, not entry.key.endswith(f"/{listing.MANIFEST}")

    return sorted(entries, key=rank)


def apply(store: Store, chosen: Prune, say: Callable[[str], None] = lambda _text: None) -> Pruned:
    """Remove what the plan says. What the store refuses is kept and named. Raises StoreError when the store is away."""
    done = Pruned()
    for backup in chosen.doomed:
        try:
            for entry in order(backup.entries):
                store.delete(entry.key, entry.version)
                done.bytes += entry.size
        except AccessError as error:
            done.kept[backup.id] = f"the store did not let {entry.key.rpartition('/')[2]} go: {error.found}"
            say(f"kept    {backup.id}: {done.kept[backup.id]}")
        except StoreError:
            if not done.removed and not done.kept:
                raise
            done.kept[backup.id] = "the store failed; what is left of it goes with the next pruning"
            say(f"kept    {backup.id}: {done.kept[backup.id]}")
            break
        else:
            done.removed.append(backup.id)
            say(f"removed {backup.id}")
    return done


def release(store: Store, host: str, identifier: str) -> int:
    """Let go of a held backup: from now on retention decides. How many versions of the hold went. Raises StoreError."""
    held = f"{host}/holds/{identifier}"
    gone = [entry for entry in store.versions(held) if entry.key == held]
    for entry in gone:
        store.delete(entry.key, entry.version)
    return len(gone)
