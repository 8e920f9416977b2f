# SPDX-License-Identifier: Apache-2.0
"""One database into the store: several dumps of one snapshot at once, and meanwhile what the manifest says of it.

The connection that holds the snapshot also holds a reader's lock on every table and reads them for the manifest, with
others that joined the snapshot. All dumps begin at once, so that they have their locks; their rows flow in turns, as many
at once as ``streams``. Whatever fails first stops all the others.
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
from ..stores.store import MB, PART_SIZE, Lock, Store, part_size_for
from . import source
from .runs import Uploads
from .turns import Turn, Turns
from .watching import Watch

if TYPE_CHECKING:
    from psycopg import Connection

NAMED = 400  # tables that are named to a stream at most: an argument list has its limits
# Streams of named tables at least. One more than two cores have turns for: where one ends early, the next goes on. Each
# costs a start of pg_dump, a connection, and memory while it waits.
SHARES = 3
LOOKS = 5  # for queries of the app, before a second connection hashes beside the first
CELL = 40  # bytes: what it takes to write a value as text, as a copy of so many bytes would take (docs/benchmarks.md)
_STREAMED = """
SELECT format('%I.%I', n.nspname, c.relname), pg_table_size(c.oid), greatest(c.reltuples, 0)::bigint * c.relnatts FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND NOT EXISTS (
  SELECT FROM pg_depend e WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e')
"""


@dataclass(frozen=True)
class Means:
    """All that dumping takes. ``folder``: of PostgreSQL's programs. ``empty``: see ``source.nothing_sealed``.

    ``memory``: bytes for parts on their way, over all streams. ``streams``, ``readers``: at once at most (a reader counts
    and hashes).
    ``give_way``: seconds that somebody may wait for a lock of ours before the backup ends (0: for ever).
    ``warnings``: what people should look at though the backup is good; filled on the way.
    ``apart``: count and hash not beside the dumps but where one of them has ended: ``streams`` of both at once at most.
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
    """One object to be: what it holds, and the command whose output it is. ``expected``: bytes before compression.

    ``work``: how much, as :class:`Streamed` has it.
    """

    holds: str
    command: Sequence[str]
    database: str = ""
    stream: int = 0
    expected: int = 0
    work: int = 0


@dataclass(frozen=True)
class Streamed:
    """What is known of a table before it is read. ``cells``: rows by columns, as the statistics have them; 0 without any.

    Bytes alone mislead: a table of jsonb or of many small columns takes three times as long as one of long texts.
    """

    bytes: int
    cells: int = 0

    @property
    def work(self) -> int:
        """To read it and write it as text; only to be compared."""
        return self.bytes + CELL * self.cells


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


def send(means: Means, place: int, part: Part, *, at_once: int = 1, turn: Turn | None = None) -> StoredObject:
    """Run one command through zstd and age into an object. ``at_once``: how many share the memory and the cores.

    ``turn``: waited for before the first byte is taken, while the command holds its locks; left at the end.

    Raises PipelineError, StoreError, or what stops the run.
    """
    concurrency = 2 if at_once == 1 else 1
    size = part_size_for(
        part.expected, memory=means.memory // at_once, concurrency=concurrency,
        usual=PART_SIZE if at_once <= 2 else PART_SIZE // 2,
    )  # fmt: skip
    program = Path(part.command[0]).name
    stages = [
        Stage(program, argv.in_large_pieces(part.command), {"PGAPPNAME": source.APPLICATION}),
        Stage("zstd", argv.compress(means.level, max(1, means.threads // at_once))),
        Stage("age", argv.encrypt(str(means.recipients))),
    ]
    target = key(means.prefix, place, part)
    with turn.taken() if turn else contextlib.nullcontext():
        means.stop.check()
        with means.store.upload(target, part_size=size, concurrency=concurrency, lock=means.lock) as upload:

            def take(piece: bytes) -> None:
                if turn:
                    turn.wait()
                upload.write(piece)

            note = means.uploads.note(target, upload.id)
            flow = run(stages, take, hashed=False, watch=means.stop.check)
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


def send_all(
    means: Means, parts: Sequence[Part], first: int, turns: Turns, pool: ThreadPoolExecutor
) -> list[Future[StoredObject]]:
    """Begin ``parts``, those with rows at once if ``pool`` has threads for them; in turns, the most work first.

    What has no rows comes last and takes no turn: it is read from the catalog. The futures in the order of ``parts``.
    """
    order = sorted(range(len(parts)), key=lambda place: (not _has_rows(parts[place]), -parts[place].work))
    sending: dict[int, Future[StoredObject]] = {}
    for place in order:
        turn = turns.line_up() if _has_rows(parts[place]) else None
        sending[place] = pool.submit(send, means, first + place, parts[place], at_once=turns.count, turn=turn)
    return [sending[place] for place in range(len(parts))]


def _has_rows(part: Part) -> bool:
    return part.holds in ("dump", "data")


def at_once(means: Means, parts: Sequence[Part]) -> int:
    """How many of these are to flow at once."""
    return max(1, min(means.streams, sum(map(_has_rows, parts))))


def threads_for(parts: Sequence[Part]) -> int:
    """One for each dump with rows, which is to have its locks from the beginning, and one for all the others."""
    return sum(map(_has_rows, parts)) + 1


def streamed(conn: Connection[Any]) -> dict[str, Streamed]:
    """The tables that a dump may hold rows of, by name. Raises SourceError."""
    return {name: Streamed(size or 0, cells) for name, size, cells in source.rows(conn, _STREAMED)}


def parts_of(means: Means, database: str, snapshot: str, tables: Mapping[str, Streamed], total: int) -> list[Part]:
    """How a database is dumped: whole, or from ``parallel_bytes`` on in several streams. In the order of restoring."""
    command = _dump(means, database, snapshot)
    if total < means.parallel_bytes or means.streams < 2:
        return [Part("dump", command(), database, expected=total)]
    smallest = max(MB, min(64 * MB, total // (16 * means.streams)))
    largest = sorted((name for name in tables if tables[name].bytes >= smallest), key=lambda name: -tables[name].bytes)
    work = {name: tables[name].work for name in largest[:NAMED]}
    shares = argv.streams(work, max(SHARES, means.streams), smallest=0)
    named = [table for share in shares for table in share]
    found = [Part("schema", command(section="pre-data"), database, expected=MB)]
    for number, share in enumerate(shares):
        expected = sum(tables[table].bytes for table in share)
        dump = command(section="data", tables=share)
        found.append(Part("data", dump, database, number, expected, sum(work[table] for table in share)))
    rest = max(0, total - sum(tables[table].bytes for table in named))
    work_left = rest + CELL * sum(each.cells for name, each in tables.items() if name not in work)
    dump = command(section="data", without_data_of=named)
    found.append(Part("data", dump, database, len(shares), rest, work_left))
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
        tables = streamed(conn)
        parts = parts_of(means, found.name, exported, tables, found.bytes)
        readers = [conn]
        several = at_once(means, parts)
        turns = Turns(several, means.stop.check)

        with ThreadPoolExecutor(threads_for(parts) + 1, thread_name_prefix="backup") as pool:
            sending = send_all(means, parts, first, turns, pool)
            # Behind the dumps, or in a line of their own. More than one where several dumps were too much for one.
            count = max(several, means.readers) if means.apart else means.readers
            others = turns if means.apart else Turns(count, means.stop.check)
            lined = [others.line_up() for _ in range(max(1, min(count, len(listed))))]

            def see() -> tuple[Database, int]:
                most_first = sorted(listed, key=lambda each: -tables.get(each[0], Streamed(each[1] or 0)).work)
                read, hash_ms = _read_tables(means, readers, (found.name, exported), most_first, lined)
                begun = time.monotonic()
                seen = catalog.read_database(
                    conn, snapshot, sequences=sequences, tables=tuple(read[each[0]] for each in listed)
                )
                return seen, hash_ms + int((time.monotonic() - begun) * 1000)

            reading = pool.submit(see)
            _together(means.stop, [reading, *sending], readers, watch)
        seen, hash_ms = reading.result()
        snapshot = catalog.release(conn, snapshot, means.now())
    objects = tuple(each.result() for each in sending)
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
    means: Means,
    readers: list[Connection[Any]],
    held: tuple[str, str],
    listed: Sequence[tuple[Any, ...]],
    lined: Sequence[Turn],
) -> tuple[dict[str, Table], int]:
    """Count and hash every table on as many connections as there are turns, those listed first first; and how long (ms).

    On few cores more than one connection only as long as the app asks nothing: a server process that hashes has the
    app's own priority.

    ``held``: the database and its exported snapshot. The first connection is there already, the others join its snapshot
    and have their locks before they wait.
    """
    database, snapshot = held
    order = list(listed)
    found: dict[str, Table] = {}
    guard = threading.Lock()
    begun: list[float] = []

    def work(on: Connection[Any], turn: Turn, *, aside: bool = False) -> None:
        turn.wait()
        begun.append(time.monotonic())
        looks = LOOKS
        while True:
            means.stop.check()
            if aside and source.app_at_work(on, looks, means.stop.sleep):
                return
            looks = 1
            with guard:
                if not order:
                    return
                name, *rest = order.pop(0)
            found[name] = catalog.read_table(on, name, *rest, full_bytes=means.full_bytes)

    def join(turn: Turn) -> None:
        try:
            with turn.taken(), source.connect(means.server, database) as helper:
                readers.append(helper)
                catalog.join(helper, snapshot, lock_timeout=means.lock_wait)
                catalog.lock_tables(helper)
                work(helper, turn, aside=means.apart)
        except BaseException as error:
            means.stop.because(error)  # now, and not when the first connection is done
            raise

    mine, *further = lined
    with ThreadPoolExecutor(max(1, len(further)), thread_name_prefix="reading") as pool:
        joined = [pool.submit(join, turn) for turn in further]
        with mine.taken():
            work(readers[0], mine)
        for each in joined:
            each.result()
    spent = int((time.monotonic() - min(begun)) * 1000)
    return found, spent
