# SPDX-License-Identifier: Apache-2.0
"""``python -m benchmarks.backup``: what a backup costs, beside the plain tools and in one run.

A throwaway PostgreSQL of this machine with 1 GB of rows such as an app has. CPU time is told of the programs alone and
with that of the server's processes that work for them. The manifest's counting and hashing is measured by itself and
told apart: the plain tools do nothing like it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import beside, pgbench
from benchmarks.common import Figure, Result, busy, progress
from benchmarks.meter import Cost, Meter
from tests.unit.backup.fake_s3 import FakeS3
from tests.unit.backup.postgres import server

NAME = "bench"
# As role postgresql sizes a server of 2 cores and 4 GB that it shares with the app; commits wait for the disk.
SETTINGS = """shared_buffers=1GB
effective_cache_size=3GB
work_mem=14MB
maintenance_work_mem=128MB
max_wal_size=4GB
min_wal_size=1GB
checkpoint_timeout=15min
wal_compression=lz4
random_page_cost=1.1
jit=off
max_parallel_workers_per_gather=0
fsync=on
autovacuum=off
"""  # autovacuum: its work would be counted as somebody's
OURS = ("single", "parallel", "s3", "parallel s3")
PARTS = {
    "cost": ("warm-up", "plain", "gzip", "hash", "single", "s3"),
    "streams": ("warm-up", "one stream", "streams", "single", "parallel", "parallel s3"),
    "beside": ("warm-up", "plain", "rclone", "s3", "pgbackrest", "single"),
    "app": ("app", "app in streams"),
}
DATA = """
CREATE TABLE words AS SELECT i, (SELECT string_agg((ARRAY['invoice','customer','the','a','is','order','total','sent',
  'yesterday','payment','please','team','review','update','meeting','project','before','after','with','from','new','open',
  'closed','issue','thanks','regards','price','shipping','address','account'])[1 + floor(random() * 29.99)::int], ' ')
  FROM generate_series(1, 22 + i * 0)) AS text FROM generate_series(1, 20000) i;
CREATE TABLE events (id bigint, at timestamptz, user_id int, kind text, payload jsonb);
INSERT INTO events SELECT i, timestamptz '2026-01-01' + i * interval '0.7 s', (random() * 50000)::int,
  (ARRAY['view','click','buy','login'])[1 + i % 4], jsonb_build_object('session', md5((i / 20)::text), 'path',
  '/items/' || (random() * 9999)::int, 'ms', (random() * 900)::int, 'agent', 'Mozilla/5.0 (X11 Linux x86_64)')
  FROM generate_series(1, {rows}) i;
CREATE TABLE messages (id bigint, author int, body text, token uuid);
INSERT INTO messages SELECT g, (random() * 50000)::int, a.text || ' ' || b.text, md5(random()::text)::uuid
  FROM generate_series(1, {rows} * 6 / 10) g JOIN words a ON a.i = 1 + (g::bigint * 7919) % 20000
  JOIN words b ON b.i = 1 + (g::bigint * 104729) % 19997;
CREATE TABLE orders (id bigint, customer int, amount numeric(12, 2), paid bool, at timestamptz, note text);
INSERT INTO orders SELECT g, (random() * 50000)::int, random() * 1000, random() > 0.1,
  timestamptz '2026-01-01' + g * interval '2 s', left(w.text, 40) FROM generate_series(1, {rows} * 5 / 10) g
  JOIN words w ON w.i = 1 + g % 20000;
