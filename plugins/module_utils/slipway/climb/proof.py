# SPDX-License-Identifier: Apache-2.0
"""Whether a backup stands behind a climb: young enough for the recovery tier, and proved by a drill. Pure.

Read from the hosts' own records: ``slipway backup list --json`` of the database host, ``slipway drill list --json`` of every
host that drills. What those records do not say is not taken for granted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..backup.verdict import TIERS, span
from ..errors import InputError

LEAST_S = 3600
"""A tier that allows no loss at all still gets an hour: a run after a crash must not begin with another backup."""


@dataclass(frozen=True)
class Proof:
    """``backup`` is empty where none stands behind the climb; ``why`` then says why. ``age_s``: of its snapshot."""

    backup: str = ""
    age_s: int = 0
    why: str = ""

    @property
    def stands(self) -> bool:
        """Whether the climb may go on."""
        return bool(self.backup)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, with ``stands`` and ``text``."""
        return {**asdict(self), "stands": self.stands, "text": self.text}

    @property
    def text(self) -> str:
        """The same for a person."""
        if self.stands:
            return f"backup {self.backup}, {span(self.age_s // 60 * 60_000)} old, restored and proved by a drill."
        return self.why


def limit_s(tier: str, targets: Mapping[str, int] | None = None) -> int:
    """How old the proved backup may be: the tier's RPO, or the user's own. Raises InputError for an unknown tier."""
    if tier not in TIERS:
        raise InputError(f"unknown recovery tier '{tier}'", f"one of: {', '.join(TIERS)}")
    return max(LEAST_S, int((targets or {}).get("rpo_s", TIERS[tier].rpo_s)))


def judge(backups: Iterable[Mapping[str, Any]], drills: Iterable[Mapping[str, Any]], limit: int) -> Proof:
    """The youngest backup that is whole, proved, and at most ``limit`` seconds old; or why there is none.

    ``backups``: the rows of the backup list. ``drills``: the records of drills, any order. A backup that any drill found
    wanting does not count, even if another drill proved it.
    """
    verdicts: dict[str, set[str]] = {}
    for drill in drills:
        tried = drill.get("tried") or []
        if drill.get("kind", "dump") == "dump" and tried:
            verdicts.setdefault(str(tried[-1]["backup_id"]), set()).add(str(drill.get("verdict")))
            for earlier in tried[:-1]:  # found wanting, which is why an older one was tried
                verdicts.setdefault(str(earlier["backup_id"]), set()).add("failed")
    whole = sorted((row for row in backups if not row.get("problem")), key=lambda row: int(row["age_s"]))
    if not whole:
        return Proof(why="there is no whole backup yet: one is taken and drilled first.")
    proved = [row for row in whole if _proved(row, verdicts.get(str(row["id"]), set()))]
    if not proved:
        return Proof(why="no backup has passed a drill yet: one is taken and drilled first.")
    youngest = proved[0]
    if int(youngest["age_s"]) > limit:
        age = span(int(youngest["age_s"]) // 60 * 60_000)
        return Proof(
            why=f"the newest proved backup is {age} old, allowed are {span(limit * 1000)}: one is taken and drilled first."
        )
    return Proof(str(youngest["id"]), int(youngest["age_s"]))


def _proved(row: Mapping[str, Any], verdicts: set[str]) -> bool:
    if "failed" in verdicts or row.get("proof") == "failed":
        return False
    return "proved" in verdicts or row.get("proof") == "proved"
