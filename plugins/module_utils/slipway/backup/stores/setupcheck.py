# SPDX-License-Identifier: Apache-2.0
"""Whether the writer's key is what it should be, found out by trying: it writes, and can neither read, list nor destroy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .store import SMALLEST_PART, AccessError, Lock, Sent, Store, StoreError

REFUSED = "refused"


@dataclass(frozen=True)
class Tried:
    """One right as tried. ``expected``/``found``: ``allowed`` or ``refused``, or what the store said instead."""

    what: str
    expected: str
    found: str

    @property
    def good(self) -> bool:
        """Whether it is as it should be."""
        return self.found == self.expected


def writer(store: Store, host: str, name: str, *, lock: Lock | None = None) -> list[Tried]:
    """Try the writer's key. It leaves an object of a few bytes, ``<host>/setup-check/<name>``: nobody here can delete it."""
    key = f"{host}/setup-check/{name}"
    sent: list[Sent] = []

    def put() -> None:
        sent.append(store.put(key, b"slipway backup verify-setup\n", lock=lock))

    def upload() -> None:
        with store.upload(f"{key}.parts", part_size=SMALLEST_PART, concurrency=1):
            pass  # begun and aborted

    tries = [_try("write an object", "allowed", put), _try("begin and abort an upload in parts", "allowed", upload)]
    if not sent:
        return tries
    version = sent[0].version or "null"
    return [
        *tries,
        _try("read what it wrote", REFUSED, lambda: b"".join(store.read(key))),
        _try("see whether an object is there", REFUSED, lambda: store.head(key)),
        _try("list objects", REFUSED, lambda: next(iter(store.entries(f"{host}/")), None)),
        _try("list versions", REFUSED, lambda: next(iter(store.versions(f"{host}/")), None)),
        _try("destroy what it wrote", REFUSED, lambda: store.delete(key, version)),
    ]


def _try(what: str, expected: str, attempt: Callable[[], Any]) -> Tried:
    try:
        attempt()
    except AccessError:
        return Tried(what, expected, REFUSED)
    except StoreError as error:
        return Tried(what, expected, str(error))
    return Tried(what, expected, "allowed")


def render(tries: list[Tried]) -> str:
    """For a terminal: a line each."""
    width = max(len(each.what) for each in tries)
    lines = []
    for each in tries:
        verdict = "as it should be" if each.good else f"WRONG, it should be {each.expected}"
        lines.append(f"{each.what:<{width}}  {each.found}: {verdict}")
    return "\n".join(lines)
