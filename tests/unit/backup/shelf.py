# SPDX-License-Identifier: Apache-2.0
"""Backups in a store without a database: as they look to whoever lists, judges and prunes them."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta

from slipway.backup import manifest
from slipway.backup.drills import evidence
from slipway.backup.manifest import StoredObject
from slipway.backup.stores.store import Store

from .test_evidence import DRILL
from .test_manifest import example

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)
CHAIN = "drill1-0a1b2c3d"
"""What the chain of the host that drills goes by in the store."""


@dataclass
class Shelf:
    """A store with backups of host ``db1``. ``hashes``: id to the hash of its manifest."""

    store: Store
    hashes: dict[str, str] = field(default_factory=dict)
    heads: dict[str, evidence.Head] = field(default_factory=dict)

    def put(self, age: timedelta, *, body: bytes = b"x" * 1000, objects: int = 1, finish: bool = True) -> str:
        """A backup of that age; without ``finish`` its run died before the manifest."""
        taken = NOW - age
        identifier = manifest.backup_id(taken, "db1", hashlib.sha256(str(age).encode()).hexdigest()[:6])
        stored = []
        for place in range(objects):
            sent = self.store.put(f"db1/{identifier}/{place:02}-dump-app", body)
            stored.append(StoredObject(**asdict(sent), holds="dump", database="app", stream=place))
        if finish:
            (database,) = example().contents.databases
            database = replace(database, snapshot=replace(database.snapshot, at=taken))
            contents = replace(example().contents, databases=(database,))
            made = example(backup_id=identifier, host="db1", started=taken, finished=taken + timedelta(minutes=2),
                           objects=tuple(stored), contents=contents)  # fmt: skip
            text = manifest.write(made)
            self.store.put(f"db1/{identifier}/manifest.json", text)
            self.hashes[identifier] = hashlib.sha256(text).hexdigest()
        return identifier

    def drill(self, identifier: str, verdict: str = "proved", *, digest: str = "", chain: str = CHAIN) -> None:
        """A drill of it on record, with its copy in the store."""
        tried = replace(DRILL.tried[0], backup_id=identifier, manifest_sha256=digest or self.hashes[identifier],
                        verdict=verdict)  # fmt: skip
        head, drills = self.heads.get(chain, evidence.EMPTY), sum(each.number for each in self.heads.values())
        drill = replace(DRILL, drill_id=f"d{drills}", verdict=verdict, tried=(tried,))
        line, self.heads[chain] = evidence.seal(drill, NOW + timedelta(seconds=drills), head)
        self.store.put(f"db1/evidence/{chain}/{head.number + 1:06}.json", line)
