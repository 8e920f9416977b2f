# SPDX-License-Identifier: Apache-2.0
"""``python -m benchmarks.backup``: what a backup costs, beside the plain tools and in one run.

A throwaway PostgreSQL of this machine with 1 GB of rows such as an app has. CPU time is that of the programs *and* of
the server's processes that work for them. The manifest's counting and hashing is measured by itself and told apart: the
plain tools do nothing like it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT, Figure, Result, busy, progress
from tests.unit.backup.fake_s3 import FakeS3
from tests.unit.backup.postgres import server

NAME = "bench"
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
CHILD = """
import json, sys
from pathlib import Path
from concurrent.futures import ThreadPoolExecutor
from slipway.backup import argv, catalog
from slipway.backup.config import Config, Place
from slipway.backup.stores.s3 import Bucket, S3Store
from slipway.backup.stores.store import DirectoryStore
from slipway.backup.taking import dumping, runs, source, take
given = json.loads(sys.argv[1])
home = Path(given["home"])
server = argv.Server(given["socket"], 5432, "postgres")
if given["what"] == "hash":
    with source.connect(server, given["database"]) as conn, catalog.snapshot_of(conn) as snapshot:
        catalog.read_database(conn, snapshot)
    sys.exit()
if given["what"] == "streams":  # the dumps alone, as a run starts them
    around = take.Around()
    level, threads = argv.compression(given["cores"])
    means = dumping.Means(server, DirectoryStore(home / "store"), runs.Uploads(home), "bench/x", home / "recipients",
        around.stop, "", around.now, level=level, threads=threads, streams=given["cores"],
        parallel_bytes=given["parallel_mb"] << 20)
    with source.connect(server, given["database"]) as conn:
        exported, _ = catalog.hold(conn)
        sizes = {name: size or 0 for name, size in source.rows(conn, dumping._STREAMED)}
        parts = dumping.parts_of(means, given["database"], exported, sizes, sum(sizes.values()))
        at_once = max(1, sum(part.holds in ("dump", "data") for part in parts))
        with ThreadPoolExecutor(at_once) as pool:
            list(pool.map(lambda place: dumping.send(means, place, parts[place], at_once=at_once), range(len(parts))))
    sys.exit()
store = S3Store(Bucket("b", given["endpoint"], "r", "k", "s")) if given["endpoint"] else DirectoryStore(home / "store")
around = take.Around(server=server, state=home / "state", recipients=home / "recipients", metrics=home, cores=given["cores"])
config = Config("bench", Place("directory", "/x"), (), left_out=("postgres", "app"), parallel_mb=given["parallel_mb"])
done = take.run(config, lambda: store, around)
print(json.dumps({"hash_ms": done.hash_ms, "held_ms": done.held_ms, "stored": done.stored_bytes}))
"""


@dataclass
class Cost:
    """What one command took: seconds of wall and CPU time, and the most memory of its programs together, in MB."""

    wall: float
    cpu: float
    memory: float
    told: dict[str, Any] = field(default_factory=dict)


class Meter:
    """Measures commands against one server. ``postmaster``: its pid."""

    def __init__(self, postmaster: int) -> None:
        self._postmaster = postmaster

    def cpu(self) -> float:
        """Seconds so far of our ended children and of the server's ended processes."""
        fields = Path(f"/proc/{self._postmaster}/stat").read_text().rsplit(") ", 1)[1].split()
        ours = os.times()
        return (
            ours.children_user + ours.children_system + (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")
        )

    def run(self, argv: list[str]) -> Cost:
        """Run it; its output, if any, is JSON. Raises CalledProcessError."""
        before, begun, peak, over = self.cpu(), time.monotonic(), 0.0, threading.Event()
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "plugins/module_utils")}
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, env=environment)

        def sample() -> None:
            nonlocal peak
            while not over.wait(0.2):
                peak = max(peak, sum(memory(pid) for pid in tree(process.pid)) / 1024)

        sampler = threading.Thread(target=sample)
        sampler.start()
        out, _ = process.communicate()
        wall = time.monotonic() - begun
        over.set()
        sampler.join()
        if process.returncode != 0:
            raise subprocess.CalledProcessError(process.returncode, argv)
        time.sleep(0.5)  # the server's processes end a moment later
        return Cost(wall, self.cpu() - before, peak, json.loads(out) if out else {})


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            children.setdefault(int(stat.read_text().rsplit(") ", 1)[1].split()[1]), []).append(int(stat.parent.name))
        except (OSError, IndexError):
            continue
    found, todo = [], [pid]
    while todo:
        found.append(todo.pop())
        todo += children.get(found[-1], [])
    return found


