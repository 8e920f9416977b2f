# SPDX-License-Identifier: Apache-2.0
"""A whole backup for tests of what comes after it: globals and databases of the test server, in a store."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta

import psycopg
from slipway.backup import argv, catalog, manifest
from slipway.backup.manifest import Contents, Database, Manifest, StoredObject
from slipway.backup.pipeline import Stage, run
from slipway.backup.stores.store import MB, Store

PART = 5 * MB
HOST = "db1"


def where(conninfo: str) -> tuple[argv.Server, str]:
    info = dict(each.split("=", 1) for each in conninfo.split())
    return argv.Server(info["host"], int(info.get("port", 5432)), info["user"]), info.get("dbname", "postgres")


class Taker:
    """Takes backups of some databases. ``age``: seconds by which it dates them back."""

    def __init__(self, store: Store, recipients: str) -> None:
        self.store, self.recipients = store, recipients

    def put(self, key: str, stage: Stage, holds: str, database: str = "", stream: int = 0) -> StoredObject:
        with self.store.upload(key, part_size=PART) as upload:
            stages = [stage, Stage("zstd", argv.compress(1, 1)), Stage("age", argv.encrypt(self.recipients))]
            run(stages, upload.write, timeout=120)
            return StoredObject(**asdict(upload.complete()), holds=holds, database=database, stream=stream)

    def take(self, conninfos: Sequence[str], *, count: int = 0, age: int = 0, stamp: bool = True) -> Manifest:
        begun = datetime.now(UTC) - timedelta(seconds=age)
        identifier = manifest.backup_id(begun, HOST, os.urandom(3).hex())
        folder = f"{HOST}/{identifier}"
        server, _name = where(conninfos[0])
        objects = [self.put(f"{folder}/00-globals", Stage("pg_dumpall", argv.dump_globals(server)), "globals")]
        seen: list[Database] = []
        for conninfo in conninfos:
            with psycopg.connect(conninfo, autocommit=True) as conn:
                if stamp:
                    catalog.stamp(conn, identifier)
                exported, snapshot = catalog.hold(conn)
                sequences = catalog.read_sequences(conn)
                found = catalog.read_database(conn, snapshot, sequences=sequences)
                for holds, stream, command in plan(conninfo, exported, found, count):
                    key = f"{folder}/{len(objects):02}-{holds}"
                    objects.append(self.put(key, Stage("pg_dump", command), holds, found.name, stream))
                cluster = catalog.read_cluster(conn)
                sentinel = found.sentinel and replace(found.sentinel, at=found.sentinel.at)
                snapshot = catalog.release(conn, snapshot, datetime.now(UTC))
                back = replace(snapshot, at=snapshot.at - timedelta(seconds=age))
                seen.append(replace(found, snapshot=back, sentinel=sentinel))
        ended = datetime.now(UTC) - timedelta(seconds=age)
        taken = Manifest(identifier, HOST, begun, ended, Contents(cluster, tuple(seen)), tuple(objects), ("age1",), {})
        self.store.put(f"{folder}/manifest.json", manifest.write(taken))
        return taken


def plan(conninfo: str, exported: str, seen: Database, count: int) -> list[tuple[str, int, list[str]]]:
    """(holds, stream, command) of each object."""
    server, name = where(conninfo)
    if not count:
        return [("dump", 0, argv.dump(server, name, snapshot=exported))]
    shares = argv.streams({each.name: each.bytes for each in seen.tables}, count, smallest=MB)
    named = [table for share in shares for table in share]
    data = [argv.dump(server, name, snapshot=exported, section="data", tables=each) for each in shares]
    data.append(argv.dump(server, name, snapshot=exported, section="data", without_data_of=named))
    return [
        ("schema", 0, argv.dump(server, name, snapshot=exported, section="pre-data")),
        *(("data", place, command) for place, command in enumerate(data)),
        ("indexes", 0, argv.dump(server, name, snapshot=exported, section="post-data")),
    ]
