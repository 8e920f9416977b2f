# SPDX-License-Identifier: Apache-2.0
"""Who works now and who waits: as many pieces of work at once as there are processors for, in the order of lining up.

A dump that waits for its turn has begun all the same: it holds its locks, and its pipes are full. So nobody's ``ALTER
TABLE`` can get between two dumps of one snapshot.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator


class Turn:
    """A place in the line. ``wait`` until it is among the first; whoever has one must ``leave``, however it ended."""

    def __init__(self, turns: Turns, check: Callable[[], object]) -> None:
        self._turns, self._check = turns, check

    def wait(self) -> None:
        """Until those before have left room. Raises what ``check`` raises."""
        while not self._turns.come(self, 0.5):
            self._check()

    def leave(self) -> None:
        """Make room; again is harmless."""
        self._turns.leave(self)

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Leave at the end of the block."""
        try:
            yield
        finally:
            self.leave()


class Turns:
    """A line, of which the first ``count`` work. ``check``: raises what ends the waiting, called twice a second."""

    def __init__(self, count: int, check: Callable[[], object]) -> None:
        self.count = count
        self._check = check
        self._line: list[Turn] = []
        self._changed = threading.Condition()

    def line_up(self) -> Turn:
        """A place behind all others. It keeps those behind it waiting even before anybody waits in it."""
        turn = Turn(self, self._check)
        with self._changed:
            self._line.append(turn)
        return turn

    def come(self, turn: Turn, timeout: float) -> bool:
        """Whether it is the turn of this one by ``timeout`` seconds from now; of one that has left, it always is."""
        with self._changed:
            return self._changed.wait_for(
                lambda: turn in self._line[: self.count] or turn not in self._line, timeout
            )  # fmt: skip

    def leave(self, turn: Turn) -> None:
        """Take it out of the line."""
        with self._changed:
            if turn in self._line:
                self._line.remove(turn)
                self._changed.notify_all()