def memory(pid: int) -> int:
    """A process' share of memory in kB (shared pages counted in part); 0 once it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def figures(costs: dict[str, Cost]) -> list[Figure]:
    """The figures with their bounds."""
    plain, gzip, hashing = costs["plain"], costs["gzip"], costs["hash"]
    single, parallel, bucket = costs["single"], costs["parallel"], costs["s3"]
    return [
        Figure("pg_dump -Fc -Z0, zstd, age: CPU", plain.cpu, "s"),
        Figure("pg_dump -Fc with gzip: CPU", gzip.cpu, "s"),
        Figure("counting and hashing for the manifest: CPU", hashing.cpu, "s"),
        Figure("backup run, one stream: CPU", single.cpu, "s"),
        Figure("backup run without its hashing / plain tools: CPU", (single.cpu - hashing.cpu) / plain.cpu, "", 1.15),
        Figure("the same into a bucket / plain tools: CPU", (bucket.cpu - hashing.cpu) / plain.cpu, ""),
        Figure("backup run without its hashing / gzip: CPU", (single.cpu - hashing.cpu) / gzip.cpu, "", 1 / 2.5),
        Figure("memory of all programs, one stream into a bucket", bucket.memory, "MB", 200),
        Figure("memory of all programs, several streams", parallel.memory, "MB", 200),
        Figure("plain tools: wall time", plain.wall, "s"),
        Figure("backup run, one stream: wall time", single.wall, "s"),
        Figure("backup run, several streams: wall time", parallel.wall, "s"),
        Figure("several streams / one: wall time of the whole run", parallel.wall / single.wall, ""),
        Figure(
            "several streams / one: wall time of the dumps alone",
            costs["streams"].wall / costs["one stream"].wall,
            "",
            1 / 1.3,
        ),
        Figure(
            "pgbench alone / during a backup: transactions", single.told["alone"] / single.told["during"], "", 1 / 0.7
        ),
        Figure("snapshot held, one stream", single.told["held_ms"] / 1000, "s"),
        Figure("snapshot held, several streams", parallel.told["held_ms"] / 1000, "s"),
    ]


def felt(socket: str, command: list[str], seconds: int = 15) -> dict[str, float]:
    """Transactions a second of an app that asks for all it can get (pgbench, 8 clients), alone and during a backup.

    The backup's programs run at the nice value of their unit; its server processes cannot.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "plugins/module_utils")}
    tool = [program("pgbench"), "-h", socket, "-U", "postgres"]
    subprocess.run([*tool, "-i", "-q", "-s", "10", "app"], check=True, capture_output=True)

    def rate() -> float:
        done = subprocess.run(
            [*tool, "-c", "8", "-j", "2", "-T", str(seconds), "app"], check=True, capture_output=True, text=True
        )
        return float(re.search(r"tps = ([0-9.]+)", done.stdout)[1])  # type: ignore[index]

    rate()
    alone = rate()
    over = threading.Event()

    def again_and_again() -> None:
        while not over.is_set():
            subprocess.run(["nice", "-n", "10", *command], check=True, capture_output=True, env=environment)

    worker = threading.Thread(target=again_and_again)
    worker.start()
    try:
        time.sleep(2)
        during = rate()
    finally:
        over.set()
        worker.join()
    return {"alone": alone, "during": during}


def program(name: str) -> str:
    """One of PostgreSQL's programs, which Debian keeps off the PATH in part."""
    found = shutil.which(name)
    return found or str(max(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3])))


