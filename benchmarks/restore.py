# SPDX-License-Identifier: Apache-2.0
"""``python -m benchmarks.restore``: how long a backup takes to come back, beside plain ``pg_restore -j2`` from a local file.

A throwaway PostgreSQL of this machine with 1 GB of rows such as an app has, with keys and indexes. Each restore goes into
a scratch cluster of its own, made the same way for all. The plain one reads an uncompressed dump that lies there in
plain text; a drill's fetches the sealed objects, hashes them, decrypts and unpacks them, and restores the globals too.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from slipway.backup import argv, manifest
from slipway.backup.config import Config, Place
from slipway.backup.drills import checks, scratch
from slipway.backup.drills.fetch import Fetcher
from slipway.backup.drills.refill import Refill
from slipway.backup.manifest import Manifest
from slipway.backup.stores.store import DirectoryStore
from slipway.backup.taking import take

from benchmarks.common import Figure, Result, busy, progress
from tests.unit.backup.postgres import server

NAME = "bench"
DATA = """
CREATE TABLE customers (id int PRIMARY KEY, name text, mail text UNIQUE);
INSERT INTO customers SELECT i, 'customer ' || md5(i::text), md5(i::text) || '@example.org' FROM generate_series(1, 50000) i;
CREATE TABLE events (id bigint PRIMARY KEY, at timestamptz, customer int REFERENCES customers, kind text, payload jsonb);
INSERT INTO events SELECT i, timestamptz '2026-01-01' + i * interval '0.7 s', 1 + i % 50000, (ARRAY['view','click','buy'])[1 + i % 3],
  jsonb_build_object('session', md5((i / 20)::text), 'path', '/items/' || (random() * 9999)::int, 'agent', 'Mozilla/5.0 (X11)')
  FROM generate_series(1, {rows}) i;
CREATE INDEX ON events (customer, at);
CREATE TABLE messages (id bigint PRIMARY KEY, customer int REFERENCES customers, body text, token uuid);
INSERT INTO messages SELECT g, 1 + g % 50000, repeat(md5((g % 20000)::text) || ' ', 6), md5(g::text)::uuid
  FROM generate_series(1, {rows} * 6 / 10) g;
CREATE INDEX ON messages (customer); CREATE INDEX ON messages (token);
CREATE TABLE orders (id bigint PRIMARY KEY, customer int REFERENCES customers, amount numeric(12, 2), at timestamptz, note text);
INSERT INTO orders SELECT g, 1 + g % 50000, random() * 1000, timestamptz '2026-01-01' + g * interval '2 s',
  left(md5(g::text), 20) FROM generate_series(1, {rows} / 2) g;