"""  # one row of each: about 430 bytes


@dataclass(frozen=True)
class Bench:
    """The database and what is run on it. ``socket``: folder of the server's socket; ``cores``: a backup may count on."""

    home: Path
    socket: str
    data: Path
    cores: int
    bucket: FakeS3

    @property
    def where(self) -> str:
        """A connection string of the database."""
        return f"host={self.socket} user=postgres dbname={NAME}"

    def plain(self, options: str = "-Z0", then: str = "") -> list[str]:
        """``pg_dump`` and what comes after it."""
        return ["bash", "-c", f"set -o pipefail; pg_dump -Fc {options} -d '{self.where}' {then} > /dev/null"]

    @property
    def sealing(self) -> str:
        """What the plain tools do to a dump: as many threads of zstd as a backup has."""
        threads = max(1, min(4, self.cores // 2))
        return f"| zstd -q -3 -T{threads} -c | age --encrypt -R {self.home}/recipients"

    def ours(self, what: str, *, bucket: bool = False, parallel_mb: int = 10**6) -> list[str]:
        """The product, in a process of its own."""
        given = {"what": what, "home": str(self.home), "socket": self.socket, "database": NAME, "cores": self.cores,
                 "parallel_mb": parallel_mb, "endpoint": self.bucket.endpoint if bucket else ""}  # fmt: skip
        return [sys.executable, "-m", "benchmarks.one_backup", json.dumps(given)]

    def commands(self) -> dict[str, Callable[[Meter], Cost]]:
        """What can be measured, by name."""

        def of(argv: list[str]) -> Callable[[Meter], Cost]:
            return lambda meter: meter.run(argv)

        return {
            "warm-up": of(self.plain()),
            "plain": of(self.plain(then=self.sealing)),
            "gzip": of(self.plain("")),
            "hash": of(self.ours("hash")),
            "single": of(self.ours("run")),
            "s3": of(self.ours("run", bucket=True)),
            "parallel": of(self.ours("run", parallel_mb=1)),
            "parallel s3": of(self.ours("run", bucket=True, parallel_mb=1)),
            "one stream": of(self.ours("dumps")),
            "streams": of(self.ours("dumps", parallel_mb=1)),
            "rclone": lambda meter: beside.rclone(meter, self.where, self.sealing, self.bucket.endpoint),
            "pgbackrest": lambda meter: beside.pgbackrest(meter, self.socket, self.data, self.home, self.cores),
            "app": lambda _meter: Cost(0, 0, 0, pgbench.felt(self.socket, self.ours("run"))),
            "app in streams": lambda _meter: Cost(0, 0, 0, pgbench.felt(self.socket, self.ours("run", parallel_mb=1))),
        }


def figures(costs: dict[str, Cost]) -> list[Figure]:
    """The figures with their bounds, of what was measured."""
    found: list[Figure] = []
    for name, cost in costs.items():
        if cost.wall and name != "warm-up":
            found += [
                Figure(f"{name}: wall", cost.wall, "s"),
                Figure(f"{name}: CPU of the programs", cost.programs, "s"),
                Figure(f"{name}: CPU with the server's", cost.cpu, "s"),
                Figure(f"{name}: memory of all programs", cost.memory, "MB", 200 if name in OURS else None),
            ]
            if stored := cost.told.get("stored"):
                found.append(Figure(f"{name}: stored", stored / 2**20, "MB"))
    for ratio, needs in (
        (_cost, PARTS["cost"]),
        (_streams, PARTS["streams"]),
        (_streams_cost, ("plain", "hash", "parallel")),
        (_app, PARTS["app"]),
    ):
        if all(name in costs for name in needs if name != "warm-up"):
            found += ratio(costs)
    return found


def _cost(costs: dict[str, Cost]) -> list[Figure]:
    plain, gzip, hashing, single, bucket = (costs[name] for name in ("plain", "gzip", "hash", "single", "s3"))
    return [
        Figure("backup run without its hashing / plain tools: CPU", (single.cpu - hashing.cpu) / plain.cpu, "", 1.15),
        Figure("the same into a bucket / plain tools: CPU", (bucket.cpu - hashing.cpu) / plain.cpu, ""),
        Figure("backup run / gzip: CPU of the programs", single.programs / gzip.programs, "", 1 / 2.5),
        Figure(
            "backup run without its hashing / gzip: CPU with the server's",
            (single.cpu - hashing.cpu) / gzip.cpu,
            "",
            1 / 2.5,
        ),
        Figure("snapshot held, one stream", single.told.get("held_ms", 0) / 1000, "s"),
    ]


def _streams(costs: dict[str, Cost]) -> list[Figure]:
    one, several = costs["one stream"], costs["streams"]
    return [
        Figure(
            "several streams / one: wall time of the whole run",
            costs["parallel"].wall / costs["single"].wall,
            "",
            1 / 1.3,
        ),
        Figure("several streams / one: wall time of the dumps alone", several.wall / one.wall, "", 1 / 1.3),
        Figure("one stream: processors in use", one.cpu / one.wall, ""),
        Figure("several streams: processors in use", several.cpu / several.wall, ""),
        Figure("snapshot held, several streams", costs["parallel"].told.get("held_ms", 0) / 1000, "s"),
    ]


def _streams_cost(costs: dict[str, Cost]) -> list[Figure]:
    more = (costs["parallel"].cpu - costs["hash"].cpu) / costs["plain"].cpu
    return [Figure("backup run in several streams, without its hashing / plain tools: CPU", more, "", 1.15)]


def _app(costs: dict[str, Cost]) -> list[Figure]:
    found: list[Figure] = []
    for name, backup in (("app", "a backup"), ("app in streams", "a backup in several streams")):
        told = costs[name].told
        found += [
            *(
                Figure(f"pgbench {when} {backup}", told[when], "transactions/s")
                for when in ("before", "during", "after")
            ),
            Figure(f"pgbench in the worst five seconds of {backup}", told["worst"], "transactions/s"),
            Figure(f"pgbench without {backup} / during one: transactions", told["alone"] / told["during"], "", 1 / 0.7),
        ]
    return found


def fill(socket: str, megabytes: int) -> tuple[int, Path]:
    """Make the database, unless it is there (of an earlier run on a server that was given); the postmaster and its data."""
    import psycopg

    with psycopg.connect(f"host={socket} user=postgres dbname=postgres", autocommit=True) as conn:
        there = conn.execute(f"SELECT FROM pg_database WHERE datname = '{NAME}'".encode()).fetchone() is not None
        if not there:
            conn.execute(f"CREATE DATABASE {NAME}".encode())
    with psycopg.connect(f"host={socket} user=postgres dbname={NAME}", autocommit=True) as conn:
        for statement in [] if there else DATA.format(rows=megabytes * 1024 * 1024 // 430).split(";"):
            if statement.strip():
                conn.execute(statement.encode())
        conn.execute("VACUUM ANALYZE")
        conn.execute("CHECKPOINT")
        ((size, data),) = conn.execute(
            f"SELECT pg_database_size('{NAME}') / 1048576, current_setting('data_directory')".encode()
        ).fetchall()
        progress(f"a database of {size} MB")
        postmaster = int(Path(f"/proc/{conn.info.backend_pid}/stat").read_text().rsplit(") ", 1)[1].split()[1])
        return postmaster, Path(data)


def measure(socket: str, home: Path, megabytes: int, cores: int, names: list[str]) -> dict[str, Cost]:
    """Fill a database and run ``names`` on it, one after the other."""
    subprocess.run(["age-keygen", "-o", str(home / "identity")], check=True, capture_output=True)
    done = subprocess.run(["age-keygen", "-y", str(home / "identity")], check=True, capture_output=True)
    (home / "recipients").write_bytes(done.stdout)
    postmaster, data = fill(socket, megabytes)
    meter, bucket = Meter(postmaster), FakeS3()
    commands = Bench(home, socket, data, cores, bucket).commands()
    costs = {}
    try:
        for name in names:
            if missing := beside.missing(name):
                progress(f"{name}: left out, {missing} is not installed (apt-get install {missing})")
                continue
            progress(f"{name} ...")
            try:
                costs[name] = cost = commands[name](meter)
            except subprocess.CalledProcessError as error:
                if not beside.needs(name):
                    raise
                progress(f"{name}: left out, it ended with code {error.returncode}")
                continue
            cost.told.setdefault("stored", sum(len(found[0].body) for found in bucket.objects.values()))
            progress(
                f"{name}: {cost.wall:.1f} s, CPU {cost.cpu:.1f} s, {cost.memory:.0f} MB, load {cost.load:.1f} {cost.shares} {cost.told}"
            )
            shutil.rmtree(home / "store", ignore_errors=True)
            bucket.objects.clear()
    finally:
        bucket.close()
    return costs


def main(argv: list[str] | None = None) -> int:
    """Run; 0 when every bound is met, 1 when one is missed, 2 when it could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.backup", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; without one, all")
    parser.add_argument("--mb", type=int, default=1024, help="of rows")
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)), help="that the backup may count on")
    parser.add_argument("--fill", action="store_true", help="only fill the server of SLIPWAY_TEST_PG, for a run later")
    options = parser.parse_args(argv)
    parts = options.parts or list(PARTS)
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no part is called {', '.join(sorted(unknown))}: there are {', '.join(PARTS)}")
    if missing := [name for name in ("pg_dump", "zstd", "age", "age-keygen") if shutil.which(name) is None]:
        progress(f"{', '.join(missing)} is not installed: run bin/setup")
        return 2
    noise = busy()
    home = Path(tempfile.mkdtemp(prefix="slipway-bench-"))
    try:
        with server(SETTINGS) as conninfo:
            socket = dict(each.split("=", 1) for each in conninfo.split())["host"]
            if options.fill:
                fill(socket, options.mb)
                return 0
            names = list(dict.fromkeys(name for part in parts for name in PARTS[part]))
            costs = measure(socket, home, options.mb, options.cores, names)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    result = Result("backup" if not options.parts else f"backup-{'-'.join(parts)}", figures(costs))
    result.detail = {name: cost.__dict__ for name, cost in costs.items()}
    result.notes = [
        *filter(None, [noise or busy()]),
        f"{options.mb} MB of rows, {options.cores} cores.",
        "The bucket is a stand-in on this machine, whose own work is not counted; memory is that of the agent, pg_dump, "
        "zstd and age together, without the server's.",
    ]
    return result.finish()


if __name__ == "__main__":
    sys.exit(main())
