# SPDX-License-Identifier: Apache-2.0
"""One database into the store: several dumps of one snapshot at once, and meanwhile what the manifest says of it.

The connection that holds the snapshot also holds a reader's lock on every table and reads them for the manifest; the
dumps start beside it. Whatever fails first stops all the others.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import argv, catalog
from ..manifest import Database, StoredObject, Table
from ..pipeline import PipelineError, Stage, run
from ..stopping import Stop
from ..stores.store import MB, Lock, Store, part_size_for
from . import source
from .runs import Uploads
from .watching import Watch

if TYPE_CHECKING:
    from psycopg import Connection

NAMED = 400  # tables that are named to a stream at most: an argument list has its limits
_STREAMED = """
SELECT format('%I.%I', n.nspname, c.relname), pg_table_size(c.oid) FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND NOT EXISTS (
  SELECT FROM pg_depend e WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e')
"""


@dataclass(frozen=True)
class Means:
    """All that dumping takes. ``folder``: of PostgreSQL's programs. ``empty``: see ``source.nothing_sealed``.

    ``memory``: bytes for parts on their way, over all streams. ``streams``, ``readers``: at once at most.
    ``give_way``: seconds that somebody may wait for a lock of ours before the backup ends (0: for ever).
    ``warnings``: what people should look at though the backup is good; filled on the way.
    ``apart``: count and hash after the dumps and not beside them.
    """

    server: argv.Server
    store: Store
    uploads: Uploads
    prefix: str
    recipients: Path
    stop: Stop
    folder: str
    now: Callable[[], datetime]
    lock: Lock | None = None
    level: int = 1
    threads: int = 1
    streams: int = 1
    readers: int = 1
    memory: int = 160 * MB
    lock_wait: int = 60
    give_way: int = 20
    full_bytes: int = catalog.FULL_HASH_BYTES
    parallel_bytes: int = 1024 * MB
    empty: int = 0
    warnings: list[str] = field(default_factory=list)
    apart: bool = False


@dataclass(frozen=True)
class Part:
    """One object to be: what it holds, and the command whose output it is. ``expected``: bytes before compression."""

    holds: str
    command: Sequence[str]
    database: str = ""
    stream: int = 0
    expected: int = 0


@dataclass(frozen=True)
class Dumped:
    """A database that is in the store whole, with the time that counting and hashing it took."""

    database: Database
    objects: tuple[StoredObject, ...]
    hash_ms: int


def key(prefix: str, place: int, part: Part) -> str:
    """The object's key. A database may have any name, a key may not."""
    name = part.database
    if name and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,60}", name):
        name = f"x{hashlib.sha256(name.encode()).hexdigest()[:12]}"
    return f"{prefix}/{place:02}-{part.holds}" + (f"-{name}" if name else "")


