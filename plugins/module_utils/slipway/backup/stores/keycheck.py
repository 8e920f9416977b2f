# SPDX-License-Identifier: Apache-2.0
"""Whether each storage key is what it should be, found out by trying; what the trying left is removed by the owner's key.

``setupcheck`` does the writer's part on the server itself, with the writer's key alone. Here all keys are at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from . import setupcheck
from .s3 import S3Store
from .setupcheck import ALLOWED, LOCKED_FOR, REFUSED, Tried, sweep, tried
from .setupcheck import FOLDER as _FOLDER
from .store import Lock, Sent


@dataclass
class Verdict:
    """What came of it. ``stays``: probes that a lock still holds; ``notes``: what is as it is, and good to know."""

    tries: list[tuple[str, Tried]] = field(default_factory=list)
    stays: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def wrong(self) -> list[str]:
        """Each right that is not as it should be, in words."""
        return [
            f"{purpose}: to {each.what} should be {each.expected}, and is {each.found}"
            for purpose, each in self.tries
            if not each.good
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        tries = [{"key": purpose, **each.__dict__, "good": each.good} for purpose, each in self.tries]
        return {"good": not self.wrong, "tries": tries, "stays": self.stays, "notes": self.notes}


def verify(
    owner: S3Store, keys: Mapping[str, S3Store], host: str, name: str, *, mode: str = "", now: datetime | None = None
) -> Verdict:
    """Try the ``keys`` by purpose (writer first; any may be missing) below ``<host>/``.

    ``mode``: also that a lock of that mode can be set and then broken by none of them. Raises StoreError when the store
    is away; whatever a key may or may not do is in the verdict. The probes are removed at the end, also after an error.
    """
    verdict = Verdict()
    lock = setupcheck.shortest(mode, now or datetime.now(UTC)) if mode else None
    try:
        probe = owner.put(f"{host}/{_FOLDER}/{name}.owner", b"slipway: a probe\n")
        # Another one to destroy: a key that may must not make the others look as if they could not read.
        bait = owner.put(f"{host}/{_FOLDER}/{name}.bait", b"slipway: a probe\n")
        for purpose, tries in (("writer", _writer), ("reader", _reader), ("evidence", _evidence), ("pruner", _pruner)):
            if purpose in keys:
                verdict.tries += [
                    (purpose, each) for each in tries(keys[purpose], _Probes(host, name, probe, bait), verdict)
                ]
            else:
                verdict.notes.append(f"the {purpose}'s key was not given, so it was not tried")
        if lock is not None:
            _locked(owner, keys, verdict, f"{host}/{_FOLDER}/{name}", lock)
    finally:
        verdict.stays = sweep(owner, host)
    return verdict


@dataclass(frozen=True)
class _Probes:
    """Below ``<host>/``, told apart by ``name``: ``probe`` to read, ``bait`` to destroy."""

    host: str
    name: str
    probe: Sent
    bait: Sent


def _writer(store: S3Store, at: _Probes, verdict: Verdict) -> list[Tried]:
    tries = setupcheck.writer(store, at.host, at.name)
    tries.append(
        tried("destroy what another wrote", REFUSED, lambda: store.delete(at.bait.key, at.bait.version or "null"))
    )
    hides = tried("hide", REFUSED, lambda: store.call("delete_object", "hiding a probe", Key=at.bait.key))
    if hides.good or hides.found == ALLOWED:
        verdict.notes.append(
            "the writer's key can hide names, which destroys nothing: listings go by versions" if not hides.good
            else "the writer's key cannot even hide names"
        )  # fmt: skip
    return tries


def _reader(store: S3Store, at: _Probes, _verdict: Verdict) -> list[Tried]:
    return [
        tried("read an object", ALLOWED, lambda: list(store.read(at.probe.key, version=at.probe.version))),
        tried("list versions", ALLOWED, lambda: next(iter(store.versions(f"{at.host}/")), None)),
        *_no_writing(store, f"{at.host}/{_FOLDER}/{at.name}.reader"),
        tried("destroy", REFUSED, lambda: store.delete(at.bait.key, at.bait.version or "null")),
        tried("hide", REFUSED, lambda: store.call("delete_object", "hiding a probe", Key=at.bait.key)),
    ]


def _evidence(store: S3Store, at: _Probes, _verdict: Verdict) -> list[Tried]:
    return [
        tried(
            "write below evidence/", ALLOWED, lambda: store.put(f"{at.host}/evidence/{_FOLDER}-{at.name}", b"a probe\n")
        ),
        tried("write elsewhere", REFUSED, lambda: store.put(f"{at.host}/{_FOLDER}/{at.name}.evidence", b"a probe\n")),
        tried("destroy", REFUSED, lambda: store.delete(at.bait.key, at.bait.version or "null")),
    ]


def _pruner(store: S3Store, at: _Probes, _verdict: Verdict) -> list[Tried]:
    """Last of all: it may destroy, and does."""
    return [
        tried("list versions", ALLOWED, lambda: next(iter(store.versions(f"{at.host}/")), None)),
        tried("read an object", ALLOWED, lambda: list(store.read(at.probe.key, version=at.probe.version))),
        *_no_writing(store, f"{at.host}/{_FOLDER}/{at.name}.pruner"),
        tried("destroy a version", ALLOWED, lambda: store.delete(at.bait.key, at.bait.version or "null")),
    ]


def _no_writing(store: S3Store, key: str) -> list[Tried]:
    def upload() -> None:
        with store.upload(key):
            pass

    return [
        tried("write an object", REFUSED, lambda: store.put(key, b"a probe\n")),
        tried("begin an upload in parts", REFUSED, upload),
    ]


def _locked(owner: S3Store, keys: Mapping[str, S3Store], verdict: Verdict, key: str, lock: Lock) -> None:
    """Locks that hold: set by the writer, seen by who reads, broken by nobody."""
    host, name = key.split(f"/{_FOLDER}/")
    found = setupcheck.locks(keys.get("writer", owner), host, name, lock)
    verdict.tries += [("writer", each) for each in found.tries]
    verdict.notes += found.notes
    for probe in found.left:
        version = next((each.version for each in owner.versions(probe) if each.key == probe and each.latest), "")
        held = owner.locked(probe, version=version)
        state = (
            ALLOWED if held is not None and held.until >= lock.until else f"forgotten by the store: {setupcheck.UNABLE}"
        )
        how = "in parts" if probe.endswith("-parts") else "in one go"
        verdict.tries.append(("writer", Tried(f"have a lock on what it sends {how}", ALLOWED, state)))
        if "reader" in keys:
            looks = tried("see the lock of an object", ALLOWED, lambda probe=probe: keys["reader"].locked(probe))  # type: ignore[misc]
            verdict.tries.append(("reader", looks))
        if held is not None:
            verdict.tries += _breaking(keys, {"Key": probe, "VersionId": version}, lock)


def _breaking(keys: Mapping[str, S3Store], about: Mapping[str, str], lock: Lock) -> list[tuple[str, Tried]]:
    tries = []
    shorter = {"Mode": lock.mode, "RetainUntilDate": lock.until - LOCKED_FOR / 2}
    for purpose in ("writer", "reader", "pruner", "evidence"):
        if purpose not in keys:
            continue
        one = keys[purpose]
        attempts: dict[str, Callable[[], object]] = {
            "destroy what is locked": lambda one=one: one.call("delete_object", "a locked probe", **about),  # type: ignore[misc]
            "destroy what is locked, with the special right": lambda one=one: one.call(  # type: ignore[misc]
                "delete_object", "a locked probe", **about, BypassGovernanceRetention=True
            ),
            "shorten a lock": lambda one=one: one.call(  # type: ignore[misc]
                "put_object_retention", "a locked probe", **about, Retention=shorter, BypassGovernanceRetention=True
            ),
        }
        tries += [(purpose, tried(what, REFUSED, attempt)) for what, attempt in attempts.items()]
    return tries


def revoked(store: S3Store, host: str, name: str) -> list[Tried]:
    """Try that an old key opens nothing any more: neither to list, nor to read, nor to write, wherever one of them could."""
    key = f"{host}/{_FOLDER}/{name}.old"
    record = f"{host}/evidence/{_FOLDER}-{name}.old"
    return [
        tried("list versions", REFUSED, lambda: next(iter(store.versions(f"{host}/")), None)),
        tried("read an object", REFUSED, lambda: store.head(key)),
        tried("write an object", REFUSED, lambda: store.put(key, b"a probe\n")),
        tried(
            "write below evidence/", REFUSED, lambda: store.put(record, b"a probe\n")
        ),  # all that the drills' key may
    ]
