# SPDX-License-Identifier: Apache-2.0
"""What the point-in-time repository holds: base backups, WAL, and so the seconds that can be gone back to. Pure.

WAL is a chain: a second can be reached from a base backup that ended before it, if no segment in between is missing. A
restore to a second forks a new timeline off; the old one stays in the repository and can still be asked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from ... import errors
from ...errors import InputError, SlipwayError
from ..codec import FormatError

_SEGMENT = re.compile(r"^([0-9A-F]{24})-[0-9a-f]{40}(?:\.\w+)?$")
_HISTORY = re.compile(r"^([0-9A-F]{8})\.history$")
ARRIVING = timedelta(minutes=2)
"""Segments are pushed by several processes: one that is missing for so long after its successor came is no gap yet."""


class PitrError(SlipwayError):
    """The repository or the server cannot do what was asked."""


class RangeError(PitrError):
    """The second that was asked for cannot be reached."""


class BusyError(PitrError, errors.BusyError):
    """Another run of pgBackRest holds its lock."""


@dataclass(frozen=True)
class Base:
    """A base backup. ``first``/``last``: the WAL segments it needs; ``damaged``: pages whose checksums were wrong."""

    label: str
    kind: str
    started: datetime
    stopped: datetime
    first: str
    last: str
    bytes: int
    stored_bytes: int
    damaged: bool = False

    @property
    def timeline(self) -> int:
        """The timeline it was taken on."""
        return int(self.first[:8], 16)


@dataclass(frozen=True)
class Info:
    """What pgBackRest says of the stanza. ``code`` 0 is good; ``archive_id`` names the folder of the current cluster's WAL."""

    code: int
    message: str
    backups: tuple[Base, ...] = ()
    archive_id: str = ""
    system_id: int = 0
    version: str = ""


@dataclass(frozen=True)
class Segment:
    """A WAL segment in the repository, and when it arrived."""

    name: str
    at: datetime
    bytes: int


@dataclass(frozen=True)
class Archive:
    """The WAL in the repository: segments by name, and the timelines that have a history file."""

    segments: Mapping[str, Segment]
    histories: tuple[int, ...] = ()

    @property
    def timelines(self) -> tuple[int, ...]:
        """All timelines that WAL is there of, oldest first."""
        return tuple(sorted({int(name[:8], 16) for name in self.segments}))

    @property
    def newest(self) -> Segment | None:
        """The segment that arrived last."""
        return max(self.segments.values(), key=lambda each: (each.at, each.name), default=None)


@dataclass(frozen=True)
class Window:
    """Seconds that can be reached: from the end of the first of ``backups`` to the arrival of the last segment.

    ``missing``: the segment after which the chain is broken; empty where it just ends.
    """

    timeline: int
    start: datetime
    end: datetime
    backups: tuple[Base, ...]
    missing: str = ""

    def __str__(self) -> str:
        return f"{shown(self.start)} to {shown(self.end)}"


@dataclass(frozen=True)
class Goal:
    """Where to go: the second, the base backup to start from, the timeline to follow.

    ``latest``: to the last transaction in the repository, whenever that was; ``target`` is then when it arrived at most.
    """

    target: datetime
    base: Base
    timeline: int
    latest: bool = False

    def __str__(self) -> str:
        return "the end of the WAL in the repository" if self.latest else shown(self.target)


def parse_info(text: str | bytes, stanza: str) -> Info:
    """``pgbackrest --output=json info``. Raises FormatError."""
    found = [each for each in _json(text, "pgBackRest's info") if each.get("name") == stanza]
    if not found:
        return Info(1, "there is no such stanza in the repository")
    one = found[0]
    try:
        status = one["repo"][0]["status"] if one.get("repo") else one["status"]
        current = one["db"][-1] if one.get("db") else {}
        ids = {each["database"]["id"]: each["id"] for each in one.get("archive", ())}
        backups = [_base(each) for each in one.get("backup", ()) if each["database"]["id"] == current.get("id")]
    except (KeyError, TypeError, IndexError) as error:
        raise FormatError(f"pgBackRest's info lacks {error}", "the form of pgBackRest 2.55") from error
    return Info(
        int(status["code"]), str(status["message"]), tuple(sorted(backups, key=lambda each: each.stopped)),
        ids.get(current.get("id"), ""), int(current.get("system-id", 0)), str(current.get("version", "")),
    )  # fmt: skip


def _json(text: str | bytes, what: str) -> Any:
    """pgBackRest puts the lines of an error unescaped into a string: not JSON to the letter. Raises FormatError."""
    try:
        return json.loads(text, strict=False)
    except ValueError as error:
        raise FormatError(f"{what} is not whole JSON ({error})", "what pgBackRest 2.55 writes") from error


def _base(one: Mapping[str, Any]) -> Base:
    info = one["info"]
    return Base(
        one["label"], one["type"], _moment(one["timestamp"]["start"]), _moment(one["timestamp"]["stop"]),
        one["archive"]["start"] or "", one["archive"]["stop"] or "", info["size"],
        info["repository"].get("delta", 0), bool(one.get("error")),
    )  # fmt: skip


def parse_archive(text: str | bytes, archive_id: str) -> Archive:
    """``pgbackrest --output=json --recurse repo-ls archive/<stanza>``: the part of one cluster. Raises FormatError."""
    segments, histories = {}, []
    for path, each in _json(text, "pgBackRest's list of WAL").items():
        folder, _, rest = path.partition("/")
        if folder != archive_id or each.get("type") != "file":
            continue
        name = rest.rpartition("/")[2]
        if found := _SEGMENT.match(name):
            segments[found[1]] = Segment(found[1], _moment(each["time"]), each["size"])
        elif found := _HISTORY.match(name):
            histories.append(int(found[1], 16))
    return Archive(segments, tuple(sorted(histories)))


