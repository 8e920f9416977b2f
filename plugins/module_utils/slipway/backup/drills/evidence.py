# SPDX-License-Identifier: Apache-2.0
"""Evidence of drills: one record a line, each holding the hash of the one before it.

Changing, dropping, adding or swapping a record breaks the chain at that place. What a chain alone cannot show is that
its *end* was cut off, or that all of it was written anew: for that, heads that were noted elsewhere (the bucket, where
records are locked; the journal) are given to :func:`verify_chain` as anchors. A drill host that was made anew begins a
chain anew; what became of the one before is a record too (:class:`Earlier`).

Records hold ids, hashes, counts, times and names; no row data. What people add later (remediation, sign-off) is a
record of its own, since a record is never written twice.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from ..codec import FormatError, canonical, decode, parse_json
from ..verdict import Check, Recovery, Steps

FORMAT = 1
GENESIS = "0" * 64


@dataclass(frozen=True)
class Tried:
    """A backup that a drill took: its id and snapshot time, the SHA-256 of its manifest and of each object fetched."""

    backup_id: str
    host: str
    taken: datetime
    manifest_sha256: str
    objects: Mapping[str, str] = field(default_factory=dict)
    verdict: str = "inconclusive"
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Drill:
    """One drill. ``tried``: newest first; ``verdict`` and ``checks`` are those of the last one, the one it settled on.

    ``started_by``: ``timer``, ``playbook`` or a person's name; ``versions``: program -> version on the drill host.
    ``recovery`` is None where nothing was proved and so nothing can be promised. ``notes``: what a person should know
    though it decides nothing: a backup hidden by a delete marker, a database that nobody listed. ``kind``: what was drilled,
    a ``dump`` or point-in-time recovery (``pitr``): one says nothing on the other. ``findings``: what is not as the settings ask
    for though the backup was brought back, such as a missing lock; it alarms.
    """

    drill_id: str
    host: str
    started_by: str
    started: datetime
    finished: datetime
    verdict: str
    tried: tuple[Tried, ...]
    checks: tuple[Check, ...]
    versions: Mapping[str, str]
    steps: Steps | None = None
    recovery: Recovery | None = None
    notes: tuple[str, ...] = ()
    kind: str = "dump"
    findings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in ("dump", "pitr"):
            raise FormatError(f"'{self.kind}' is no kind of drill", "dump or pitr")
        if self.verdict not in ("proved", "failed", "inconclusive"):
            raise FormatError(f"'{self.verdict}' is no verdict", "proved, failed or inconclusive")
        if self.verdict == "proved" and not self.tried:
            raise FormatError("a drill without a backup is said to be proved", "the backup it proved")


@dataclass(frozen=True)
class Note:
    """What people add to a drill afterwards: what was done about it, and who signs it off."""

    about: str  # drill id
    by: str
    remediation: str = ""
    sign_off: str = ""


@dataclass(frozen=True)
class Earlier:
    """A chain that went before this one on a host that was made anew: its name and head as the copies in the store have them.

    A person vouches for it (``by``, ``reason``): a chain that is gone is otherwise a chain that somebody made away with.
    """

    chain: str
    number: int
    sha256: str
    by: str
    reason: str


@dataclass(frozen=True)
class Record:
    """A link of the chain: its number from 1, the hash of the link before it, and a drill, a note or an earlier chain."""

    number: int
    at: datetime
    previous: str
    drill: Drill | None = None
    note: Note | None = None
    earlier: Earlier | None = None
    format: int = FORMAT

    def __post_init__(self) -> None:
        if [self.drill, self.note, self.earlier].count(None) != 2:
            raise FormatError("a record holds a drill, a note or an earlier chain", "exactly one of them")


@dataclass(frozen=True)
class Head:
    """The end of a chain as it was at some time: what to note elsewhere as an anchor."""

    number: int
    sha256: str


@dataclass(frozen=True)
class Chain:
    """A chain as read: its records as far as they can be read, its head, and all that is wrong with it.

    ``digests``: the hash of each of ``records``, as in its line: older records lack fields that newer ones have.
    """

    records: tuple[Record, ...]
    head: Head
    problems: tuple[str, ...]
    digests: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong with it."""
        return not self.problems


EMPTY = Head(0, GENESIS)
Content = Drill | Note | Earlier
"""What a record can hold."""


def seal(content: Content, at: datetime, after: Head = EMPTY) -> tuple[bytes, Head]:
    """The line of a new record that follows ``after``, and the new head. Pure."""
    drill = content if isinstance(content, Drill) else None
    note = content if isinstance(content, Note) else None
    earlier = content if isinstance(content, Earlier) else None
    record = Record(after.number + 1, at, after.sha256, drill, note, earlier)
    digest = hashlib.sha256(canonical(record)).hexdigest()
    return canonical({"record": record, "sha256": digest}) + b"\n", Head(record.number, digest)


