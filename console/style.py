# SPDX-License-Identifier: Apache-2.0
"""Colours, bars and quantities for a terminal. Plain text everywhere else, and where NO_COLOR is set."""

from __future__ import annotations

import os
import re
import sys
from typing import TextIO

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
_ESCAPE = re.compile(r"\x1b\[[0-9;]*m")
# Control characters in what a server says could rewrite the screen.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def wants_colour(stream: TextIO | None = None) -> bool:
    """Whether ``stream`` (stdout by default) is a terminal that takes colours."""
    target = stream or sys.stdout
    return target.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "") != "dumb"


class Style:
    """Paints text, or leaves it as it is."""

    def __init__(self, colour: bool) -> None:
        self.colour = colour

    def paint(self, text: str, *names: str) -> str:
        """``text`` in the named colours."""
        if not self.colour or not names:
            return text
        return f"\x1b[{';'.join(_CODES[name] for name in names)}m{text}\x1b[0m"

    def level(self, text: str, level: str) -> str:
        """``text`` in the colour of a judgement: good, warn, bad or quiet."""
        return self.paint(
            text, *{"good": ("green",), "warn": ("yellow",), "bad": ("red", "bold"), "quiet": ("dim",)}[level]
        )


def width(text: str) -> int:
    """Columns that ``text`` takes, colours left out."""
    return len(_ESCAPE.sub("", text))


def pad(text: str, columns: int) -> str:
    """``text`` filled up with spaces to ``columns``."""
    return text + " " * max(0, columns - width(text))


def clean(text: object) -> str:
    """Text from a server, safe to print."""
    return _CONTROL.sub("?", str(text))


def megabytes(mb: float) -> str:
    """``512 MB``, ``3.8 GB``."""
    return f"{mb:.0f} MB" if mb < 1024 else f"{mb / 1024:.1f} GB".replace(".0 GB", " GB")


def duration(seconds: float) -> str:
    """The two largest units: ``3 d 4 h``, ``12 min``, ``40 s``."""
    rest = int(max(0, seconds))
    parts = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"