def parse_history(text: str, timeline: int, segment_mb: int = 16) -> tuple[tuple[int, int], ...]:
    """A timeline's history file as (timeline, number of its last segment, which is no longer its own), oldest first.

    The timeline itself comes last, with no end (a very large number).
    """
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0].isdigit() and re.fullmatch(r"[0-9A-Fa-f]+/[0-9A-Fa-f]+", words[1]):
            high, low = (int(part, 16) for part in words[1].split("/"))
            found.append((int(words[0]), ((high << 32) + low) // (segment_mb * 1024 * 1024)))
    return (*found, (timeline, 1 << 62))


def number(name: str, segment_mb: int = 16) -> int:
    """A segment's place in the stream, counted from 0 and the same on each timeline."""
    return int(name[8:16], 16) * (4096 // segment_mb) + int(name[16:24], 16)


def segment_name(timeline: int, place: int, segment_mb: int = 16) -> str:
    """The reverse of :func:`number`."""
    high, low = divmod(place, 4096 // segment_mb)
    return f"{timeline:08X}{high:08X}{low:08X}"


def windows(
    backups: Iterable[Base], archive: Archive, path: Sequence[tuple[int, int]], now: datetime, segment_mb: int = 16
) -> list[Window]:
    """What can be reached along ``path`` (see :func:`parse_history`), oldest first; windows do not overlap."""
    ends = dict(path)
    found: list[Window] = []
    covered, unreached = -1, ""
    for base in sorted(backups, key=lambda each: each.stopped):
        if base.timeline not in ends or not base.first or number(base.first, segment_mb) > ends[base.timeline]:
            continue
        place = number(base.first, segment_mb)
        if found and place <= covered:
            found[-1] = replace(found[-1], backups=(*found[-1].backups, base))
            continue
        reached: Segment | None = None
        while (segment := archive.segments.get(segment_name(_owner(path, place), place, segment_mb))) is not None:
            reached, place = segment, place + 1
        if reached is None or number(reached.name, segment_mb) < number(base.last, segment_mb):
            continue  # not even the WAL that makes the backup itself consistent
        covered = place - 1
        after = segment_name(_owner(path, place), place, segment_mb)
        missing = after if _torn(archive, path, place, now, segment_mb) else ""
        if found:  # what lies between two windows will not come any more
            found[-1] = replace(found[-1], missing=found[-1].missing or unreached)
        unreached = after
        found.append(Window(path[-1][0], base.stopped, max(base.stopped, reached.at), (base,), missing))
    return found


def _owner(path: Sequence[tuple[int, int]], place: int) -> int:
    """The timeline that a segment belongs to: where one forked off, the segment is the new one's."""
    return next(timeline for timeline, end in path if place < end)


def _torn(archive: Archive, path: Sequence[tuple[int, int]], place: int, now: datetime, segment_mb: int) -> bool:
    """Whether later segments of the same path arrived long enough ago: then the one at ``place`` will not come."""
    later = [
        each.at
        for each in archive.segments.values()
        if number(each.name, segment_mb) > place
        and int(each.name[:8], 16) == _owner(path, number(each.name, segment_mb))
    ]
    return bool(later) and now - min(later) > ARRIVING


def choose(found: Sequence[Window], target: datetime, now: datetime) -> Base:
    """The base backup to start from for ``target``: the newest that ended before it. Raises RangeError with what is possible."""
    for window in found:
        usable = [each for each in window.backups if each.stopped < target]
        if usable and target <= window.end:
            return usable[-1]
    if not found:
        raise RangeError(
            "The repository holds nothing that could be gone back to", "a base backup with its WAL",
            "run 'slipway pitr check', which says why; 'slipway pitr backup' takes one",
        )  # fmt: skip
    if target > now:
        why = f"{shown(target)} is in the future"
    elif target <= found[0].start:
        why = f"{shown(target)} is before the end of the oldest base backup"
    elif target > found[-1].end:
        why = f"{shown(target)} is after the newest WAL in the repository"
    else:
        why = f"{shown(target)} falls into a gap: WAL segment {_gap_before(found, target)} is missing"
    raise RangeError(
        why, f"a second within {possible(found)}", "choose one of those, UTC; 'slipway pitr list' shows them"
    )


def _gap_before(found: Sequence[Window], target: datetime) -> str:
    return next((each.missing for each in reversed(found) if each.end < target and each.missing), "unknown")


def possible(found: Iterable[Window]) -> str:
    """The windows for a message."""
    return ", or ".join(map(str, found))


def shown(at: datetime) -> str:
    """``2026-01-31 12:00:00 UTC``."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def parse_time(text: str) -> datetime:
    """What a person types: ISO 8601, with ``Z`` or an offset; without one it is UTC. Raises InputError.

    Whole seconds, or fractions of one down to a microsecond.
    """
    words = text.strip().removesuffix("UTC").strip()
    try:
        found = datetime.fromisoformat(words)
    except ValueError:
        found = None
    if found is None or len(words) < len("2026-01-31T12:00"):
        raise InputError(
            f"'{text}' is no time", "a day and a time such as 2026-01-31T12:00:00Z; without Z or an offset it is UTC"
        )
    return found.replace(tzinfo=found.tzinfo or UTC).astimezone(UTC)


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