def verify_chain(lines: Iterable[bytes], anchors: Sequence[Head] = ()) -> Chain:
    """Read a chain and say everything that is wrong with it. Never raises.

    ``anchors``: heads noted elsewhere; each must be found at its number.
    """
    records: list[Record] = []
    digests: list[str] = []
    problems: list[str] = []
    hashes: dict[int, str] = {0: GENESIS}
    head = EMPTY
    for place, line in enumerate(lines, 1):
        try:
            record, digest = _read(line, f"record {place}")
        except FormatError as error:
            problems.append(str(error))
            head = Head(head.number + 1, "unreadable")
            continue
        if record.number != head.number + 1:
            problems.append(
                f"Line {place} is record {record.number}, expected {head.number + 1}: dropped, added or swapped."
            )
        elif record.previous != head.sha256:
            problems.append(f"Record {record.number} does not follow the record before it: one of them was exchanged.")
        elif records and record.at < records[-1].at:
            problems.append(f"Record {record.number} is dated before the record before it.")
        records.append(record)
        digests.append(digest)
        head = Head(record.number, digest)
        hashes[record.number] = digest
    for anchor in anchors:
        if anchor.number not in hashes:
            problems.append(f"Record {anchor.number}, noted elsewhere, is gone: the chain was cut or never had it.")
        elif hashes[anchor.number] != anchor.sha256:
            problems.append(f"Record {anchor.number} is not the one that was noted elsewhere: it was written anew.")
    return Chain(tuple(records), head, tuple(problems), tuple(digests))


def _read(line: bytes, where: str) -> tuple[Record, str]:
    if not line.endswith(b"\n"):
        raise FormatError(f"{where} is cut off", "a whole line")
    data = parse_json(line, where)
    if not isinstance(data, dict) or set(data) != {"record", "sha256"}:
        raise FormatError(f"{where} is no record", "an object with 'record' and 'sha256'")
    body: Any = data["record"]
    try:
        digest = hashlib.sha256(canonical(body)).hexdigest()
        same = canonical(data) + b"\n" == line
    except TypeError as error:
        raise FormatError(f"{where} was altered: {error}", "the line as it was written") from error
    if digest != data["sha256"] or not same:
        raise FormatError(f"{where} does not match its own hash: it was altered", "the line as it was written")
    return decode(Record, body, where), digest


def load(path: str | Path, anchors: Sequence[Head] = ()) -> Chain:
    """:func:`verify_chain` of a file; a missing file is an empty chain. Raises OSError."""
    try:
        text = Path(path).read_bytes()
    except FileNotFoundError:
        text = b""
    return verify_chain(text.splitlines(keepends=True), anchors)


def append(
    path: str | Path, content: Content, at: datetime, publish: Callable[[int, bytes], object] | None = None
) -> Head:
    """Add a record to a file, under a lock and flushed to disk; the new head, to be noted elsewhere.

    ``publish``: called with number and line before the line is in the file, to put a copy into the bucket; if it raises,
    the record is written all the same and the error raised after: evidence is kept even when the bucket is away.
    A line that a crash cut off was never confirmed to anybody: it is set aside in ``<path>.cut``. A chain that is
    otherwise broken is added to, since hiding a drill would be worse; ``verify-chain`` keeps naming the break.
    Raises OSError.
    """
    target = Path(path)
    target.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    descriptor = os.open(target, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        text = target.read_bytes()
        whole = text.rfind(b"\n") + 1
        if whole < len(text):
            with open(f"{target}.cut", "ab") as aside:
                aside.write(text[whole:] + b"\n")
            os.ftruncate(descriptor, whole)
        line, head = seal(content, at, verify_chain(text[:whole].splitlines(keepends=True)).head)
        failure = _attempt(publish, head.number, line)
        written = 0
        while written < len(line):
            written += os.write(descriptor, line[written:])
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if failure is not None:
        raise failure
    return head


def _attempt(publish: Callable[[int, bytes], object] | None, number: int, line: bytes) -> Exception | None:
    try:
        if publish is not None:
            publish(number, line)
    except Exception as error:
        return error
    return None


def notes_on(chain: Chain, drill_id: str) -> tuple[Note, ...]:
    """What people added to a drill, oldest first."""
    return tuple(each.note for each in chain.records if each.note and each.note.about == drill_id)


def as_tried(tried: Tried, verdict: str, reasons: Sequence[str]) -> Tried:
    """``tried`` with how it went."""
    return replace(tried, verdict=verdict, reasons=tuple(reasons))
