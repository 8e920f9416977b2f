# SPDX-License-Identifier: Apache-2.0
"""Where evidence lives: the chain on the host, a page a drill, copies in the store, heads in the host's journal.

The copies and the heads are what shows that the chain's end was cut off or all of it written anew. None of them stops a
drill from being recorded: what does not work becomes a warning.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ... import atomic, journal
from ...errors import SlipwayError
from ..codec import FormatError, canonical
from ..stores.store import Store, StoreError
from .evidence import GENESIS, Chain, Content, Drill, Earlier, Head, Note, Record, append, load, notes_on, verify_chain
from .evidence_view import markdown

_COPY = re.compile(r"([A-Za-z0-9-]+-[0-9a-f]{8})/([0-9]{6,})\.json")
WHAT = "drill evidence"


class UnknownDrillError(SlipwayError):
    """No drill of that id is on record."""


class ChainError(SlipwayError):
    """An earlier chain cannot be vouched for: the store has none of that name, or what it has is not whole."""


@dataclass(frozen=True)
class Verified:
    """The chain with all that is wrong with it, what could not be asked, and a sentence on each earlier chain that is whole."""

    chain: Chain
    unasked: tuple[str, ...]
    earlier: tuple[str, ...]


@dataclass(frozen=True)
class Proofs:
    """``folder``: of evidence.jsonl and reports/. ``store``: for copies, None where there is no key for it; ``host``: the
    folder in the store. ``journal``: the host's own journal. ``after``: called with each drill recorded (metrics, alarms).
    ``by``: the host that drills, in whose name its chain goes in the store; by default what it calls itself.
    """

    folder: Path
    store: Store | None
    host: str
    journal: Path = Path(journal.JOURNAL)
    after: Callable[[Drill], Iterable[str]] | None = None
    by: str = ""

    @property
    def name(self) -> str:
        """What the chain goes by in the store: the host that drills, and what the chain begins with.

        So two hosts that drill from one store never write each other's copies, nor does one that was made anew under an
        old name; and an end is never taken for the end of another chain. Raises OSError.
        """
        try:
            with self.chain.open("rb") as file:
                first = file.readline()
        except FileNotFoundError:
            first = b""
        return f"{self.prefix}{hashlib.sha256(first).hexdigest()[:8]}"

    @property
    def prefix(self) -> str:
        """What the names of all chains of this drill host begin with."""
        return re.sub(r"[^A-Za-z0-9-]", "-", self.by or socket.gethostname()).strip("-") + "-"

    @property
    def chain(self) -> Path:
        """The file with the records."""
        return self.folder / "evidence.jsonl"

    def add(self, content: Content, now: datetime) -> tuple[Head, list[str]]:
        """Record a drill, a note or an earlier chain; the new head, and what did not work beside it. Raises OSError."""
        self.folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        warnings: list[str] = []
        copies: list[tuple[int, bytes]] = []

        def publish(number: int, line: bytes) -> None:
            copies.append((number, line))

        head = append(self.chain, content, now, publish)
        for number, line in copies:
            warnings += self._copy(number, line)
        warnings += self.anchor(head, now)
        if not isinstance(content, Earlier):
            warnings += self._report(content.drill_id if isinstance(content, Drill) else content.about)
        if isinstance(content, Drill) and self.after is not None:
            warnings += list(self.after(content))
        return head, warnings

    def _copy(self, number: int, line: bytes) -> list[str]:
        if self.store is None:
            return ["no key to put a copy of the evidence into the store: see docs/backups.md"]
        try:
            self.store.put(f"{self.host}/evidence/{self.name}/{number:06}.json", line)
        except StoreError as error:
            return [f"the store took no copy of record {number}: {error}"]
        return []

    def anchor(self, head: Head, now: datetime) -> list[str]:
        """Note a head in the host's journal, which belongs to root: a warning where we may not write there."""
        try:
            journal.append(
                self.journal, at=now.timestamp(), who="slipway", what=WHAT, number=head.number, sha256=head.sha256
            )
        except OSError as error:
            # The unit notes it as root after its end ("slipway drill anchor"), and its output is in the system's journal.
            if isinstance(error, PermissionError):
                return []
            return [f"the head of the evidence could not be noted in {self.journal}: {error.strerror}"]
        return []

    def _report(self, drill_id: str) -> list[str]:
        """Write the page of a drill anew, with the notes on it."""
        try:
            record, digest, notes = self.find(drill_id)
            replace(self.folder / "reports" / f"{drill_id}.md", markdown(record, digest, notes).encode())
        except (OSError, SlipwayError) as error:
            return [f"the report of drill {drill_id} could not be written: {error}"]
        return []

    def read(self) -> Chain:
        """The chain, checked in itself alone. Raises OSError."""
        return load(self.chain)

    def drills(self) -> list[Record]:
        """Records of drills, oldest first. Raises OSError."""
        return [each for each in self.read().records if each.drill is not None]

    def find(self, drill_id: str = "") -> tuple[Record, str, tuple[Note, ...]]:
        """A drill's record, its hash and the notes on it; the newest without an id. Raises UnknownDrillError, OSError."""
        chain = self.read()
        each_with_hash = zip(chain.records, chain.digests, strict=True)
        found = [pair for pair in each_with_hash if pair[0].drill and pair[0].drill.drill_id.startswith(drill_id)]
        if not found:
            what = f"no drill {drill_id}" if drill_id else "no drill at all"
            raise UnknownDrillError(
                f"There is {what} on record", f"one of those in {self.chain}", "run: slipway drill list"
            )
        record, digest = found[-1]
        assert record.drill is not None  # noqa: S101 - chosen by it
        return record, digest, notes_on(chain, record.drill.drill_id)

    def verify(self) -> Verified:
        """The chain against the heads in the journal and the copies in the store.

        A copy is itself the whole record, so that a copy beyond the chain's end shows records that were cut off. Other
        chains of this host in the store are problems, save those that a record here vouches for and that are whole.
        Raises OSError.
        """
        unasked: list[str] = []
        anchors = self._noted(unasked)
        heads: list[Head] = []
        others: dict[str, dict[int, bytes]] = {}
        if self.store is None:
            unasked.append("the copies in the store could not be read: no key for them on this host")
        else:
            try:
                copies = self._copies()
                heads = [Head(number, _hash_of(line)) for number, line in copies.pop(self.name, {}).items()]
                others = copies
            except StoreError as error:
                unasked.append(f"the copies in the store could not be read: {error}")
        found = load(self.chain, [*anchors, *heads])
        vouched = {each.earlier.chain: each.earlier for each in found.records if each.earlier}
        problems, told = list(found.problems), []
        for name, lines in sorted(others.items()):
            wrong, sentence = _earlier(name, lines, vouched.get(name))
            problems += wrong
            told += sentence
        return Verified(dataclasses.replace(found, problems=tuple(problems)), tuple(unasked), tuple(told))

    def earlier(self, name: str, by: str, reason: str) -> Earlier:
        """What to record of an earlier chain of this host, of which the store has the copies. Raises ChainError, StoreError, OSError."""
        if self.store is None:
            raise ChainError(
                "There is no key for the store on this host",
                "the reader's",
                "see docs/key_rotation.md, and run site.yml",
            )
        copies = self._copies()
        copies.pop(self.name, None)
        if name not in copies:
            raise ChainError(
                f"The store has no earlier chain {name} of this host",
                f"one of: {', '.join(sorted(copies)) or 'none'}",
                "run: slipway drill verify-chain",
            )
        lines = copies[name]
        chain = verify_chain(lines[number] for number in sorted(lines))
        if not chain.whole:
            raise ChainError(
                f"The copies of the chain {name} are not whole: {' '.join(chain.problems)}",
                "each record from the first to the last, unaltered",
                "nobody can vouch for it: keep the copies as they are, and look who can write to the bucket",
            )
        return Earlier(name, chain.head.number, chain.head.sha256, by, reason)

    def _noted(self, unasked: list[str]) -> list[Head]:
        try:
            self.journal.open("rb").close()
        except OSError as error:
            unasked.append(f"the journal {self.journal} could not be read: {error.strerror}")
            return []
        entries = [each for each in journal.tail(self.journal, 1_000_000) if each.get("what") == WHAT]
        return [Head(int(each["number"]), str(each["sha256"])) for each in entries if {"number", "sha256"} <= set(each)]

    def _copies(self) -> dict[str, dict[int, bytes]]:
        """All copies of chains of this host in the store: name of the chain -> number -> line. Raises StoreError, OSError."""
        assert self.store is not None  # noqa: S101 - seen by who calls
        folder, own = f"{self.host}/evidence/", self.name
        copies: dict[str, dict[int, bytes]] = {}
        for entry in self.store.entries(folder):
            found = _COPY.fullmatch(entry.key.removeprefix(folder))
            if found and (found[1] == own or found[1][:-8] == self.prefix):
                copies.setdefault(found[1], {})[int(found[2])] = b"".join(self.store.read(entry.key))
        return copies


