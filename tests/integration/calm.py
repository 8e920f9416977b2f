# SPDX-License-Identifier: Apache-2.0
"""A quiet machine for the tests that measure what clients wait for: bin/test runs two stages at once, and these alone.

Tests on lab hosts hold a lock that they share; one marked ``calm`` has it to itself.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / ".cache"


@contextmanager
def machine(folder: Path = FOLDER, *, alone: bool) -> Iterator[None]:
    """Within it no test that wants to be ``alone`` runs; with ``alone`` no other test at all.

    Two locks, so that whoever waits to be alone is let in before the others' next test.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "calm.door").open("w") as door, (folder / "calm.room").open("w") as room:
        fcntl.flock(door, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(door, fcntl.LOCK_UN)
        yield
