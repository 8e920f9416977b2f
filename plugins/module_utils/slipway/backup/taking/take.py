# SPDX-License-Identifier: Apache-2.0
"""A backup, from the lock to the record: every database and the globals, sealed and stored, the manifest last.

:func:`take` makes one and raises what went wrong. :func:`run` is what the unit calls: the lock, the leftovers of dead
runs, the backup, and then, however it ended, a record, metrics and an alarm.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from ...errors import BusyError, SlipwayError
from .. import alarms, argv, catalog, manifest, metrics
from ..config import MB, METRICS, RECIPIENTS, STATE, Config
from ..manifest import Contents, Manifest
from ..stopping import Stop
from ..stores.s3 import S3Store
from ..stores.store import DirectoryStore, Store
from . import dumping, runs, source
from .dumping import Means, Part
from .watching import GaveWayError

TRIES = 3  # in all, when it gave way to somebody


def _silent(_text: str) -> None:
    """Say nothing."""


def _cores() -> int:
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Around:
    """What a run finds around it; everything a test may want to set. ``server`` None: the socket, as the settings say.

    ``by``: who started it. ``hold``: why retention must keep it, or empty. ``programs``: folder of PostgreSQL's programs
    with a slash at its end; None finds those of the server's major. ``pause``: seconds between giving way and the next try.
    """

    server: argv.Server | None = None
    state: Path = STATE
    recipients: Path = RECIPIENTS
    metrics: Path = METRICS
    cores: int = field(default_factory=_cores)
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    random_hex: Callable[[], str] = lambda: secrets.token_hex(3)
    say: Callable[[str], None] = _silent
    stop: Stop = field(default_factory=Stop)
    by: str = ""
    hold: str = ""
    programs: str | None = None
    pause: float = 60.0


@dataclass(frozen=True)
class Taken:
    """A whole backup: its manifest, the hash of that, and what a person should look at all the same."""

    manifest: Manifest
    manifest_sha256: str
    hash_ms: int
    warnings: tuple[str, ...] = ()


def take(config: Config, store: Store, around: Around | None = None, *, identifier: str = "") -> Taken:
    """Take a backup of the whole cluster into ``store``. Raises SlipwayError; then nothing counts as a backup.

    Takes no lock and writes no record: see :func:`run`.
    """
    around = around or Around()
    server = around.server or argv.Server(config.socket, config.port, config.role)
    started = around.now()
    identifier = identifier or manifest.backup_id(started, config.host, around.random_hex())
    prefix = f"{config.host}/{identifier}"
    sealed_for = source.recipients(around.recipients)
    with source.connect(server, "postgres") as conn:
        cluster = catalog.read_cluster(conn)
        choice = source.choose(source.databases(conn), config.databases, config.left_out)
        ((standby,),) = source.rows(conn, "SELECT pg_is_in_recovery()")
    if standby:
        raise source.SourceError("This server is a standby", "the primary", "back up on the primary's host")
    folder = source.folder_of(cluster.version_num // 10000) if around.programs is None else around.programs
    tools = source.tools(folder)
    newer = source.fits(tools["pg_dump"], cluster.version_num)
    level, threads = argv.compression(around.cores)
    stages = {"zstd": argv.compress(level, 1), "age": argv.encrypt(str(around.recipients))}
    means = Means(
        server=server, store=store, uploads=runs.Uploads(around.state), prefix=prefix, recipients=around.recipients,
        stop=around.stop, folder=folder, now=around.now, lock=config.place.lock(started), level=level, threads=threads,
        streams=min(4, around.cores), readers=max(1, min(4, around.cores // 2)), memory=config.memory_mb * MB,
        lock_wait=config.lock_wait_s, give_way=config.give_way_s, full_bytes=config.full_hash_mb * MB, parallel_bytes=config.parallel_mb * MB,
        empty=source.nothing_sealed(around.recipients, stages), apart=around.cores <= 2,
    )  # fmt: skip
    if around.hold:  # before the data: a backup that is to be kept is never without the note that keeps it
        store.put(f"{config.host}/holds/{identifier}", around.hold.encode())
    command = argv.dump_globals(server)
    objects = [dumping.send(means, 0, Part("globals", [folder + command[0], *command[1:]]))]
    found = []
    hash_ms = 0
    for each in choice.chosen:
        around.say(f"{each.name}: {each.bytes // MB} MB")
        done = dumping.dump_database(means, each, identifier, len(objects))
        objects += done.objects
        hash_ms += done.hash_ms
        found.append(done.database)
    made = Manifest(
        identifier, config.host, started, around.now(), Contents(cluster, tuple(found)), tuple(objects),
        tuple(hashlib.sha256(line.encode()).hexdigest()[:16] for line in sealed_for), tools, choice.left_out,
        choice.unlisted,
    )  # fmt: skip
    text = manifest.write(made)
    around.stop.check()
    store.put(f"{prefix}/manifest.json", text, lock=means.lock)
    few = "Only one age recipient can open this backup: if its identity is lost, so are all backups." if len(sealed_for) < 2 else ""  # fmt: skip
    warnings = (*choice.warnings, *means.warnings, *(each for each in (newer, few) if each))
    return Taken(made, hashlib.sha256(text).hexdigest(), hash_ms, warnings)


def run(
    config: Config,
    opened: Callable[[], Store],
    around: Around | None = None,
    alarm: alarms.Alarms | None = None,
) -> runs.Run:
    """One whole run with everything around it; its record. Raises SlipwayError after having recorded and alarmed.

    BusyError is raised at once and leaves nothing: the run that is at work will say how it went.
    """
    around = around or Around()
    around.stop.clear(config.longest_s)
    started = _own_second(around)
    identifier = manifest.backup_id(started, config.host, around.random_hex())
    blank = runs.Run(identifier, config.host, started, started, runs.FAILED, around.by)
    try:
        with runs.held(around.state, runs.Holder(identifier, started, around.by, os.getpid())) as dead:
            return _under_lock(config, opened, around, alarm, (blank, dead))
    except runs.LockError as error:  # nothing could be recorded
        alarms.send(alarm, alarms.ended("backup", replace(blank, reason=str(error))))
        raise


def _own_second(around: Around) -> datetime:
    """Now, in a second that the run before has not named its backup by: ids sort by time, and the newest must be told."""
    now = around.now()
    with contextlib.suppress(SlipwayError):  # of the state or of a signal: told where it is recorded
        known = runs.records(around.state)
        if known and known[-1].id.startswith(f"{now:%Y%m%dT%H%M%SZ}"):
            around.stop.sleep(1 - now.microsecond / 1e6)
            return around.now()
    return now


def _under_lock(
    config: Config,
    opened: Callable[[], Store],
    around: Around,
    alarm: alarms.Alarms | None,
    begun: tuple[runs.Run, runs.Holder | None],
) -> runs.Run:
    blank, dead = begun
    complaints: list[str] = []
    try:
        complaints += _bury(config, around, dead)
        complaints += alarms.send(alarm, alarms.started("backup", config.host))
        store = opened()
        if isinstance(store, S3Store):  # a bucket that is away is no reason to outlast a signal
            store.retry = replace(store.retry, sleep=around.stop.sleep)
        complaints += _sweep(config, store, around)
        taken, blank = _patiently(config, store, around, blank, complaints)
    except Exception as error:
        _end(config, around, alarm, replace(blank, reason=_reason(error), warnings=tuple(complaints)))
        raise
    done = _record(replace(blank, result=runs.GOOD), taken, complaints)
    done = replace(done, warnings=(*done.warnings, *_news(done, runs.records(around.state))))
    return _end(config, around, alarm, done)


def _patiently(
    config: Config, store: Store, around: Around, blank: runs.Run, complaints: list[str]
) -> tuple[Taken, runs.Run]:
    """:func:`take`, and again after it gave way to somebody: with a new id, since an id is one backup's for ever."""
    for left in range(TRIES - 1, -1, -1):
        try:
            return take(config, store, around, identifier=blank.id), blank
        except GaveWayError as error:
            if not left or not around.stop.forget(error):
                raise
            complaints.append(str(error))
            around.say(f"{error} Taking it again in {around.pause:.0f} s.")
            around.stop.sleep(around.pause)
            blank = replace(blank, id=manifest.backup_id(around.now(), config.host, around.random_hex()))
    raise AssertionError("unreachable")


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, SlipwayError) else f"{type(error).__name__}: {error}"