CREATE INDEX ON orders (customer, at);
"""  # one row of each: about 500 bytes with its indexes


def fill(where: str, megabytes: int) -> int:
    """Make the database; its size in bytes."""
    import psycopg

    with psycopg.connect(f"{where} dbname=postgres", autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {NAME}".encode())
    with psycopg.connect(f"{where} dbname={NAME}", autocommit=True) as conn:
        for statement in DATA.format(rows=megabytes * 1024 * 1024 // 500).split(";"):
            if statement.strip():
                conn.execute(statement.encode())
        conn.execute("CHECKPOINT")
        row = conn.execute(f"SELECT pg_database_size('{NAME}')".encode()).fetchone()
    return int(row[0]) if row else 0


def into_scratch(home: Path, taken: Manifest, work: Callable[[scratch.Scratch], None]) -> tuple[float, float]:
    """Seconds of ``work`` in a new scratch cluster, and of looking at the result as a drill does."""
    name = scratch.MARK[:7] + os.urandom(3).hex()
    with scratch.cluster(home / "scratch", name, taken, memory_mb=256, jobs=2) as cluster:
        begun = time.monotonic()
        work(cluster)
        took = time.monotonic() - begun
        begun = time.monotonic()
        checks.observe(cluster, taken, jobs=2)
        checks.structure(cluster, jobs=2)
        return took, time.monotonic() - begun


def measure(where: str, home: Path, megabytes: int) -> tuple[list[Figure], dict[str, object]]:
    """Fill, back up twice, restore three times."""
    socket = dict(each.split("=", 1) for each in where.split())["host"]
    identity, recipients, plain = home / "identity", home / "recipients", home / "plain.dump"
    subprocess.run(["age-keygen", "-o", str(identity)], check=True, capture_output=True)
    done = subprocess.run(["age-keygen", "-y", str(identity)], check=True, capture_output=True)
    recipients.write_bytes(done.stdout)
    progress(f"filling a database with about {megabytes} MB ...")
    size = fill(where, megabytes)
    store = DirectoryStore(home / "store")
    (home / "state").mkdir()
    source = argv.Server(socket, 5432, "postgres")
    around = take.Around(server=source, state=home / "state", recipients=recipients, metrics=home, cores=2)

    def back_up(parallel_mb: int) -> Manifest:
        config = Config("bench", Place("directory", "/x"), (NAME,), left_out=("postgres",), parallel_mb=parallel_mb)
        progress("backing up ...")
        return take.take(
            config, store, around, identifier=manifest.backup_id(datetime.now(UTC), "bench", os.urandom(3).hex())
        ).manifest

    single, parallel = back_up(10**6), back_up(1)
    subprocess.run(["pg_dump", "-Fc", "-Z0", "-f", str(plain), "-d", f"{where} dbname={NAME}"], check=True)
    times: dict[str, tuple[float, float]] = {}
    detail: dict[str, object] = {"bytes": size, "stored": single.stored_bytes, "plain": plain.stat().st_size}

    def by_hand(cluster: scratch.Scratch) -> None:
        command = ["pg_restore", "-j2", "--create", "-d", cluster.server.conninfo(cluster.maintenance), str(plain)]
        subprocess.run(command, check=True, env={**os.environ, **cluster.env})

    def by_drill(taken: Manifest, name: str) -> Callable[[scratch.Scratch], None]:
        def work(cluster: scratch.Scratch) -> None:
            fetcher = Fetcher(store, str(identity), {"PATH": cluster.env["PATH"]})
            refill = Refill(fetcher, cluster.server, cluster.env, cluster.private, cluster.maintenance, 2)
            refill.globals(refill.read_globals(taken), scratch.bootstrap_of(taken))
            refill.database(taken, NAME)
            detail[name] = vars(refill.times)

        return work

    for name, taken, work in (
        ("plain", single, by_hand),
        ("one dump", single, by_drill(single, "one dump")),
        ("streams", parallel, by_drill(parallel, "streams")),
    ):
        progress(f"{name} ...")
        times[name] = into_scratch(home, taken, work)
        progress(f"{name}: {times[name][0]:.1f} s, and {times[name][1]:.1f} s to look at it: {detail.get(name, '')}")
    detail["seconds"] = times
    hand = times["plain"][0]
    return [
        Figure("the database, indexes included", size / 1024**2, "MB"),
        Figure("plain pg_restore -j2 of a local file", hand, "s"),
        Figure("drill, a backup of one dump: fetch, decrypt, restore", times["one dump"][0], "s"),
        Figure("drill, a backup of several streams: the same", times["streams"][0], "s"),
        Figure("one dump / plain", times["one dump"][0] / hand, "", 1.2),
        Figure("several streams / plain", times["streams"][0] / hand, "", 1.2),
        Figure("comparing, hashing and pg_amcheck, beside", times["one dump"][1], "s"),
    ], detail


def main(arguments: list[str] | None = None) -> int:
    """Run; 0 when every bound is met, 1 when one is missed, 2 when it could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.restore", description=__doc__)
    parser.add_argument("--mb", type=int, default=1024, help="of rows and indexes")
    options = parser.parse_args(arguments)
    if missing := [name for name in ("pg_dump", "zstd", "age", "age-keygen") if shutil.which(name) is None]:
        progress(f"{', '.join(missing)} is not installed: run bin/setup")
        return 2
    noise = busy()
    home = Path(tempfile.mkdtemp(prefix="slipway-bench-"))
    home.chmod(0o711)
    try:
        with server() as where:
            figures, detail = measure(where, home, options.mb)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    result = Result("restore", figures, detail=detail)
    result.notes = [
        *filter(None, [noise or busy()]),
        f"{options.mb} MB of rows and indexes; two jobs; the store is a folder of the same disk, so that fetching is as good as free.",
        "The plain restore reads an uncompressed dump in plain text: nothing to hash, decrypt or unpack.",
    ]
    return result.finish()


if __name__ == "__main__":
    sys.exit(main())
