# SPDX-License-Identifier: Apache-2.0
"""The backups that a store holds for a host: each by its manifest, its proof by the drills' evidence beside it.

Whoever has the writer's key can add versions and hide names, but destroy nothing. So what counts is the *oldest* version
of a manifest and of a record, whatever lies on top of it; that something does is told.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from .. import manifest
from ..codec import FormatError
from ..drills import evidence
from ..manifest import Manifest
from ..stores.store import AccessError, Entry, Store, StoreError
from . import retention

_ID = re.compile(r"([0-9]{8}T[0-9]{6})Z-[a-z0-9][a-z0-9.-]{0,60}-[0-9a-f]{6}")
_RECORD = re.compile(r"[A-Za-z0-9-]+-[0-9a-f]{8}/[0-9]{6,}\.json")
AT_ONCE = 8
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Listed:
    """One backup, or what an unfinished run left. ``entries``: every version and delete marker below its name.

    ``problem``: why it is not whole; empty if it is. ``notes``: what a person should look at though it may be whole.
    """

    id: str
    taken: datetime
    entries: tuple[Entry, ...]
    manifest: Manifest | None = None
    manifest_sha256: str = ""
    proof: retention.Proof = "none"
    held: str = ""
    problem: str = ""
    notes: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether its manifest is there and every object that it names, in full size."""
        return self.manifest is not None and not self.problem

    @property
    def bytes(self) -> int:
        """What it takes in the store, all versions."""
        return sum(each.size for each in self.entries)

    @property
    def duration_ms(self) -> int:
        """How long it took to take; 0 where nobody knows."""
        return int((self.manifest.finished - self.manifest.started) / timedelta(milliseconds=1)) if self.manifest else 0

    @property
    def held_ms(self) -> int:
        """The longest time that a snapshot was held for it."""
        databases = self.manifest.contents.databases if self.manifest else ()
        return max((each.snapshot.held_ms for each in databases), default=0)

    def for_retention(self, lock_days: int = 0) -> retention.Backup:
        """As the rules of retention want it. ``lock_days``: how long what is written is locked in the store."""
        until = None
        if lock_days:
            until = max((each.modified for each in self.entries), default=self.taken) + timedelta(days=lock_days)
        return retention.Backup(self.id, self.taken, self.whole, self.proof, until, self.held)


@dataclass(frozen=True)
class Listing:
    """What a store holds for one host, newest first; ``notes``: what is to be said of the whole."""

    host: str
    backups: tuple[Listed, ...]
    notes: tuple[str, ...] = ()

    @property
    def whole(self) -> tuple[Listed, ...]:
        """Those that count as backups, newest first."""
        return tuple(each for each in self.backups if each.whole)

    def named(self, identifier: str) -> Listed | None:
        """The backup of that id, or ``latest`` for the newest whole one."""
        if identifier == "latest":
            return next(iter(self.whole), None)
        return next((each for each in self.backups if each.id == identifier), None)


def read(store: Store, host: str) -> Listing:
    """List the backups of ``host``. Raises StoreError (AccessError where the key may not list)."""
    below = f"{host}/"
    groups: dict[str, list[Entry]] = {}
    for entry in store.versions(below):
        groups.setdefault(entry.key.removeprefix(below).partition("/")[0], []).append(entry)
    proofs, notes = _proofs(store, groups.pop("evidence", []), below)
    holds, more = _holds(store, groups.pop("holds", []), below)
    blanks = [
        Listed(name, begun(name), tuple(entries), held=holds.get(name, ""))
        for name, entries in groups.items()
        if _ID.fullmatch(name)
    ]
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="listing") as pool:
        found = list(pool.map(lambda each: _one(store, f"{below}{each.id}/{MANIFEST}", each, proofs), blanks))
    found.sort(key=lambda each: (each.taken, each.id), reverse=True)
    return Listing(host, tuple(found), (*notes, *more))


def begun(identifier: str) -> datetime:
    """The start of a run, from its id."""
    return datetime.strptime(identifier[:15], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)


def _first(entries: Iterable[Entry]) -> tuple[Entry | None, list[str]]:
    """The oldest real version of one key, and what lies on top of it in words."""
    versions = list(entries)  # newest first
    real = [each for each in versions if not each.hidden]
    if not real:
        return None, []
    oldest, odd = real[-1], []
    if any(each.etag != oldest.etag or each.size != oldest.size for each in real):
        odd.append(f"{oldest.key} was written over {len(real) - 1} times; the first version counts")
    if versions[0].hidden:
        odd.append(f"{oldest.key} is hidden by a delete marker")
    return oldest, odd