def bury(config: Config, around: Around) -> str:
    """Record a run that was killed, if there is one that nobody recorded yet; its reason, or an empty string.

    An empty string also where a run is at work. Raises StateError.
    """
    now = around.now()
    try:
        with runs.held(around.state, runs.Holder("", now, "", os.getpid())) as dead:
            if dead is None:
                return ""
            _bury(config, around, dead)
    except BusyError:
        return ""
    known = runs.records(around.state)
    metrics.write(around.metrics, "backup", lambda: metrics.backup(config, known))
    return f"The backup {known[-1].id} of {config.host} FAILED: {known[-1].reason}"


def _bury(config: Config, around: Around, dead: runs.Holder | None) -> list[str]:
    """Write the record that a killed run could not write."""
    if dead is None or not dead.id:
        return []
    reason = f"The run ended without a word: its process {dead.pid} was killed, or the host went down."
    runs.append(around.state, runs.Run(dead.id, config.host, dead.since, around.now(), runs.FAILED, dead.by, reason))
    return [f"The run before this one ({dead.id}) was cut off."]


def _sweep(config: Config, store: Store, around: Around) -> list[str]:
    """Abort what dead runs left in the store."""
    gone, complaints = runs.Uploads(around.state).sweep(store)
    if isinstance(store, DirectoryStore):  # can be looked into with no right that could be missing
        gone += store.abort_stale(around.now(), f"{config.host}/")
    for key in gone:
        around.say(f"aborted the unfinished upload of {key}")
    return complaints