def send(means: Means, place: int, part: Part, *, at_once: int = 1) -> StoredObject:
    """Run one command through zstd and age into an object. ``at_once``: how many share the memory and the cores.

    Raises PipelineError, StoreError, or what stops the run.
    """
    concurrency = 2 if at_once <= 2 else 1
    size = part_size_for(part.expected, memory=means.memory // at_once, concurrency=concurrency)
    program = Path(part.command[0]).name
    stages = [
        Stage(program, argv.in_large_pieces(part.command), {"PGAPPNAME": source.APPLICATION}),
        Stage("zstd", argv.compress(means.level, max(1, means.threads // at_once))),
        Stage("age", argv.encrypt(str(means.recipients))),
    ]
    target = key(means.prefix, place, part)
    means.stop.check()
    with means.store.upload(target, part_size=size, concurrency=concurrency, lock=means.lock) as upload:
        note = means.uploads.note(target, upload.id)
        flow = run(stages, upload.write, hashed=False, watch=means.stop.check)
        if flow.size <= means.empty:
            raise PipelineError(
                f"{program} ended without an error and without any output"
                + (f" (database {part.database})" if part.database else ""),
                "a dump", culprit=program,
            )  # fmt: skip
        means.stop.check()
        sent = upload.complete()
    note.unlink(missing_ok=True)
    if upload.unlocked:
        means.warnings.append(upload.unlocked)
    return StoredObject(**asdict(sent), holds=part.holds, database=part.database, stream=part.stream)


def parts_of(means: Means, database: str, snapshot: str, sizes: Mapping[str, int], total: int) -> list[Part]:
    """How a database is dumped: whole, or from ``parallel_bytes`` on in several streams. In the order of restoring."""
    command = _dump(means, database, snapshot)
    if total < means.parallel_bytes or means.streams < 2:
        return [Part("dump", command(), database, expected=total)]
    smallest = max(MB, min(64 * MB, total // (16 * means.streams)))
    largest = dict(sorted(sizes.items(), key=lambda item: -item[1])[:NAMED])
    shares = argv.streams(largest, means.streams, smallest=smallest)
    named = [table for share in shares for table in share]
    found = [Part("schema", command(section="pre-data"), database, expected=MB)]
    for number, share in enumerate(shares):
        expected = sum(sizes[table] for table in share)
        found.append(Part("data", command(section="data", tables=share), database, number, expected))
    rest = max(0, total - sum(sizes[table] for table in named))
    found.append(Part("data", command(section="data", without_data_of=named), database, len(shares), rest))
    return [*found, Part("indexes", command(section="post-data"), database, expected=MB)]


def _dump(means: Means, database: str, snapshot: str) -> Callable[..., list[str]]:
    def command(**given: Any) -> list[str]:
        made = argv.dump(means.server, database, snapshot=snapshot, lock_wait=means.lock_wait, **given)
        return [means.folder + made[0], *made[1:]]

    return command


def dump_database(means: Means, found: source.Found, token: str, first: int) -> Dumped:
    """Back up one database; its objects are numbered from ``first``. Raises SlipwayError, with everything stopped."""
    with (
        source.connect(means.server, found.name) as conn,
        contextlib.closing(Watch(means.server, found.name, conn.info.backend_pid, means.give_way)) as watch,
    ):
        catalog.stamp(conn, token)
        exported, snapshot = catalog.hold(conn, lock_timeout=means.lock_wait)
        sequences = catalog.read_sequences(conn)
        listed = catalog.lock_tables(conn)
        sizes = {name: size or 0 for name, size in source.rows(conn, _STREAMED)}
        parts = parts_of(means, found.name, exported, sizes, found.bytes)
        readers = [conn]
        at_once = max(1, sum(part.holds in ("dump", "data") for part in parts))

        def read() -> tuple[Database, int]:
            begun = time.monotonic()
            tables = _read_tables(means, readers, found.name, exported, listed)
            seen = catalog.read_database(conn, snapshot, sequences=sequences, tables=tables)
            return seen, int((time.monotonic() - begun) * 1000)

        # The streams with rows first: all of them are to have their locks before anybody else waits for one.
        order = sorted(range(len(parts)), key=lambda place: -parts[place].expected)
        with ThreadPoolExecutor(at_once + 1, thread_name_prefix="backup") as pool:
            early = [] if means.apart else [pool.submit(read)]
            sending = {place: pool.submit(send, means, first + place, parts[place], at_once=at_once) for place in order}
            _together(means.stop, [*early, *sending.values()], readers, watch)
            reading = early[0] if early else pool.submit(read)
            _together(means.stop, [reading], readers, watch)
        seen, hash_ms = reading.result()
        snapshot = catalog.release(conn, snapshot, means.now())
    objects = tuple(sending[place].result() for place in range(len(parts)))
    return Dumped(replace(seen, snapshot=snapshot), objects, hash_ms)


def _together(
    stop: Stop, tasks: Sequence[Future[Any]], readers: Sequence[Connection[Any]], watch: Callable[[], None]
) -> None:
    """Wait for all; the first that fails stops the rest, a running query included. Raises its error."""
    left = set(tasks)
    while left:
        done, left = wait(left, timeout=0.5, return_when=FIRST_COMPLETED)
        for each in done:
            if (error := each.exception()) is not None:
                stop.because(error)
        try:
            stop.check()
            watch()
        except BaseException as error:
            stop.because(error)
            for each in left:
                each.cancel()
            while left:
                for conn in readers:
                    with contextlib.suppress(Exception):  # gone already
                        conn.cancel()
                _, left = wait(left, timeout=0.5)
            raise


def _read_tables(
    means: Means, readers: list[Connection[Any]], database: str, snapshot: str, listed: Sequence[tuple[Any, ...]]
) -> tuple[Table, ...]:
    """Count and hash every table, the largest first; on several connections where there are cores for it."""
    order = sorted(range(len(listed)), key=lambda place: -(listed[place][1] or 0))
    found: dict[int, Table] = {}
    guard = threading.Lock()

    def work(on: Connection[Any]) -> None:
        while True:
            means.stop.check()
            with guard:
                if not order:
                    return
                place = order.pop(0)
            found[place] = catalog.read_table(on, *listed[place], full_bytes=means.full_bytes)

    def join() -> None:
        with source.connect(means.server, database) as helper:
            readers.append(helper)
            catalog.join(helper, snapshot, lock_timeout=means.lock_wait)
            work(helper)

    helpers = min(means.readers - 1, len(listed) // 2)
    with ThreadPoolExecutor(max(1, helpers), thread_name_prefix="reading") as pool:
        joined = [pool.submit(join) for _ in range(helpers)]
        work(readers[0])
        for each in joined:
            each.result()
    return tuple(found[place] for place in range(len(listed)))
