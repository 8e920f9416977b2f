# SPDX-License-Identifier: Apache-2.0
"""Which backups may go: pure, and careful in one direction only. A doubt always keeps.

The rules, in the order in which they win:

1. Nothing goes while nothing newer is proved: only a backup *older* than the newest proved one may go, so the newest
   proved one never does.
2. Nothing goes while backups have stopped (``stalled_hours``): old ones are then all there is.
3. Nothing goes that is held, locked in the store, or dated in the future (somebody's clock is wrong).
4. Of the usable ones the newest ``minimum`` stay, everything of the last ``recent_hours``, and one for each of the last
   ``daily`` days, ``weekly`` ISO weeks, ``monthly`` months and ``yearly`` years *that have one*. Counting periods that
   have a backup rather than calendar days is what keeps a pause from ageing everything out.
5. What is left goes. A run without a manifest, or a backup whose drill failed, takes nobody's place in rule 4; it goes
   once it is older than ``failed_days``.

Days, weeks, months and years are those of UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from ...errors import InputError

Proof = Literal["none", "proved", "failed", "inconclusive"]


@dataclass(frozen=True)
class Backup:
    """One backup as the store and the drills know it.

    ``taken``: time of its snapshot, with a timezone. ``complete``: its manifest is there. ``proof``: verdict of its
    *latest* drill, so a backup that was proved once and failed later counts as failed. ``locked_until``: retention set
    in the store. ``held``: why a person or a playbook keeps it (``before split_db``); empty if nobody does.
    """

    id: str
    taken: datetime
    complete: bool = True
    proof: Proof = "none"
    locked_until: datetime | None = None
    held: str = ""

    @property
    def usable(self) -> bool:
        """Whether it may take a place among the kept ones."""
        return self.complete and self.proof != "failed"


@dataclass(frozen=True)
class Keeps:
    """How much to keep. The default: 30 days, then 8 weeks and 12 months, and never fewer than 7."""

    recent_hours: int = 48
    daily: int = 30
    weekly: int = 8
    monthly: int = 12
    yearly: int = 0
    minimum: int = 7
    failed_days: int = 30
    stalled_hours: int = 72
    skew_minutes: int = 5

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise InputError(f"retention {each.name} is {value!r}", "a whole number, 0 or more")
        if self.minimum < 1:
            raise InputError(
                "retention minimum is 0", "at least 1", "set it to the number of backups never to go below"
            )
        if self.stalled_hours < 1:
            raise InputError("retention stalled_hours is 0", "at least 1: more than the interval between two backups")


@dataclass(frozen=True)
class Decision:
    """What happens to one backup, and every reason for it."""

    backup: Backup
    keep: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """A decision per backup, newest first. ``paused``: why nothing at all may go; empty if pruning is on."""

    decisions: tuple[Decision, ...]
    paused: str = ""

    @property
    def kept(self) -> tuple[Backup, ...]:
        """What stays, newest first."""
        return tuple(d.backup for d in self.decisions if d.keep)

    @property
    def removed(self) -> tuple[Backup, ...]:
        """What goes, newest first."""
        return tuple(d.backup for d in self.decisions if not d.keep)

    def to_dict(self) -> dict[str, Any]:
        """Plain data: ``{paused, keep: [{id, reasons}], remove: [{id, reasons}]}``."""
        rows: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
        for decision in self.decisions:
            rows[decision.keep].append({"id": decision.backup.id, "reasons": list(decision.reasons)})
        return {"paused": self.paused, "keep": rows[True], "remove": rows[False]}


# Setting, noun, what is the same for all of a period, and how that is written.
_PERIODS: tuple[tuple[str, str, Callable[[datetime], tuple[int, ...]], str], ...] = (
    ("daily", "day", lambda at: (at.year, at.month, at.day), "{:04}-{:02}-{:02}"),
    ("weekly", "week", lambda at: at.isocalendar()[:2], "{}-W{:02}"),
    ("monthly", "month", lambda at: (at.year, at.month), "{:04}-{:02}"),
    ("yearly", "year", lambda at: (at.year,), "{:04}"),
)


def plan(backups: Iterable[Backup], keeps: Keeps, now: datetime) -> Plan:
    """Decide on every backup of one host. Pure; the same input in any order gives the same plan.

    Raises InputError for a time without a timezone or an id that occurs twice.
    """
    _aware("now", now)
    found = sorted(backups, key=lambda b: (_aware(f"backup {b.id}", b.taken), b.id), reverse=True)
    seen: set[str] = set()
    for backup in found:
        if backup.id in seen:
            raise InputError(f"backup {backup.id} is listed twice", "each id once")
        seen.add(backup.id)
    horizon = now + timedelta(minutes=keeps.skew_minutes)
    present = [b for b in found if b.taken <= horizon]
    usable = [b for b in present if b.usable]
    proved = next((b for b in usable if b.proof == "proved"), None)
    chosen = _chosen(usable, keeps, now)
    paused = _pause(found, usable, proved, keeps, now)
    decisions = []
    for backup in found:
        reasons = chosen.get(backup.id, [])
        if backup.taken > horizon:
            reasons = [f"dated in the future ({_clock(backup.taken)}): a clock is wrong"]
        if backup is proved:
            reasons = ["newest proved", *reasons]
        elif proved and backup.taken >= proved.taken and not reasons:
            reasons = [f"nothing newer is proved (the newest proved is {proved.id})"]
        if backup.held:
            reasons = [*reasons, f"held: {backup.held}"]
        if backup.locked_until and _aware(f"lock of {backup.id}", backup.locked_until) > now:
            reasons = [*reasons, f"locked until {_clock(backup.locked_until)}"]
        if not backup.usable and backup.taken > now - timedelta(days=keeps.failed_days):
            reasons = [*reasons, f"{_fault(backup)}; kept {keeps.failed_days} days for a look"]
        if paused and not reasons:
            reasons = [paused]
        if reasons:
            decisions.append(Decision(backup, True, tuple(reasons)))
        else:
            decisions.append(Decision(backup, False, (_farewell(backup, proved, keeps),)))
    return Plan(tuple(decisions), paused)


def _chosen(usable: Sequence[Backup], keeps: Keeps, now: datetime) -> dict[str, list[str]]:
    """Backup id to the reasons that the keeps give it; ``usable`` is newest first."""
    reasons: dict[str, list[str]] = {}
    for place, backup in enumerate(usable, 1):
        if place <= keeps.minimum:
            reasons.setdefault(backup.id, []).append(f"one of the newest {keeps.minimum}")
        if backup.taken > now - timedelta(hours=keeps.recent_hours):
            reasons.setdefault(backup.id, []).append(f"of the last {keeps.recent_hours} h")
    taken = [(backup, backup.taken.astimezone(UTC)) for backup in usable]
    for setting, noun, period_of, form in _PERIODS:
        groups: dict[tuple[int, ...], list[Backup]] = {}
        for backup, at in taken:
            period = period_of(at)
            if period not in groups and len(groups) >= getattr(keeps, setting):
                break  # every other is older
            groups.setdefault(period, []).append(backup)
        for period, group in groups.items():
            reasons.setdefault(_best(group, setting).id, []).append(f"{noun} {form.format(*period)}")
    return reasons


def _best(group: Sequence[Backup], setting: str) -> Backup:
    """The one that stands for its period: a day's newest; for longer periods a proved one is worth more."""
    if setting == "daily":
        return group[0]
    return next((b for b in group if b.proof == "proved"), group[0])