def _record(blank: runs.Run, taken: Taken, complaints: Sequence[str]) -> runs.Run:
    made = taken.manifest
    databases = {
        each.name: runs.Seen(
            each.bytes, sum(table.rows for table in each.tables), len(each.tables), each.snapshot.held_ms,
            tuple(sorted(each.schema.get("schema", {}))),
        )
        for each in made.contents.databases
    }  # fmt: skip
    return replace(
        blank, taken=made.taken, stored_bytes=made.stored_bytes, objects=len(made.objects), hash_ms=taken.hash_ms,
        databases=databases, unlisted=made.unlisted, left_out=made.left_out,
        warnings=(*complaints, *taken.warnings), manifest_sha256=taken.manifest_sha256,
    )  # fmt: skip


def _news(done: runs.Run, before: Sequence[runs.Run]) -> list[str]:
    """What changed since the last good backup that nobody may have told anybody of. Pure."""
    last = next((each for each in reversed(before) if each.good), None)
    if last is None:
        return []
    news = [f"Database {name} is gone since {last.id}." for name in last.databases if name not in done.databases]
    for name, seen in done.databases.items():
        was = last.databases.get(name)
        new = [schema for schema in seen.schemas if was is not None and schema not in was.schemas]
        news += [f"Schema {schema} of database {name} is new since {last.id}; it is backed up." for schema in new]
        if was is not None and was.rows >= 100 and seen.rows < was.rows // 2:
            news.append(f"Database {name} has {seen.rows} rows, {was.rows} in {last.id}: more than half are gone.")
    return news


def _end(config: Config, around: Around, alarm: alarms.Alarms | None, done: runs.Run) -> runs.Run:
    """Record, metrics, alarm. The first must work for a good run to be good; the other two complain at most."""
    done = replace(done, finished=around.now())
    complaints: list[str] = []
    failure: SlipwayError | None = None
    try:
        runs.append(around.state, done)
    except runs.StateError as error:
        failure = error
        complaints.append(str(error))
    complaints += metrics.write(around.metrics, "backup", lambda: metrics.backup(config, _known(around, done)))
    complaints += alarms.send(alarm, alarms.ended("backup", done, failure))
    for text in complaints:
        around.say(f"warning: {text}")
    if failure is not None and done.good:
        raise runs.StateError(f"The backup {done.id} is whole, but {failure.found[0].lower()}{failure.found[1:]}")
    return done


def _known(around: Around, done: runs.Run) -> list[runs.Run]:
    try:
        before = runs.records(around.state)
    except runs.StateError:
        before = []
    return [each for each in before if each.id != done.id] + [done]
