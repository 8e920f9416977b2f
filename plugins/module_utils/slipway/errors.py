# SPDX-License-Identifier: Apache-2.0
"""Typed errors: what was found, what was expected, how to mend it.

Every error that a user may see derives from :class:`SlipwayError`. ``str(error)`` is one message that
stands alone in a terminal; the three fields let callers put it into JSON or a table. Never put a secret in one.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def _sentence(text: str) -> str:
    """``text`` as a sentence: trimmed, with a full stop unless it already ends in punctuation."""
    text = text.strip()
    if not text or text[-1] in ".!?:":
        return text
    return text + "."


class SlipwayError(Exception):
    """Base of every error Slipway raises on purpose.

    ``found``: what is the case. ``expected``: what should be (a noun phrase, may be empty).
    ``remedy``: what to change or the command to run (imperative, may be empty).
    """

    def __init__(self, found: str, expected: str = "", remedy: str = "") -> None:
        super().__init__(found, expected, remedy)  # all three, so that the error survives pickling
        self.found = found
        self.expected = expected
        self.remedy = remedy

    def __str__(self) -> str:
        parts = [_sentence(self.found)]
        if self.expected:
            parts.append("Expected: " + _sentence(self.expected))
        if self.remedy:
            parts.append("To mend it: " + _sentence(self.remedy))
        return " ".join(parts)

    def to_dict(self) -> dict[str, str]:
        """The same as plain data: ``{error, found, expected, remedy}`` (``error`` is the class name)."""
        return {
            "error": type(self).__name__,
            "found": self.found,
            "expected": self.expected,
            "remedy": self.remedy,
        }


class BusyError(SlipwayError):
    """Another of the kind is at work, and there can be one at a time."""


class InputError(SlipwayError):
    """A value given by the user is of the wrong type, out of range, or contradicts another one."""


class UnknownNameError(InputError):
    """A key that nothing knows: most likely misspelled."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind, self.name, self.known = kind, name, sorted(known)
        self.suggestion = did_you_mean(name, self.known)
        # With a likely name at hand the whole list would only bury it.
        expected = f"one of: {', '.join(self.known)}" if self.known and not self.suggestion else ""
        remedy = f"write {self.suggestion} instead" if self.suggestion else "correct the name or remove it"
        super().__init__(f"Unknown {kind} '{name}'", expected, remedy)

    def __reduce__(self) -> tuple[type[UnknownNameError], tuple[str, str, list[str]]]:
        return type(self), (self.kind, self.name, self.known)


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """The known name closest to ``name``, or None where nothing comes close."""
    matches = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None
