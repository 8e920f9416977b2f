# SPDX-License-Identifier: Apache-2.0
"""Did-you-mean for names that share a prefix.

Inventory variables all begin with ``slipway_`` or a role's name, so that plain similarity calls any two of them
alike. Here the shared first word is compared apart from the rest.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher


def _similarity(left: str, right: str) -> float:
    """0 to 1 on letters alone, so that case, hyphens and underscores cost nothing."""
    fold = str.maketrans("", "", "_- .")
    return SequenceMatcher(None, left.lower().translate(fold), right.lower().translate(fold)).ratio()


def closest(name: str, known: Iterable[str], *, cutoff: float = 0.72) -> str | None:
    """The known name that ``name`` is most likely a misspelling of, or None where nothing comes close.

    The first word (up to ``_``) and the rest must both be alike: ``slipway_foo`` is no misspelling of ``slipway_apps``.
    """
    best: tuple[float, str] | None = None
    head, _, tail = name.partition("_")
    for candidate in sorted(known):
        known_head, _, known_tail = candidate.partition("_")
        if tail and known_tail:
            score = min(_similarity(head, known_head), _similarity(tail, known_tail))
            # A prefix typed with another separator, or two words swapped, still reads alike as a whole.
            score = max(score, _similarity(name, candidate) - 0.2)
        else:
            score = _similarity(name, candidate)
        if score >= cutoff and (best is None or score > best[0]):
            best = (score, candidate)
    return best[1] if best else None


def suggestion(name: str, known: Iterable[str]) -> str:
    """``did you mean 'x'?`` as a clause, or an empty string."""
    match = closest(name, known)
    return f"did you mean '{match}'?" if match else ""
