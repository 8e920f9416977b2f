# SPDX-License-Identifier: Apache-2.0
"""What ``benchmarks.backup`` measures, in a process of its own: ``python -m benchmarks.one_backup JSON``.

``what``: ``run`` (a whole run), ``hash`` (counting and hashing alone) or ``dumps`` (the dumps alone, as a run starts
them, with nothing read beside them).
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from slipway.backup import argv, catalog
from slipway.backup.config import Config, Place
from slipway.backup.stores.s3 import Bucket, S3Store
from slipway.backup.stores.store import DirectoryStore, Store
from slipway.backup.taking import dumping, runs, source, take
from slipway.backup.taking.turns import Turns


@dataclass(frozen=True)
class Asked:
    """The work. ``home``: where recipients, state and the store's folder are. ``endpoint``: of a bucket, or empty."""

    what: str
    home: str
    socket: str
    database: str
    cores: int
    parallel_mb: int
    endpoint: str = ""
    level: int = 0  # 0: as the product chooses


def main() -> None:
    """Do it; a run's own figures go out as JSON."""
    asked = Asked(**json.loads(sys.argv[1]))
    server = argv.Server(asked.socket, 5432, "postgres")
    if asked.what == "hash":
        with source.connect(server, asked.database) as conn, catalog.snapshot_of(conn) as snapshot:
            catalog.read_database(conn, snapshot)
    elif asked.what == "dumps":
        _dumps(asked, server)
    else:
        _run(asked, server)


def _dumps(asked: Asked, server: argv.Server) -> None:
    home, around = Path(asked.home), take.Around()
    level, threads = argv.compression(asked.cores)
    means = dumping.Means(
        server, DirectoryStore(home / "store"), runs.Uploads(home), "bench/x", home / "recipients", around.stop, "",
        around.now, level=asked.level or level, threads=threads, streams=asked.cores,
        parallel_bytes=asked.parallel_mb << 20,
    )  # fmt: skip
    with source.connect(server, asked.database) as conn:
        exported, _ = catalog.hold(conn)
        tables = dumping.streamed(conn)
        total = sum(each.bytes for each in tables.values())
        parts = dumping.parts_of(means, asked.database, exported, tables, total)
        turns = Turns(dumping.at_once(means, parts), around.stop.check)
        with ThreadPoolExecutor(dumping.threads_for(parts)) as pool:
            sent = [each.result() for each in dumping.send_all(means, parts, 0, turns, pool)]
    print(json.dumps({"stored": sum(each.size for each in sent)}))


def _run(asked: Asked, server: argv.Server) -> None:
    home = Path(asked.home)
    store: Store = DirectoryStore(home / "store")
    if asked.endpoint:
        store = S3Store(Bucket("b", asked.endpoint, "r", "k", "s"))
    around = take.Around(
        server=server, state=home / "state", recipients=home / "recipients", metrics=home, cores=asked.cores
    )
    config = Config("bench", Place("directory", "/x"), (), left_out=("postgres", "app"), parallel_mb=asked.parallel_mb)
    done = take.run(config, lambda: store, around)
    print(json.dumps({"hash_ms": done.hash_ms, "held_ms": done.held_ms, "stored": done.stored_bytes}))


if __name__ == "__main__":
    main()
