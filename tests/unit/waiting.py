# SPDX-License-Identifier: Apache-2.0
"""How tests wait: for the event itself, with a limit that only a fault reaches, however slow the machine is."""

from __future__ import annotations

import time
from collections.abc import Callable

LIMIT = 180.0  # seconds
LONG = 600  # seconds that stand for "for ever": what ends before LIMIT was ended, and did not end by itself


def until(condition: Callable[[], object], what: str) -> None:
    """Return as soon as ``condition`` holds; fails with ``what`` when it never does."""
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, f"{what}: never happened"
        time.sleep(0.02)
