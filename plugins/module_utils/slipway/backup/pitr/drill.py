# SPDX-License-Identifier: Apache-2.0
"""A drill of point-in-time recovery: go back to a chosen second, and prove that it is that second.

Rows (marks) are written to the live server before and after the second. In the copy the first must be there and the
second must not: anything else would mean that the time on the restore's label is not the time in it.
"""

from __future__ import annotations

import hashlib
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from ...commands import run
from ...errors import SlipwayError
from ...postgres import server as pgserver
from .. import config
from ..drills.evidence import Drill, Tried, as_tried
from ..verdict import FAILED, PASSED, SKIPPED, TIERS, Check, Recovery, Steps, Tier, clock_check, judge, span
from . import pgbackrest as pitr
from . import run as pitr_run
from . import scratch as pitr_scratch
from .conf import Settings

REQUIRED: Mapping[str, str] = {
    "clock": "the server's clock and this host's agree, so a chosen second means something",
    "archive": "the newest WAL reached the repository, and none is missing between the base backup and the chosen second",
    "restore": "every file of the base backup was fetched, decrypted and matched its checksum",
    "recovery": "PostgreSQL replayed the WAL to the chosen second and opened there",
    "row before": "the row written before the chosen second is there",
    "row after": "the row written after the chosen second is not there",
    "marks": "every earlier mark is there, and none from after the second",
    "databases": "every database can be opened",
    "structure": "pg_amcheck finds no damage in tables and indexes",
}
_NEAR = timedelta(seconds=1)
Say = Callable[[str], None]


@dataclass(frozen=True)
class Marks:
    """The marks around a second as the live server has them: id and time of the last before and the first after it."""

    target: datetime
    before: tuple[int, datetime] | None
    after: tuple[int, datetime] | None
    earlier: frozenset[int]


@dataclass
class _Course:
    """A drill on its way: what was checked so far."""

    checks: list[Check] = field(default_factory=list)
    tried: Tried | None = None
    steps: Steps | None = None
    at_risk: timedelta | None = None
    push: float = 0.0

    def passed(self, name: str, actual: str = "") -> None:
        self.checks.append(Check(name, PASSED, REQUIRED[name], actual))

    def failed(self, name: str, actual: object) -> None:
        self.checks.append(Check(name, FAILED, REQUIRED[name], str(actual)))

    def skipped(self, name: str, why: object) -> None:
        self.checks.append(Check(name, SKIPPED, REQUIRED[name], str(why)))


def run_drill(settings: Settings, by: str, say: Say, target: datetime | None = None, timeline: int = 0) -> Drill:
    """Drill, and give the record. ``target``: a second of the past; None: one between two rows written now.

    Never raises for what it finds, only BusyError where another drill or restore runs.
    """
    started = datetime.now(UTC)
    drill_id = started.strftime("pitr-%Y%m%d-%H%M%S")
    course = _Course()
    with pitr_scratch.alone(f"Drill {drill_id}"):
        try:
            _drill(settings, course, _Wish(drill_id, target, timeline), say)
        except (SlipwayError, OSError) as error:
            done = {each.name for each in course.checks}
            name = next(each for each in REQUIRED if each not in done)
            if isinstance(error, pitr.RangeError) and "archive" in done:
                name = "recovery"
            course.failed(name, error) if isinstance(error, pitr.PitrError) else course.skipped(name, error)
    judged = judge(course.checks, REQUIRED)
    tried = (as_tried(course.tried, judged.verdict, judged.reasons),) if course.tried else ()
    return Drill(
        drill_id, platform.node(), by, started, datetime.now(UTC), judged.verdict, tried, tuple(course.checks), versions(settings),
        course.steps, _recovery(settings, course) if judged.verdict == "proved" else None,
        kind="pitr",
    )  # fmt: skip


@dataclass(frozen=True)
class _Wish:
    drill_id: str
    target: datetime | None
    timeline: int


