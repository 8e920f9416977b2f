# SPDX-License-Identifier: Apache-2.0
"""One change at a time: a kernel lock that dies with its process, and a note on who holds it since when."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import errors

_TRIES = 10  # in half a second


class BusyError(errors.BusyError):
    """Somebody else holds the lock. ``holder`` is the note that they left (``who``, ``since``, ``what``, ``pid``)."""

    def __init__(self, name: str, holder: dict[str, Any]) -> None:
        self.name, self.holder = name, holder
        who, since = holder.get("who", "somebody"), holder.get("since", "a moment ago")
        super().__init__(
            f"{name} is busy: {holder.get('what', 'a deploy')} by {who} has been running since {since}",
            "no other deploy of this app",
            f"wait until it is over; 'slipway app status {name}' on the host shows how far it is",
        )

    def __reduce__(self) -> tuple[type[BusyError], tuple[str, dict[str, Any]]]:
        return type(self), (self.name, self.holder)


def taken(descriptor: int) -> bool:
    """Take the lock of an open file, if it is free. Somebody who only looks has it for an instant: so not at once."""
    for place in range(_TRIES):
        if place:
            time.sleep(0.05)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    return False


def busy(path: str | Path) -> bool:
    """Whether somebody holds the lock now. Changes nothing."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def holder(path: str | Path) -> dict[str, Any] | None:
    """The note of whoever holds the lock now, or None while it is free."""
    return _note(Path(path)) if busy(path) else None


@contextlib.contextmanager
def held(path: str | Path, name: str, note: dict[str, Any]) -> Iterator[None]:
    """Hold the lock at ``path`` for a block; ``note`` tells others who, what and since when.

    The kernel frees it when the process ends, however it ends. Raises BusyError when it is taken.
    """
    target = Path(path)
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not taken(descriptor):
            raise BusyError(name, _note(target))
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({**note, "pid": os.getpid()}).encode(), 0)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def waited(path: str | Path) -> Iterator[None]:
    """Hold the lock at ``path`` for a short block, waiting for whoever has it."""
    target = Path(path)
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _note(path: Path) -> dict[str, Any]:
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}
