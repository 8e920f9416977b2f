# SPDX-License-Identifier: Apache-2.0
"""Text for a person at a terminal: colours there and nowhere else, one-line progress, plain tables."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import TextIO

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36"}


def colourful(stream: TextIO) -> bool:
    """Whether ``stream`` is a terminal that wants colours (https://no-color.org)."""
    return stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def paint(text: str, *styles: str, on: bool = True) -> str:
    """``text`` in ``styles`` (bold, dim, red, ...), unchanged where ``on`` is false."""
    if not on or not styles:
        return text
    return f"\033[{';'.join(_CODES[s] for s in styles)}m{text}\033[0m"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as left-aligned columns, the first row being the heading."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)


class Narrator:
    """Says what goes on, on standard error, with the seconds since the start."""

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._start = time.monotonic()
        self._colour = colourful(self._stream)

    def __call__(self, line: str) -> None:
        if not self._quiet:
            seconds = paint(f"{time.monotonic() - self._start:5.1f}s", "dim", on=self._colour)
            print(f"{seconds}  {line}", file=self._stream, flush=True)
