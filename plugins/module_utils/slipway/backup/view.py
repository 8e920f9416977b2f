# SPDX-License-Identifier: Apache-2.0
"""Backups for a terminal and for programs: the table, one backup in full, and whether all is as it should be. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Any

from .config import Config
from .keeping.listing import Listed, Listing
from .taking.runs import Run
from .verdict import span

_BARS = "▁▂▃▄▅▆▇█"
SHRUNK = 0.5  # of the median of those before it: less is a warning


@dataclass(frozen=True)
class Row:
    """One line of the list. ``bytes``: in the store; ``proof``: ``none``, ``proved``, ``failed`` or ``inconclusive``."""

    id: str
    taken: datetime
    bytes: int
    duration_ms: int
    held_ms: int
    databases: int
    proof: str = "unknown"
    held: str = ""
    problem: str = ""
    notes: tuple[str, ...] = ()

    def to_dict(self, now: datetime) -> dict[str, Any]:
        """Plain data, with its age in seconds."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        taken = self.taken.isoformat().replace("+00:00", "Z")
        return {**plain, "taken": taken, "notes": list(self.notes), "age_s": int((now - self.taken).total_seconds())}


def from_store(found: Listing) -> list[Row]:
    """The rows of a listing, newest first."""
    return [
        Row(
            each.id, each.taken, each.bytes, each.duration_ms, each.held_ms,
            len(each.manifest.contents.databases) if each.manifest else 0, each.proof, each.held, each.problem, each.notes,
        )
        for each in found.backups
    ]  # fmt: skip


def from_runs(runs: Sequence[Run]) -> list[Row]:
    """The rows by what this host recorded, newest first: whether the store still has them, it cannot say."""
    return [
        Row(
            each.id, each.taken or each.started, each.stored_bytes, each.duration_ms, each.held_ms, len(each.databases),
            problem=each.reason, notes=each.warnings,
        )
        for each in reversed(runs)
    ]  # fmt: skip


def size(count: float) -> str:
    """``17 B``, ``1.4 GB``: thousands, as disks and stores are sold."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


def sparkline(values: Sequence[float]) -> str:
    """Bars from 0 to the largest of them, one a value; empty where there is nothing to compare."""
    top = max(values, default=0)
    if top <= 0:
        return ""
    return "".join(_BARS[min(len(_BARS) - 1, int(value / top * (len(_BARS) - 1) + 0.5))] for value in values)


def table(rows: Sequence[Row], now: datetime, *, source: str) -> str:
    """The list for a terminal. ``source``: where it was read from, in words."""
    if not rows:
        return f"There is no backup (looked at: {source})."
    lines = [f"{'backup':<40} {'taken (UTC)':<16} {'age':>10} {'size':>8} {'took':>11} {'held':>11}  proof"]
    for row in rows:
        age = span(max(0, int((now - row.taken).total_seconds())) // 60 * 60_000)
        proof = "not whole" if row.problem else {"none": "not drilled yet", "unknown": "?"}.get(row.proof, row.proof)
        lines.append(
            f"{row.id:<40} {row.taken:%Y-%m-%d %H:%M} {age:>10} {size(row.bytes):>8} {span(row.duration_ms):>11} "
            f"{span(row.held_ms):>11}  {proof}" + (f" (held: {row.held})" if row.held else "")
        )
        lines += [f"    {text}" for text in ((row.problem,) if row.problem else ()) + row.notes]
    whole = [row.bytes for row in reversed(rows) if not row.problem][-60:]
    bars = sparkline(whole)
    lines.append(f"{len(whole)} whole, {size(sum(row.bytes for row in rows))} in all; by {source}")
    if len(whole) > 1 and bars:
        lines.append(f"sizes {bars} {size(min(whole))} to {size(max(whole))}")
    return "\n".join(lines)


def full(backup: Listed) -> str:
    """One backup for a terminal."""
    lines = [f"{backup.id}  {'whole' if backup.whole else 'NOT WHOLE: ' + backup.problem}"]
    lines.append(f"proof    {backup.proof}" + (f"; held: {backup.held}" if backup.held else ""))
    lines += [f"note     {text}" for text in backup.notes]
    if (made := backup.manifest) is None:
        return "\n".join(lines)
    lines += [
        f"taken    {made.taken:%Y-%m-%d %H:%M:%S} UTC on {made.host}, PostgreSQL {made.contents.cluster.version}",
        f"took     {span(backup.duration_ms)}, snapshot held {span(backup.held_ms)}",
        f"tools    {', '.join(f'{name} {version}' for name, version in sorted(made.tools.items()))}",
        f"to       {len(made.recipients)} age recipients ({', '.join(made.recipients)})",
        f"left out {', '.join(made.left_out) or 'nothing'}; listed nowhere: {', '.join(made.unlisted) or 'nothing'}",
    ]
    for database in made.contents.databases:
        rows, sampled = (
            sum(table.rows for table in database.tables),
            sum(bool(table.sample) for table in database.tables),
        )
        lines.append(
            f"database {database.name}: {size(database.bytes)}, {len(database.tables)} tables, {rows} rows, "
            f"LSN {database.snapshot.lsn}" + (f", {sampled} tables hashed in part" if sampled else "")
        )
        lines += [f"         not checked: {text}" for text in database.unchecked]
    for each in made.objects:
        lines.append(f"object   {each.key.rpartition('/')[2]:<32} {size(each.size):>8}  SHA-256 {each.sha256}")
    return "\n".join(lines)


@dataclass(frozen=True)
class Judgement:
    """What ``check`` found. ``problems`` make it fail; ``warnings`` are to be looked at."""

    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    newest: str = ""
    age_s: int = -1
    limit_s: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {**self.__dict__, "problems": list(self.problems), "warnings": list(self.warnings), "good": not self.problems}  # fmt: skip


def judge(config: Config, rows: Sequence[Row], runs: Sequence[Run], now: datetime) -> Judgement:
    """Whether backups are as they should be: the newest young enough and not suddenly small. Pure.

    ``rows``: newest first, from the store or from the runs. Too old is one interval and the longest a run may take, or
    the tier's recovery point where the dumps alone have to hold it.
    """
    limit = config.interval_s + config.longest_s
    target = config.targets().rpo_s
    if target > config.interval_s:
        limit = min(limit, target)
    whole = [row for row in rows if not row.problem]
    warnings = []
    if runs and not runs[-1].good:
        warnings.append(f"The last run ({runs[-1].id}) failed: {runs[-1].reason}")
    if not whole:
        return Judgement(("There is no whole backup.",), tuple(warnings), limit_s=limit)
    newest = whole[0]
    age = int((now - newest.taken).total_seconds())
    problems = []
    if age > limit:
        problems.append(
            f"The newest whole backup ({newest.id}) is {span(age // 60 * 60_000)} old, limit {span(limit * 1000)}."
        )
    if age < -300:
        problems.append(f"The newest backup ({newest.id}) is dated {-age} s in the future: a clock is wrong.")
    before = [row.bytes for row in whole[1:6]]
    if before and newest.bytes < SHRUNK * median(before):
        warnings.append(
            f"The newest backup is {size(newest.bytes)}, those before it about {size(median(before))}: has data been lost?"
        )
    warnings += [f"{newest.id}: {text}" for text in newest.notes]
    if newest.proof == "failed":
        problems.append(f"The drill of the newest backup ({newest.id}) failed.")
    return Judgement(tuple(problems), tuple(warnings), newest.id, age, limit)
