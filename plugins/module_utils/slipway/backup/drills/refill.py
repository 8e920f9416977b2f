# SPDX-License-Identifier: Apache-2.0
"""A backup's objects into a running server: globals, then database by database, no error tolerated.

How each object goes in was measured (docs/benchmarks.md): a dump that fits on the disk beside the database is made
plain in a private folder first, so that pg_restore can load and index with several jobs; one that does not streams
straight into one pg_restore. Parallel data streams are loaded side by side from their pipes, and the indexes after them
by several jobs: that object is a table of contents alone.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from .. import argv
from ..argv import Server
from ..manifest import Database, Manifest, StoredObject
from ..pipeline import PipelineError, Stage, run
from ..stores.store import MB
from .fetch import BackupError, Fetcher, Times, restore_error

_CREATE_ROLE = re.compile(rb"(?m)^CREATE ROLE (.+);\n")
_TABLESPACE = re.compile(rb"(?m)^(CREATE TABLESPACE .+ LOCATION )'(?:[^']|'')*';\n")
_ROOM = 1024 * MB  # that spooling leaves free on the disk


@dataclass
class Refill:
    """Where a backup goes. ``private``: a folder of our own for spooled dumps; ``maintenance``: database to connect to.

    ``jobs``: at once, in loading and in indexing.
    """

    fetcher: Fetcher
    server: Server
    env: Mapping[str, str]
    private: Path
    maintenance: str
    jobs: int = 2
    times: Times = field(default_factory=Times)
    notes: list[str] = field(default_factory=list)

    def read_globals(self, taken: Manifest) -> bytes:
        """The dump of roles, memberships, tablespaces and settings, in memory alone. Raises BackupError."""
        objects = [each for each in taken.objects if each.holds == "globals"]
        if len(objects) != 1:
            raise BackupError("globals", f"The backup has {len(objects)} objects with globals", "one")
        begun = time.monotonic()
        text, waited = self.fetcher.text(objects[0])
        self.times.fetch += waited
        self.times.decrypt += time.monotonic() - begun - waited
        return text

    def globals(self, text: bytes, bootstrap: str) -> None:
        """What :func:`read_globals` gave, into a cluster made with ``bootstrap``. Raises BackupError."""
        text, moved = fit_globals(text, bootstrap)
        if moved:
            self.notes.append(f"tablespaces laid inside the scratch cluster: {moved}")
        begun = time.monotonic()
        command = argv.restore_globals(self.server, self.maintenance)
        try:
            run([Stage("psql", command, self.env)], source=[text], may_be_empty=True, hashed=False, timeout=600)
        except PipelineError as error:
            raise restore_error("globals", error) from error
        self.times.restore += time.monotonic() - begun

    def roles(self, taken: Manifest, names: Sequence[str]) -> None:
        """Make roles that a live server lacks, as the backup's globals have them: attributes, password, settings.

        Memberships in and of roles that are there already are left alone. Raises BackupError.
        """
        text = self.read_globals(taken)
        command = argv.restore_globals(self.server, self.maintenance)
        try:
            wanted = lines_of(text, names)
            run([Stage("psql", command, self.env)], source=[wanted], may_be_empty=True, hashed=False, timeout=600)
        except PipelineError as error:
            raise restore_error("globals", error) from error

    def database(self, taken: Manifest, name: str, *, target: str = "") -> None:
        """One database, made anew under its own name, or into the existing empty ``target``. Raises BackupError."""
        objects = [each for each in taken.objects if each.database == name and each.holds != "globals"]
        before = taken.contents.database(name)
        kinds = sorted({each.holds for each in objects})
        create = not target
        place = target or self.maintenance
        try:
            if kinds == ["dump"] and len(objects) == 1:
                self._dump(objects[0], before, place, create=create)
            elif kinds == ["data", "indexes", "schema"]:
                (schema,) = (each for each in objects if each.holds == "schema")
                (indexes,) = (each for each in objects if each.holds == "indexes")
                self._spooled(schema, place, create=create, jobs=1)
                self._streams([each for each in objects if each.holds == "data"], target or name)
                self._spooled(indexes, target or name, jobs=self.jobs)
            else:
                raise BackupError("restore", f"Database {name} consists of {', '.join(kinds) or 'nothing'}",
                                  "a dump, or a schema, data and indexes")  # fmt: skip
        except PipelineError as error:
            raise restore_error("restore", error, name) from error

    def tables(self, taken: Manifest, name: str, target: str, wanted: Callable[[], Sequence[str]]) -> None:
        """The whole shape of a database into the empty ``target``, and the rows of some tables alone; no indexes.

        ``wanted``: asked once the shape is there; plain names, since pg_restore takes no others. Raises BackupError.
        """
        objects = [each for each in taken.objects if each.database == name and each.holds in ("dump", "schema", "data")]
        path = self.private / "shape"
        try:
            for each in sorted(objects, key=lambda one: one.holds == "data"):
                # From a file always: out of a pipe pg_restore stops reading when it has what it was asked for, which
                # looks like a failure to those who write into it.
                self._make_plain(each, path)
                for section in {"dump": ("pre-data", "data"), "schema": ("pre-data",)}.get(each.holds, ("data",)):
                    tables = wanted() if section == "data" else ()
                    command = argv.restore(self.server, target, str(path), section=section, tables=tables)
                    run([Stage("pg_restore", command, self.env)], may_be_empty=True, hashed=False, timeout=self._left())
                path.unlink()
        except PipelineError as error:
            raise restore_error("restore", error, name) from error
        finally:
            path.unlink(missing_ok=True)

    def _dump(self, each: StoredObject, before: Database | None, place: str, *, create: bool) -> None:
        plain = before.bytes if before else each.size * 10
        room = shutil.disk_usage(self.private).free - _ROOM - plain  # the database itself goes there as well
        if self.jobs > 1 and plain < room:
            self._spooled(each, place, create=create, jobs=self.jobs)
        else:
            self._streamed(each, argv.restore(self.server, place, create=create))

    def _spooled(self, each: StoredObject, place: str, *, create: bool = False, jobs: int) -> None:
        path = self.private / each.key.replace("/", "_")
        try:
            self._make_plain(each, path)
            ready = time.monotonic()
            command = argv.restore(self.server, place, str(path), jobs=jobs, create=create)
            run([Stage("pg_restore", command, self.env)], may_be_empty=True, hashed=False, timeout=self._left())
            self.times.restore += time.monotonic() - ready
        finally:
            path.unlink(missing_ok=True)

    def _make_plain(self, each: StoredObject, path: Path) -> None:
        begun = time.monotonic()
        waited = self.fetcher.spool(each, path)
        self.times.fetch += waited
        self.times.decrypt += time.monotonic() - begun - waited

    def _streamed(self, each: StoredObject, command: Sequence[str]) -> None:
        begun = time.monotonic()
        _flow, waited = self.fetcher.stream(each, [Stage("pg_restore", command, self.env)], may_be_empty=True)
        self.times.fetch += waited
        self.times.restore += time.monotonic() - begun - waited

    def _streams(self, objects: Sequence[StoredObject], place: str) -> None:
        """Data streams side by side. The part of the time that they waited for the store, on average, is fetching."""
        command = argv.restore(self.server, place)
        largest_first = sorted(objects, key=lambda each: -each.size)
        begun = time.monotonic()

        def load(each: StoredObject) -> tuple[float, float]:
            mine = time.monotonic()
            _flow, waited = self.fetcher.stream(each, [Stage("pg_restore", command, self.env)], may_be_empty=True)
            return waited, time.monotonic() - mine

        pool = ThreadPoolExecutor(max(1, self.jobs), thread_name_prefix="load")
        try:
            done = [future.result() for future in as_completed([pool.submit(load, each) for each in largest_first])]
        except BaseException:
            self.fetcher.halt.set()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
        whole, busy = time.monotonic() - begun, sum(took for _waited, took in done)
        fetching = whole * sum(waited for waited, _took in done) / busy if busy else 0.0
        self.times.fetch += fetching
        self.times.restore += whole - fetching

    def _left(self) -> float | None:
        return None if self.fetcher.deadline is None else max(1.0, self.fetcher.deadline - time.monotonic())


def fit_globals(text: bytes, bootstrap: str) -> tuple[bytes, str]:
    """A dump of globals as a scratch cluster can take it, and the tablespaces that were moved. Pure.

    Two lines are changed: the bootstrap superuser exists already, and tablespaces lie inside the cluster's own folder
    (their places on the source may not exist here, or worse, be in use).
    """
    names: list[str] = []

    def without_bootstrap(found: re.Match[bytes]) -> bytes:
        name = found.group(1).decode(errors="replace")
        return b"" if name in (bootstrap, '"' + bootstrap.replace('"', '""') + '"') else found.group(0)

    def inside(found: re.Match[bytes]) -> bytes:
        names.append(found.group(1).split(b" ")[2].decode(errors="replace"))
        return found.group(1) + b"'';\n"

    text = _CREATE_ROLE.sub(without_bootstrap, text, count=0)
    return _TABLESPACE.sub(inside, text), ", ".join(names)


def lines_of(text: bytes, names: Sequence[str]) -> bytes:
    """The lines of a dump of globals that make and alter certain roles. Pure; as pg_dumpall writes them, one a line."""
    quoted = {ident.encode() for name in names for ident in (name, '"' + name.replace('"', '""') + '"')}
    line = re.compile(rb"(?:CREATE|ALTER) ROLE (" + b"|".join(re.escape(each) for each in sorted(quoted)) + rb")[ ;]")
    return b"".join(each for each in text.splitlines(keepends=True) if line.match(each))
