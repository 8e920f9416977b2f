# SPDX-License-Identifier: Apache-2.0
"""A climb as its host remembers it: one file a climb, replaced whole, so that a run after a crash knows where to go on.

Files are ``/var/lib/slipway/climbs/<time>-<climb>.json``. A record without a result is open, and there is at most one open
record for each kind of climb. When it ends, the host's journal gets a line.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .. import atomic, journal
from ..errors import InputError, SlipwayError
from .operator import Operator
from .plan import PHASES

FOLDER = Path("/var/lib/slipway/climbs")
FORMAT = 1
DONE = "done"


class RecordError(SlipwayError):
    """A record of a climb cannot be read, or does not allow what was asked."""


@dataclass
class Phase:
    """One phase as it went; times as UTC text, ``ended`` empty while it runs or where a crash cut it off.

    ``run``: the run of the playbook that began it (:mod:`.operator`).
    """

    name: str
    started: str
    who: str
    ended: str = ""
    run: str = ""


@dataclass
class Record:
    """One climb from its first phase after the plan to its end. ``plan`` as it was shown; ``facts`` are what it measured."""

    id: str
    climb: str
    host: str
    started: str
    plan: dict[str, Any]
    phases: list[Phase] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    result: str = ""
    ended: str = ""
    format: int = FORMAT

    @property
    def open(self) -> bool:
        """Whether it has not ended."""
        return not self.result

    @property
    def phase(self) -> str:
        """The phase in hand, or the last one."""
        return self.phases[-1].name if self.phases else ""

    @property
    def run(self) -> str:
        """The run that has it in hand, or had."""
        return self.phases[-1].run if self.phases else ""

    @property
    def reached(self) -> int:
        """How far it came in :data:`PHASES`, over all its runs: the place of the furthest phase that was begun."""
        return max((PHASES.index(phase.name) for phase in self.phases), default=0)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, with ``open``, ``phase`` and ``run``."""
        return {**asdict(self), "open": self.open, "phase": self.phase, "run": self.run}


def _parse(path: Path) -> Record:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        phases = [Phase(**phase) for phase in raw.pop("phases")]
        found = Record(**{name: raw[name] for name in Record.__dataclass_fields__ if name in raw}, phases=phases)
        if found.format != FORMAT:
            raise ValueError(f"format {found.format}")
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError(
            f"{path} cannot be read ({error})",
            "the JSON that Slipway wrote",
            f"look at what it says, then move it away ('mv {path} /root/') and run the climb again",
        ) from error
    return found


class Records:
    """The records of one host. ``folder`` and ``log`` are a test's own in tests."""

    def __init__(self, folder: Path = FOLDER, log: Path = Path(journal.JOURNAL)) -> None:
        self.folder, self.log = folder, log

    def all(self, climb: str = "") -> list[Record]:
        """Every record (of one kind of climb), oldest first. Raises RecordError, OSError."""
        paths = sorted(self.folder.glob("[0-9]*.json"))
        return [record for record in map(_parse, paths) if climb in ("", record.climb)]

    def open_one(self, climb: str) -> Record | None:
        """The climb that has begun and not ended. Raises RecordError, OSError."""
        return next((record for record in reversed(self.all(climb)) if record.open), None)

    def others(self, climb: str) -> list[str]:
        """Climbs of other kinds that have begun and not ended. Raises RecordError, OSError."""
        return sorted({record.climb for record in self.all() if record.open and record.climb != climb})

    def enter(
        self, climb: str, phase: str, *, who: str, now: datetime, host: str = "", plan: Mapping[str, Any] | None = None,
        run: str = "", after: str = "",
    ) -> Record:  # fmt: skip
        """Begin a phase: of the open record, or of a new one, which takes a ``plan``. On disk when it returns.

        ``run``: whose hands it is in from now on. ``after``: the run in whose hands it was seen, and may be taken from.
        Raises RecordError where there is neither an open record nor a plan, where it is in other hands, and where another
        climb has begun; InputError for an unknown phase.
        """
        if phase not in PHASES:
            raise InputError(f"There is no phase '{phase}'", f"one of: {', '.join(PHASES)}")
        at = journal.stamp(now.timestamp())
        with self._alone():
            record = self.open_one(climb)
            if record is None:
                if plan is None:
                    raise RecordError(
                        f"No climb {climb} is at work on this host", "one that has begun", "run its playbook"
                    )
                for other in self.others(climb):
                    raise RecordError(
                        f"The climb {other} has begun on this host and not ended", "one climb at a time",
                        f"run playbooks/grow/{other}.yml to its end, then this again",
                    )  # fmt: skip
                name = f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{climb}"
                record = Record(name, climb, host, at, dict(plan))
            elif record.phases:
                if record.run not in ("", run, after):
                    last = record.phases[-1]
                    raise RecordError(
                        f"The climb {climb} is in other hands: {last.who} runs it from {_machine(last.run)} "
                        f"(phase {last.name}, since {last.started})",
                        "one run at a time",
                        "let that one go on; when it has ended, run this again",
                    )
                self._leave(record, at)
            record.phases.append(Phase(phase, at, who, run=run))
            self._write(record)
        return record

    def end(
        self, climb: str, *, who: str, now: datetime, result: str = DONE, facts: Mapping[str, Any] | None = None
    ) -> Record:
        """End the open record, and tell the journal. Raises RecordError where none is open, OSError.

        The journal comes first: a crash between the two leaves the record open, and the next run ends it again.
        """
        record = self.open_one(climb)
        if record is None:
            raise RecordError(f"No climb {climb} is at work on this host", "one that has begun", "run its playbook")
        record.ended, record.result = journal.stamp(now.timestamp()), result
        record.facts.update(facts or {})
        self._leave(record, record.ended)
        journal.append(
            self.log, at=now.timestamp(), who=who, what="climb", climb=climb, id=record.id, result=result,
            started=record.started,
        )  # fmt: skip
        self._write(record)
        return record

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Between reading a record and writing it, nobody else does."""
        self.folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    @staticmethod
    def _leave(record: Record, at: str) -> None:
        last = record.phases[-1] if record.phases else None
        if last is not None and not last.ended:
            last.ended = at

    def _write(self, record: Record) -> None:
        self.folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        text = json.dumps(asdict(record), indent=1, ensure_ascii=False) + "\n"
        atomic.replace(self.folder / f"{record.id}.json", text.encode(), 0o640)


def _machine(run: str) -> str:
    found = Operator.parse(run)
    return found.name if found else "another machine"


def status(records: Records) -> dict[str, Any]:
    """What ``slipway status`` tells: the climb at work, if any, and those done, newest last. Raises RecordError, OSError."""
    known = records.all()
    at_work = next((record for record in reversed(known) if record.open), None)
    done = [
        {"climb": one.climb, "id": one.id, "ended": one.ended, "result": one.result} for one in known if not one.open
    ]
    open_one = None
    if at_work is not None:
        open_one = {"climb": at_work.climb, "id": at_work.id, "phase": at_work.phase, "started": at_work.started}
    return {"open": open_one, "done": done[-10:]}


def line(found: Mapping[str, Any]) -> str:
    """The same on one line; empty on a host that never climbed."""
    if at_work := found["open"]:
        return f"climb: {at_work['climb']} stopped in the phase {at_work['phase']} (begun {at_work['started']}), or is at work: run its playbook again"
    if found["done"]:
        last = found["done"][-1]
        return f"climb: the last was {last['climb']}, {last['result']} {last['ended']}"
    return ""