def fill(socket: str, megabytes: int) -> int:
    """Make the database, unless it is there (of an earlier run on a server that was given); the pid of the postmaster."""
    import psycopg

    with psycopg.connect(f"host={socket} user=postgres dbname=postgres", autocommit=True) as conn:
        there = conn.execute(f"SELECT FROM pg_database WHERE datname = '{NAME}'".encode()).fetchone() is not None
        if not there:
            conn.execute(f"CREATE DATABASE {NAME}".encode())
    with psycopg.connect(f"host={socket} user=postgres dbname={NAME}", autocommit=True) as conn:
        for statement in [] if there else DATA.format(rows=megabytes * 1024 * 1024 // 430).split(";"):
            if statement.strip():
                conn.execute(statement.encode())
        conn.execute("ALTER SYSTEM SET autovacuum = off")  # its work would be counted as somebody's
        conn.execute("SELECT pg_reload_conf()")
        conn.execute("VACUUM ANALYZE")
        conn.execute("CHECKPOINT")
        ((size,),) = conn.execute(f"SELECT pg_database_size('{NAME}') / 1048576").fetchall()
        progress(f"a database of {size} MB")
        return int(Path(f"/proc/{conn.info.backend_pid}/stat").read_text().rsplit(") ", 1)[1].split()[1])


def measure(socket: str, home: Path, megabytes: int, cores: int) -> dict[str, Cost]:
    """Fill a database and run everything on it once."""
    import psycopg

    recipients = home / "recipients"
    subprocess.run(["age-keygen", "-o", str(home / "identity")], check=True, capture_output=True)
    done = subprocess.run(["age-keygen", "-y", str(home / "identity")], check=True, capture_output=True)
    recipients.write_bytes(done.stdout)
    backend = fill(socket, megabytes)
    meter = Meter(backend)
    where = f"host={socket} user=postgres dbname={NAME}"
    level, threads = (1, 1) if cores == 1 else (3, max(1, min(4, cores // 2)))
    pipeline = f"pg_dump -Fc -Z0 -d '{where}' | zstd -q -{level} -T{threads} -c | age --encrypt -R {recipients}"
    bucket = FakeS3()

    def agent(what: str, endpoint: str = "", parallel_mb: int = 10**6) -> list[str]:
        given = {"what": what, "home": str(home), "socket": socket, "endpoint": endpoint, "cores": cores,
                 "parallel_mb": parallel_mb, "database": NAME}  # fmt: skip
        return [sys.executable, "-c", CHILD, json.dumps(given)]

    commands = {
        "warm-up": ["bash", "-c", f"pg_dump -Fc -Z0 -d '{where}' > /dev/null"],
        "plain": ["bash", "-c", f"set -o pipefail; {pipeline} > /dev/null"],
        "single": agent("run"),
        "parallel": agent("run", parallel_mb=1),
        "one stream": agent("streams"),
        "streams": agent("streams", parallel_mb=1),
        "hash": agent("hash"),
        "s3": agent("run", bucket.endpoint),
        "gzip": ["bash", "-c", f"pg_dump -Fc -d '{where}' > /dev/null"],
    }
    costs = {}
    try:
        for name, command in commands.items():
            progress(f"{name} ...")
            costs[name] = meter.run(command)
            progress(f"{name}: {costs[name].wall:.1f} s, CPU {costs[name].cpu:.1f} s, {costs[name].memory:.0f} MB")
            shutil.rmtree(home / "store", ignore_errors=True)
            bucket.objects.clear()
        with psycopg.connect(f"host={socket} user=postgres dbname=postgres", autocommit=True) as conn:
            conn.execute("DROP DATABASE IF EXISTS app")
            conn.execute("CREATE DATABASE app")
        progress("an app beside it ...")
        costs["single"].told |= felt(socket, commands["single"])
    finally:
        bucket.close()
    return costs


def main(argv: list[str] | None = None) -> int:
    """Run; 0 when every bound is met, 1 when one is missed, 2 when it could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.backup", description=__doc__)
    parser.add_argument("--mb", type=int, default=1024, help="of rows")
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)), help="that the backup may count on")
    parser.add_argument("--fill", action="store_true", help="only fill the server of SLIPWAY_TEST_PG, for a run later")
    options = parser.parse_args(argv)
    if missing := [name for name in ("pg_dump", "zstd", "age", "age-keygen") if shutil.which(name) is None]:
        progress(f"{', '.join(missing)} is not installed: run bin/setup")
        return 2
    noise = busy()
    home = Path(tempfile.mkdtemp(prefix="slipway-bench-"))
    try:
        with server() as conninfo:
            socket = dict(each.split("=", 1) for each in conninfo.split())["host"]
            if options.fill:
                fill(socket, options.mb)
                return 0
            costs = measure(socket, home, options.mb, options.cores)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    result = Result("backup", figures(costs))
    result.detail = {name: cost.__dict__ for name, cost in costs.items()}
    result.notes = [
        *filter(None, [noise or busy()]),
        f"{options.mb} MB of rows, {options.cores} cores; CPU time of the server's processes included.",
        "The bucket is a stand-in on this machine, whose own work is not counted; memory is that of the agent, pg_dump, "
        "zstd and age together, without the server's.",
    ]
    return result.finish()


if __name__ == "__main__":
    sys.exit(main())