def _drill(settings: Settings, course: _Course, wish: _Wish, say: Say) -> None:
    target = wish.target
    with pitr_run.connect(settings) as live:
        archiver = pitr_run.archiver(live)
        course.checks.append(_clock(archiver.now))
        course.at_risk = archiver.now - archiver.last_at if archiver.last_at else None
        if target is None:
            say("writing a row before and a row after the chosen second")
            target = write_around(live, wish.drill_id)
        marks = marks_around(live, target, wish.drill_id)
        course.push = pitr_run.flush(live)
        there = {row[0] for row in pgserver.rows(live, "SELECT datname::text FROM pg_database WHERE datallowconn")}
    goal = pitr_run.goal(settings, target, wish.timeline)
    base = goal.base
    course.passed(
        "archive", f"the newest segment took {course.push:.1f} s to arrive; none is missing since {base.label}"
    )
    course.tried = Tried(base.label, settings.host, base.stopped, _manifest_hash(settings, base), {})
    with pitr_scratch.at_time(settings, goal, wish.drill_id, say) as copy:
        begun = time.monotonic()
        course.passed("restore", f"{base.bytes} bytes of {base.label} in {span(copy.fetch_ms)}")
        course.passed("recovery", f"{pitr.shown(target)}; last transaction replayed: {copy.reached}")
        course.steps = Steps(copy.fetch_ms, 0, copy.replay_ms, 0)
        say("looking for what must be there, and for what must not")
        course.checks += judge_marks(marks, _marks_of(copy))
        _databases(course, copy, there if wish.target is None else set())
        _structure(settings, course, copy)
        course.steps = Steps(copy.fetch_ms, 0, copy.replay_ms, int((time.monotonic() - begun) * 1000))


def _clock(server_now: datetime) -> Check:
    off = clock_check(server_now, datetime.now(UTC), skew=timedelta(seconds=5))
    return Check("clock", off.status, REQUIRED["clock"], off.actual)


def write_around(live: Any, drill_id: str) -> datetime:
    """Write a mark, let a whole second pass, write another; the second in between."""
    pitr_run.mark(live, f"{drill_id} before")
    committed = _now(live)  # a later statement: the commit was before this
    target = (committed + timedelta(milliseconds=1300)).replace(microsecond=0)
    while _now(live) <= target + timedelta(milliseconds=200):
        time.sleep(0.1)
    pitr_run.mark(live, f"{drill_id} after")
    return target


def _now(live: Any) -> datetime:
    found: datetime = pgserver.rows(live, "SELECT clock_timestamp()")[0][0]
    return found.astimezone(UTC)


def marks_around(live: Any, target: datetime, drill_id: str) -> Marks:
    """The marks around ``target``. One of others' that was committed within a second of it proves nothing and is left out."""
    if not pgserver.rows(live, "SELECT 1 WHERE to_regclass('slipway.recovery_point') IS NOT NULL"):
        return Marks(target, None, None, frozenset())
    found = pgserver.rows(live, "SELECT id, at, mark FROM slipway.recovery_point ORDER BY id")
    before = [
        (i, at) for i, at, name in found if at < target - (timedelta(0) if name == f"{drill_id} before" else _NEAR)
    ]
    after = [(i, at) for i, at, _ in found if at > target]
    return Marks(target, before[-1] if before else None, after[0] if after else None, frozenset(i for i, _ in before))


def _marks_of(copy: pitr_scratch.Copy) -> dict[int, datetime] | None:
    with copy.connect() as connection:
        if not pgserver.rows(connection, "SELECT 1 WHERE to_regclass('slipway.recovery_point') IS NOT NULL"):
            return None
        return dict(pgserver.rows(connection, "SELECT id, at FROM slipway.recovery_point"))


def judge_marks(live: Marks, copy: Mapping[int, datetime] | None) -> list[Check]:
    """Whether the copy is of that second. Pure."""
    names = ("row before", "row after", "marks")
    if copy is None:
        why = "the copy has no marks: the chosen second is before the first check of this server"
        return [Check(name, SKIPPED, REQUIRED[name], why) for name in names]
    checks = []
    if live.before is None:
        checks.append(Check(names[0], SKIPPED, REQUIRED[names[0]], "the live server has no mark from before it"))
    else:
        there = live.before[0] in copy
        text = f"mark {live.before[0]} of {_exact(live.before[1])} is {'there' if there else 'missing'}"
        checks.append(Check(names[0], PASSED if there else FAILED, REQUIRED[names[0]], text))
    if live.after is None:
        checks.append(Check(names[1], SKIPPED, REQUIRED[names[1]], "the live server has no mark from after it"))
    else:
        there = live.after[0] in copy
        text = f"mark {live.after[0]} of {_exact(live.after[1])} is {'there' if there else 'not there'}"
        checks.append(Check(names[1], FAILED if there else PASSED, REQUIRED[names[1]], text))
    lost = sorted(live.earlier - set(copy))
    late = sorted(i for i, at in copy.items() if at > live.target)
    text = f"{len(copy)} marks"
    if lost or late:
        text = f"{len(lost)} missing {lost[:5]}, {len(late)} from after the second {late[:5]}"
    checks.append(Check(names[2], FAILED if lost or late else PASSED, REQUIRED[names[2]], text))
    return checks


