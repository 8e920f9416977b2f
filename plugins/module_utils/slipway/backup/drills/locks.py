# SPDX-License-Identifier: Apache-2.0
"""Whether what a backup consists of is locked as the settings ask for.

A store may forget a lock, a key may lack the right to set one: either way the objects are there, and whoever gets hold of
a key that may destroy them can. What comes of it is a finding and no failure: the backup was restored, which is what a
verdict is about, and a verdict of ``failed`` would send the drill to an older backup and keep pruning from counting this
one. It alarms all the same, as a missed target does.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from ..config import Place
from ..manifest import Manifest
from ..stores.store import AccessError, Lock, MissingError, Store, StoreError
from .find import Found

ROUNDING = timedelta(minutes=1)
"""Stores keep whole seconds, and date a lock by their own clock."""
_SHOWN = 3
_HELP = "see docs/backblaze_b2.md, 'Locks that hold'"


def findings(place: Place, store: Store, found: Found, taken: Manifest, now: datetime) -> tuple[str, ...]:
    """What is wrong with the locks of a backup's objects, a line for each kind; never raises for the store's sake.

    Nothing where the settings ask for no lock, or where it would be over by now.
    """
    wanted = place.lock(taken.started)
    if wanted is None or wanted.until <= now:
        return ()
    entries = [(each.key, each.version) for each in taken.objects]
    entries.append((found.entry.key, found.entry.version))
    bare: list[str] = []
    weak: list[str] = []
    for key, version in entries:
        name = key.rpartition("/")[2]
        try:
            lock = store.locked(key, version=version)
        except MissingError:
            continue  # the check 'objects' says so
        except AccessError:
            return (
                f"Whether {taken.backup_id} is locked is not known: the reader's key may not look. Expected: a lock until "
                f"{wanted.until:%Y-%m-%d %H:%M} UTC. To mend it: give that key readFileRetentions (B2) or s3:GetObjectRetention; {_HELP}.",
            )
        except StoreError as error:
            return (f"Whether {taken.backup_id} is locked could not be asked: {error.found}",)
        if lock is None:
            bare.append(name)
        elif weaker := _weaker(lock, wanted):
            weak.append(f"{name} {weaker}")
    lines = []
    if bare:
        lines.append(
            f"{len(bare)} of {len(entries)} objects of {taken.backup_id} are not locked: {_some(bare)}. Expected: "
            f"{wanted.mode.lower()} until {wanted.until:%Y-%m-%d %H:%M} UTC. To mend it: set_up_bucket.yml tells what the store "
            f"does with locks, and backups from before the setting have none; {_HELP}."
        )
    if weak:
        lines.append(
            f"{len(weak)} of {len(entries)} objects of {taken.backup_id} have a weaker lock than the settings ask for: {_some(weak)}. "
            f"Expected: {wanted.mode.lower()} until {wanted.until:%Y-%m-%d %H:%M} UTC; {_HELP}."
        )
    return tuple(lines)


def _weaker(lock: Lock, wanted: Lock) -> str:
    if lock.until < wanted.until - ROUNDING:
        return f"until {lock.until:%Y-%m-%d %H:%M} UTC"
    return "in governance mode" if wanted.mode == "COMPLIANCE" != lock.mode else ""


def _some(names: Iterable[str]) -> str:
    shown = list(names)
    return ", ".join(shown[:_SHOWN]) + (f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else "")
