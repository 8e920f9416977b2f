# SPDX-License-Identifier: Apache-2.0
"""Trying again: how often, how long to wait, and never in step with everybody else."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Retry:
    """Exponential waits with full jitter (AWS Architecture Blog, "Exponential Backoff and Jitter").

    ``attempts`` in all; waits are a random share of ``base * 2**n`` seconds, at most ``cap``. A server's own
    ``Retry-After`` wins where it asks for longer, within ``cap``.
    """

    attempts: int = 8
    base: float = 0.5
    cap: float = 30.0
    sleep: Callable[[float], None] = time.sleep
    random: Callable[[], float] = field(default=random.random)

    def wait(self, failed: int, asked: float = 0.0) -> bool:
        """Sleep after the ``failed``-th failure (from 1); False, at once, when no attempt is left."""
        if failed >= self.attempts:
            return False
        self.sleep(min(self.cap, max(asked, self.random() * min(self.cap, self.base * 2 ** (failed - 1)))))
        return True
