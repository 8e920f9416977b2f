# SPDX-License-Identifier: Apache-2.0
"""From a drill's checks to its verdict, and from its times to RTO and RPO. Pure.

``proved`` takes every required check, run and passed. One that failed makes it ``failed``; one that could not run, or
was forgotten, makes it ``inconclusive``. There is no fourth way and no weighing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from ..errors import InputError
from . import compare
from .codec import FormatError
from .compare import Difference

Status = Literal["passed", "failed", "skipped", "not applicable"]
Verdict = Literal["proved", "failed", "inconclusive"]
PASSED, FAILED, SKIPPED, NOT_APPLICABLE = "passed", "failed", "skipped", "not applicable"

# Every check of a drill, and what it asks.
REQUIRED: Mapping[str, str] = {
    "clock": "the snapshot is not dated in the future, so ages mean something",
    "objects": "size and hash of every object are those of the manifest",
    "decryption": "age authenticated every byte",
    "globals": "roles, memberships and tablespaces are restored without an error and as in the manifest",
    "restore": "pg_restore ended without a single error",
    "catalog": "tables, columns, indexes, constraints, triggers, functions, policies, owners, grants, extensions, collations",
    "counts": "exact rows of every table",
    "content": "content hash of every table, and large objects",
    "sequences": "at or past their columns' furthest value",
    "foreign keys": "no row points nowhere",
    "structure": "pg_amcheck finds no damage in tables and indexes",
    "sentinel": "the row written just before the backup is there",
}
OPTIONAL: Mapping[str, str] = {"assertions": "the user's own SQL"}


@dataclass(frozen=True)
class Check:
    """One check as it went. ``skipped`` needs a reason in ``actual``; ``not applicable`` is for optional ones alone."""

    name: str
    status: str
    expected: str = ""
    actual: str = ""

    def __post_init__(self) -> None:
        if self.status not in (PASSED, FAILED, SKIPPED, NOT_APPLICABLE):
            raise FormatError(
                f"check {self.name} has the status '{self.status}'", "passed, failed, skipped, not applicable"
            )
        if self.status == SKIPPED and not self.actual:
            raise FormatError(f"check {self.name} was skipped without a reason", "the reason in 'actual'")


@dataclass(frozen=True)
class Judgement:
    """The verdict and why: one line for each check that kept it from being proved."""

    verdict: str
    reasons: tuple[str, ...]


def judge(checks: Iterable[Check], required: Iterable[str] = REQUIRED) -> Judgement:
    """The verdict over ``checks``. A required one that is missing counts as not run; the order does not matter.

    A name may occur several times (once a database): each counts.
    """
    found = list(checks)
    needed = tuple(required)
    failed = [f"{each.name}: {each.actual or 'failed'}" for each in found if each.status == FAILED]
    open_ones = [f"{each.name} could not run: {each.actual}" for each in found if each.status == SKIPPED]
    open_ones += [
        f"{each.name} was declared not applicable, and it always is"
        for each in found
        if each.status == NOT_APPLICABLE and each.name in needed
    ]
    names = {each.name for each in found}
    open_ones += [f"{name} was not run" for name in needed if name not in names]
    if not needed and not found:
        open_ones.append("nothing was checked")
    verdict = "failed" if failed else "inconclusive" if open_ones else "proved"
    return Judgement(verdict, tuple(failed + open_ones))


_CHECK_OF = {
    compare.ROLE: "globals", compare.TABLESPACE: "globals", compare.ROWS: "counts", compare.CONTENT: "content",
    compare.LARGE_OBJECTS: "content", compare.SEQUENCE: "sequences", compare.SENTINEL: "sentinel",
    compare.INCOMPARABLE: "content",
}  # fmt: skip
_SHOWN = 10


def from_comparison(differences: Sequence[Difference], *, sentinel_stamped: bool) -> list[Check]:
    """The checks that a comparison of manifest and restored copy answers: all of them, passed or not.

    ``sentinel_stamped``: whether the backup wrote the row at all; without it that check could not run. What could not
    be compared is skipped, unless something of the same check differs: then it failed.
    """
    checks = []
    for name in ("globals", "catalog", "counts", "content", "sequences", "sentinel"):
        mine = [each for each in differences if _CHECK_OF.get(each.kind, "catalog") == name]
        real = [each for each in mine if each.kind != compare.INCOMPARABLE]
        if real:
            shown = [str(each) for each in real[:_SHOWN]]
            more = [f"and {len(real) - _SHOWN} more"] if len(real) > _SHOWN else []
            checks.append(Check(name, FAILED, REQUIRED[name], "; ".join(shown + more)))
        elif mine:
            checks.append(Check(name, SKIPPED, REQUIRED[name], f"not comparable: {mine[0]}"))
        elif name == "sentinel" and not sentinel_stamped:
            checks.append(Check(name, SKIPPED, REQUIRED[name], "the backup stamped no sentinel"))
        else:
            checks.append(Check(name, PASSED, REQUIRED[name]))
    return checks


def clock_check(taken: datetime, now: datetime, *, skew: timedelta = timedelta(minutes=5)) -> Check:
    """Whether ``taken`` can be: a snapshot from the future cannot be given an age, so nothing can be said on RPO."""
    ahead = taken - now
    if ahead > skew:
        seconds = int(ahead.total_seconds())
        reason = f"the snapshot is dated {seconds} s in the future: one of the two hosts has a wrong clock"
        return Check("clock", SKIPPED, REQUIRED["clock"], reason)
    return Check("clock", PASSED, REQUIRED["clock"])


@dataclass(frozen=True)
class Tier:
    """A recovery tier: its targets in seconds (requirements: RTO and RPO)."""

    name: str
    rto_s: int
    rpo_s: int


TIERS: Mapping[str, Tier] = {
    each.name: each
    for each in (Tier("startup", 4 * 3600, 24 * 3600), Tier("growth", 3600, 3600), Tier("enterprise", 15 * 60, 0))
}


@dataclass(frozen=True)
class Steps:
    """How long a drill's steps took, in milliseconds."""

    fetch_ms: int
    decrypt_ms: int
    restore_ms: int
    verify_ms: int

    @property
    def total_ms(self) -> int:
        """All of them: who restores for real checks as well before letting users in."""
        return self.fetch_ms + self.decrypt_ms + self.restore_ms + self.verify_ms