def _exact(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%H:%M:%S.%f")


def _databases(course: _Course, copy: pitr_scratch.Copy, expected: Iterable[str]) -> None:
    with copy.connect() as connection:
        names = [
            row[0]
            for row in pgserver.rows(connection, "SELECT datname::text FROM pg_database WHERE datallowconn ORDER BY 1")
        ]
    if missing := sorted(set(expected) - set(names)):
        course.failed("databases", f"{', '.join(missing)} is not in the copy")
        return
    for name in names:
        try:
            with copy.connect(name) as connection:
                pgserver.rows(connection, "SELECT count(*) FROM pg_class")
        except SlipwayError as error:
            course.failed("databases", error)
            return
    course.passed("databases", ", ".join(names))


def _structure(settings: Settings, course: _Course, copy: pitr_scratch.Copy) -> None:
    program = settings.programs / "pg_amcheck"
    if not program.exists():
        course.skipped("structure", f"{program} is not installed")
        return
    argv = [str(program), "--all", "--install-missing", "-h", copy.server.host, "-p", str(copy.server.port), "-U", copy.server.user,
            f"--jobs={max(1, settings.cores)}"]  # fmt: skip
    done = run(pitr_run.as_postgres(argv), check=False, timeout=None)
    course.passed("structure") if done.ok else course.failed("structure", done.said)


def _manifest_hash(settings: Settings, base: pitr.Base) -> str:
    text = pitr_run.call(
        settings, "--log-level-console=warn", "repo-get", f"backup/{settings.stanza}/{base.label}/backup.manifest"
    )
    return hashlib.sha256(text.stdout.encode()).hexdigest()


def versions(settings: Settings) -> dict[str, str]:
    """The programs a drill relies on."""
    found = {"slipway": _slipway(), "python": platform.python_version()}
    for name, argv in {
        "pgbackrest": ["pgbackrest", "version"],
        "postgresql": [str(settings.programs / "postgres"), "--version"],
    }.items():
        try:
            found[name] = run(argv, timeout=10).stdout.split()[-1 if name == "pgbackrest" else 2]
        except (SlipwayError, IndexError):
            found[name] = "unknown"
    return found


def _slipway() -> str:
    from ... import __version__

    return str(__version__)


def _recovery(settings: Settings, course: _Course) -> Recovery | None:
    if course.steps is None:
        return None
    return recovery(targets(settings), course.steps, course.at_risk, settings.archive_timeout_s, course.push)


def targets(settings: Settings) -> Tier:
    """The user's own recovery targets, where backups on this host are told of any, else the tier's."""
    try:
        return config.load().targets()
    except SlipwayError:
        return TIERS[settings.tier]


def recovery(target: Tier, steps: Steps, at_risk: timedelta | None, archive_timeout_s: int, push_s: float) -> Recovery:
    """RTO and RPO where WAL is archived, beside the targets. Pure.

    ``at_risk``: age of the newest archived WAL when the drill began (None: there was none yet). Worst case: the disaster
    comes just before a segment that was begun ``archive_timeout_s`` ago has arrived, which takes ``push_s``.
    """
    now_ms = int(at_risk.total_seconds() * 1000) if at_risk is not None else archive_timeout_s * 1000
    worst_ms = archive_timeout_s * 1000 + int(push_s * 1000)
    misses = []
    if steps.total_ms > target.rto_s * 1000:
        misses.append(f"RTO {span(steps.total_ms)}, target {span(target.rto_s * 1000)}: restore takes too long")
    if max(now_ms, worst_ms) > target.rpo_s * 1000:
        remedy = (
            "WAL archiving alone cannot reach it: it takes a synchronous standby"
            if target.rpo_s == 0
            else "archive more often"
        )
        misses.append(f"RPO {span(max(now_ms, worst_ms))} at worst, target {span(target.rpo_s * 1000)}: {remedy}")
    return Recovery(
        target.name,
        steps.total_ms,
        target.rto_s * 1000,
        now_ms,
        max(now_ms, worst_ms),
        target.rpo_s * 1000,
        tuple(misses),
    )


def started_by() -> str:
    """Who asked: the login behind sudo, or the timer."""
    return os.environ.get("SUDO_USER") or ("timer" if os.environ.get("INVOCATION_ID") else "root")