def _one(store: Store, key: str, blank: Listed, proofs: Mapping[tuple[str, str], retention.Proof]) -> Listed:
    identifier = blank.id
    oldest, odd = _first(each for each in blank.entries if each.key == key)
    if oldest is None:
        return _with(blank, problem="it has no manifest: the run did not end, or is not over yet", notes=tuple(odd))
    try:
        text = b"".join(store.read(key, version=oldest.version))
        found = manifest.read(text, f"the manifest of {identifier}")
        if found.backup_id != identifier:
            raise FormatError(f"the manifest of {identifier} is that of {found.backup_id}", "its own")
    except AccessError:
        raise
    except (FormatError, StoreError) as error:
        return _with(blank, problem=str(error), notes=tuple(odd))
    digest = hashlib.sha256(text).hexdigest()
    missing, more = _missing(found, blank.entries)
    return _with(
        blank, taken=found.taken, manifest=found, manifest_sha256=digest, notes=(*odd, *more), problem=missing,
        proof=proofs.get((identifier, digest), "none"),
    )  # fmt: skip


def _with(listed: Listed, **given: object) -> Listed:
    return Listed(**{**listed.__dict__, **given})


def _missing(found: Manifest, entries: Sequence[Entry]) -> tuple[str, list[str]]:
    """What of a backup is not in the listing with the size that its manifest says; and what is hidden."""
    lost, hidden = [], []
    for each in found.objects:
        versions = [entry for entry in entries if entry.key == each.key]
        if not any(entry.size == each.size and entry.version == (each.version or entry.version) and not entry.hidden for entry in versions):  # fmt: skip
            lost.append(each.key.rpartition("/")[2])
        elif versions[0].hidden:
            hidden.append(f"{each.key} is hidden by a delete marker")
    problem = f"objects are missing or of another size: {', '.join(lost)}" if lost else ""
    return problem, hidden


def _proofs(
    store: Store, entries: Sequence[Entry], below: str
) -> tuple[dict[tuple[str, str], retention.Proof], list[str]]:
    """(Backup id, hash of its manifest) to the verdict of its latest drill, by the copies of the evidence."""
    chosen, notes = _oldest(entries, f"{below}evidence/", _RECORD)
    if not chosen:
        return {}, notes
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="evidence") as pool:
        try:
            lines = list(pool.map(lambda each: b"".join(store.read(each.key, version=each.version)), chosen))
        except StoreError as error:
            return {}, [*notes, f"The evidence of drills could not be read, so no backup counts as proved: {error}"]
    chains: dict[str, list[bytes]] = {}
    for entry, line in zip(chosen, lines, strict=True):
        chains.setdefault(entry.key.split("/")[-2], []).append(line)
    records: list[evidence.Record] = []
    for name, own in chains.items():
        chain = evidence.verify_chain(own)
        notes += [f"Evidence of {name}: {problem}" for problem in chain.problems]
        records += chain.records
    if len(chains) > 1:
        notes.append(
            f"Evidence is from {len(chains)} chains, one for each host that ever drilled: {', '.join(chains)}."
        )
    found: dict[tuple[str, str], retention.Proof] = {}
    for record in sorted(records, key=lambda each: each.at):
        for tried in record.drill.tried if record.drill else ():
            if tried.verdict in ("proved", "failed", "inconclusive"):
                found[tried.backup_id, tried.manifest_sha256] = tried.verdict  # type: ignore[assignment]
    return found, notes


def _oldest(entries: Sequence[Entry], folder: str, names: re.Pattern[str]) -> tuple[list[Entry], list[str]]:
    by_key: dict[str, list[Entry]] = {}
    for each in entries:
        if names.fullmatch(each.key.removeprefix(folder)):
            by_key.setdefault(each.key, []).append(each)
    chosen: list[Entry] = []
    notes: list[str] = []
    for key in sorted(by_key):
        oldest, odd = _first(by_key[key])
        notes += [f"{text[0].upper()}{text[1:]}." for text in odd]
        if oldest is not None:
            chosen.append(oldest)
    return chosen, notes


def _holds(store: Store, entries: Sequence[Entry], below: str) -> tuple[dict[str, str], list[str]]:
    """Backup id to why it is held. A hold is let go by deleting its object; hiding it is not enough."""
    chosen, notes = _oldest(entries, f"{below}holds/", _ID)
    found = {}
    for each in chosen:
        identifier = each.key.rpartition("/")[2]
        try:
            why = b"".join(store.read(each.key, version=each.version))[:200].decode(errors="replace").strip()
        except StoreError as error:
            why = f"its reason could not be read ({error.found})"
        found[identifier] = why or "somebody holds it"
    return found, notes