@dataclass(frozen=True)
class Recovery:
    """Measured RTO and RPO beside the targets.

    ``rpo_now_ms``: data that would be lost had the disaster come at the time of the drill. ``rpo_worst_ms``: had it come
    at the worst moment: one interval after the last snapshot plus the time until the next backup is whole.
    """

    tier: str
    rto_ms: int
    rto_target_ms: int
    rpo_now_ms: int
    rpo_worst_ms: int
    rpo_target_ms: int
    misses: tuple[str, ...] = ()


def recovery(
    tier: str,
    steps: Steps,
    *,
    drilled: datetime,
    taken: datetime,
    finished: datetime,
    interval: timedelta,
    target: Tier | None = None,
) -> Recovery:
    """RTO and RPO of a proved backup against its tier.

    ``drilled``: when the drill began; ``taken``/``finished``: snapshot and end of the backup that was proved (an older one
    than the newest, where that failed: its age then is the effective RPO); ``interval``: between two backups;
    ``target``: targets of the user's own, in place of the tier's.
    Raises InputError for an unknown tier or times that cannot be.
    """
    if tier not in TIERS:
        raise InputError(f"unknown recovery tier '{tier}'", f"one of: {', '.join(TIERS)}")
    if finished < taken or interval <= timedelta(0):
        raise InputError("the backup ended before it began, or its interval is not positive", "times as measured")
    target = target or TIERS[tier]
    now_ms = max(0, _ms(drilled - taken))
    worst_ms = max(now_ms, _ms(interval) + _ms(finished - taken))
    misses = []
    if steps.total_ms > target.rto_s * 1000:
        misses.append(f"RTO {span(steps.total_ms)}, target {span(target.rto_s * 1000)}: restore takes too long")
    if worst_ms > target.rpo_s * 1000:
        misses.append(
            f"RPO {span(worst_ms)} at worst (now {span(now_ms)}), target {span(target.rpo_s * 1000)}: "
            + ("dumps alone cannot reach it" if target.rpo_s == 0 else "back up more often")
        )
    return Recovery(
        tier, steps.total_ms, target.rto_s * 1000, now_ms, worst_ms, target.rpo_s * 1000, tuple(misses)
    )  # fmt: skip


def _ms(span: timedelta) -> int:
    return span // timedelta(milliseconds=1)


def span(milliseconds: int) -> str:
    """``4 h``, ``1 h 05 min``, ``3 min 20 s``, ``1.4 s``, ``0``."""
    seconds = milliseconds // 1000
    if milliseconds < 60_000:
        return f"{milliseconds / 1000:.1f} s" if milliseconds else "0"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02} s"
    hours, minutes = seconds // 3600, seconds % 3600 // 60
    return f"{hours} h {minutes:02} min" if minutes else f"{hours} h"