def _earlier(name: str, lines: Mapping[int, bytes], vouched: Earlier | None) -> tuple[list[str], list[str]]:
    """(What is wrong with another chain of this host that the store holds, or what there is to say of it.) Pure."""
    if vouched is None:
        return [
            f"The store holds {len(lines)} records of a chain of this host, {name}, that is not here: the chain was lost, "
            "written anew from its first record on, or is of another host that goes by the same name. If this host was made "
            f"anew: slipway drill vouch {name} --by WHO --reason WHY."
        ], []
    chain = verify_chain((lines[number] for number in sorted(lines)), [Head(vouched.number, vouched.sha256)])
    wrong = [f"Earlier chain {name}: {problem}" for problem in chain.problems]
    if chain.head.number > vouched.number:
        wrong.append(f"Earlier chain {name} has records beyond {vouched.number}, where {vouched.by} saw it end.")
    if wrong:
        return wrong, []
    return [], [f"earlier chain {name}: {vouched.number} records, whole; {vouched.by}: {vouched.reason}"]


def _hash_of(line: bytes) -> str:
    """The hash that a copied record has, computed anew and not taken from it."""
    from ..codec import parse_json

    try:
        data = parse_json(line, "a copy")
        return hashlib.sha256(canonical(data["record"])).hexdigest()
    except (FormatError, TypeError, KeyError):
        return f"unreadable copy, not {GENESIS}"


def replace(path: Path, content: bytes, mode: int = 0o640) -> None:
    """Put a whole file in the place of another, or nothing, and make its folder. Raises OSError."""
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    atomic.replace(path, content, mode)