def _pause(
    found: Sequence[Backup], usable: Sequence[Backup], proved: Backup | None, keeps: Keeps, now: datetime
) -> str:
    """Why nothing may go at all, or an empty string."""
    if found and not usable:
        return "there is no usable backup: nothing goes"
    if found and proved is None:
        return "no backup is proved: nothing goes until a drill has proved one"
    if usable and usable[0].taken < now - timedelta(hours=keeps.stalled_hours):
        age = round((now - usable[0].taken).total_seconds() / 3600)
        return f"backups have stopped (the newest is {age} h old, limit {keeps.stalled_hours} h): nothing goes"
    return ""


def _fault(backup: Backup) -> str:
    return "its drill failed" if backup.complete else "unfinished run, no manifest"


def _farewell(backup: Backup, proved: Backup | None, keeps: Keeps) -> str:
    why = "no keep asks for it" if backup.usable else f"{_fault(backup)}, older than {keeps.failed_days} days"
    return f"{why}; newer and proved: {proved.id if proved else '-'}"


def _aware(what: str, at: datetime) -> datetime:
    if at.tzinfo is None:
        raise InputError(f"the time of {what} ({at}) has no timezone", "a time with a timezone, best UTC")
    return at


def _clock(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%MZ")


def render(result: Plan) -> str:
    """The plan for a terminal: one line a backup, newest first, then the sum."""
    lines = []
    width = max((len(d.backup.id) for d in result.decisions), default=0)
    for decision in result.decisions:
        verb = "keep  " if decision.keep else "remove"
        proof = "" if decision.backup.proof == "none" else f" [{decision.backup.proof}]"
        why = "; ".join(decision.reasons)
        lines.append(f"{verb} {decision.backup.id:<{width}} {_clock(decision.backup.taken)}{proof}  {why}")
    lines.append(
        f"{len(result.kept)} kept, {len(result.removed)} to remove" + (f"; {result.paused}" if result.paused else "")
    )
    return "\n".join(lines)
