# SPDX-License-Identifier: Apache-2.0
"""One place that says "no further" to every thread of a run: a signal, a failure elsewhere, or the time allowed is over."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ..errors import SlipwayError


class Interrupted(SlipwayError):
    """Somebody stopped the run by a signal."""


class TooLongError(SlipwayError):
    """The run took longer than its settings allow."""


class Stop:
    """Set by whoever fails first, looked at by all. ``longest``: seconds from now that the run may take."""

    def __init__(self, longest: float | None = None) -> None:
        self._set = threading.Event()
        self._lock = threading.Lock()
        self.longest = longest
        self._deadline = None if longest is None else time.monotonic() + longest
        self.error: BaseException | None = None

    def because(self, error: BaseException) -> None:
        """Say no further; the first reason given is the one that is told."""
        with self._lock:
            self.error = self.error or error
        self._set.set()

    def check(self) -> None:
        """Raise the reason if there is one by now."""
        if self._deadline is not None and time.monotonic() > self._deadline and not self._set.is_set():
            self.because(
                TooLongError(
                    f"The run was not over after {self.longest:.0f} s", "the end within the maximum duration",
                    "see what slows it down, or raise longest_s",
                )
            )  # fmt: skip
        if self._set.is_set() and self.error is not None:
            raise self.error

    @property
    def stopped(self) -> bool:
        """Whether somebody said so."""
        return self._set.is_set()

    def sleep(self, seconds: float) -> None:
        """Sleep, but not beyond the moment of stopping; raises the reason then."""
        limit = time.monotonic() + seconds
        while (left := limit - time.monotonic()) > 0:
            self.check()
            self._set.wait(min(left, 0.5))
        self.check()

    def forget(self, error: BaseException) -> bool:
        """Go on after ``error``, if that is what stopped the run; whether it may."""
        with self._lock:
            if self.error is not error:
                return False
            self.error = None
            self._set.clear()
            return True

    def clear(self, longest: float | None) -> None:
        """Begin to count anew; a reason given already stays."""
        self.longest, self._deadline = longest, None if longest is None else time.monotonic() + longest


@contextmanager
def by_signals(stop: Stop) -> Iterator[None]:
    """While the block runs, SIGTERM, SIGINT and SIGHUP stop it in good order. For the main thread."""

    def handle(number: int, _frame: FrameType | None) -> None:
        stop.because(Interrupted(f"The run was stopped by {signal.Signals(number).name}", "", "start it again"))

    before = {each: signal.signal(each, handle) for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
