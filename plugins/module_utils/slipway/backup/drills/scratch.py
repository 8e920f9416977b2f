# SPDX-License-Identifier: Apache-2.0
"""A throwaway PostgreSQL for one drill: its own folder, port and socket, no TCP, and nothing of it left behind.

Everything lies below one folder that carries a mark of ours. Sweeping removes folders with that mark and nothing else;
a server that a killed drill left running is found by its own pid file and stopped first. The caller holds the drills'
lock, so that no folder found by a sweep is in use.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...commands import CommandError, run
from ...errors import SlipwayError
from ..argv import Server
from ..manifest import Database, Manifest
from ..stores.store import MB

if TYPE_CHECKING:
    from psycopg import Connection

PROGRAMS = Path("/usr/lib/postgresql")
MARK = "slipway-scratch.json"
PORT = 5432  # of the socket's name alone: no address is listened on
_SOCKET_LONGEST = 107  # sun_path, without its closing NUL
_WAL_MB = 1024
_STOP_SECONDS = 20.0


class ScratchError(SlipwayError):
    """The scratch cluster cannot be made here. It says nothing on the backup: the drill is inconclusive."""


@dataclass(frozen=True)
class Scratch:
    """A running scratch cluster. ``env``: for every program that talks to it, its own major's programs first on the PATH.

    ``maintenance``: the database to connect to beside the restored ones. ``private``: a folder for what must not be
    seen outside, gone with the cluster.
    """

    server: Server
    maintenance: str
    env: Mapping[str, str]
    private: Path
    version: str

    def halt(self) -> None:
        """Stop the server at once: what other threads still ask of it ends with an error."""
        if pid := postmaster(self.private.parent / "data"):
            _stop(pid)

    def connect(self, database: str = "") -> Connection[Any]:
        """An autocommit connection. Raises psycopg.Error."""
        import psycopg

        conninfo = self.server.conninfo(database or self.maintenance)
        return psycopg.connect(conninfo, autocommit=True, options=self.env["PGOPTIONS"], application_name="slipway")


def session_options(major: int) -> str:
    """PGOPTIONS that win over what roles and databases were told: a restored ``ALTER ROLE ... SET`` must not cut us short."""
    settings = {
        "statement_timeout": "0", "lock_timeout": "0", "idle_in_transaction_session_timeout": "0",
        "default_transaction_read_only": "off", "session_preload_libraries": "", "local_preload_libraries": "",
    }  # fmt: skip
    if major >= 17:
        settings |= {"transaction_timeout": "0", "event_triggers": "off"}
    return " ".join(f"-c {name}={value}" for name, value in settings.items())


def configuration(sockets: Path, *, memory_mb: int, tables: int, cores: int) -> str:
    """``postgresql.conf`` for a cluster that has one job and no future. Pure.

    No fsync and no WAL beyond what a crash-free life needs; a quarter of the memory for buffers, a quarter for building
    indexes, shared by the jobs. ``tables``: as many locks are held at once when contents are read.
    """
    if any(letter in str(sockets) for letter in "'\\\n"):
        raise ScratchError(f"The scratch folder {sockets} has a quote, a backslash or a line break in it")
    settings = {
        "listen_addresses": "''", "port": PORT, "unix_socket_directories": f"'{sockets}'",
        "unix_socket_permissions": "0700", "max_connections": 40,
        "shared_buffers": f"{max(16, memory_mb // 4)}MB",
        "maintenance_work_mem": f"{max(16, memory_mb // 4 // max(1, cores))}MB",
        "work_mem": f"{max(4, memory_mb // 16)}MB", "effective_cache_size": f"{memory_mb}MB",
        "max_locks_per_transaction": max(128, tables // 8), "max_parallel_maintenance_workers": 0,
        "autovacuum": "off", "fsync": "off", "synchronous_commit": "off", "full_page_writes": "off",
        "wal_level": "minimal", "max_wal_senders": 0, "max_wal_size": f"{_WAL_MB}MB", "checkpoint_timeout": "1h",
        "archive_mode": "off", "jit": "off", "allow_in_place_tablespaces": "on", "logging_collector": "off",
        "log_statement": "none", "log_min_error_statement": "panic", "log_min_duration_statement": -1,
    }  # fmt: skip
    return "".join(f"{name} = {value}\n" for name, value in settings.items())


def programs(major: int) -> Path:
    """The folder of that major's programs. Raises ScratchError naming the package."""
    folder = PROGRAMS / str(major) / "bin"
    missing = [name for name in ("initdb", "pg_ctl", "pg_restore", "psql") if not (folder / name).is_file()]
    if missing:
        raise ScratchError(
            f"PostgreSQL {major} is not installed on the drill host ({folder} lacks {', '.join(missing)})",
            "the major that the backup is of", f"apt-get install postgresql-{major}",
        )  # fmt: skip
    return folder


def check_space(path: Path, databases: Iterable[Database], *, beside: int = 0) -> None:
    """Whether the databases fit below ``path``, with a tenth to spare and room for WAL. Raises ScratchError with figures."""
    needed = sum(each.bytes for each in databases) * 11 // 10 + _WAL_MB * MB + beside
    free = shutil.disk_usage(path).free
    if free < needed:
        raise ScratchError(
            f"{path} has {free // MB} MB free", f"{needed // MB} MB: the databases' size, a tenth more, and WAL",
            "free some space, or let restore_drill_scratch_path point to a larger disk",
        )  # fmt: skip


def check_locales(databases: Iterable[Database], available: Iterable[str] | None = None) -> None:
    """Whether this host has the C library's locales that the databases were made with. Raises ScratchError."""
    listed = run(["locale", "-a"]).stdout.splitlines() if available is None else available
    known = {_locale(each) for each in listed} | {"c", "posix"}
    for database in databases:
        for name in database.collation.split()[1:3]:
            if _locale(name) not in known:
                raise ScratchError(
                    f"Database {database.name} has the locale {name}, which this drill host lacks", "the same locale",
                    f"uncomment {name} in /etc/locale.gen and run locale-gen, or apt-get install locales-all",
                )  # fmt: skip


def _locale(name: str) -> str:
    """A locale's name as the C library compares it: ``de_DE.UTF-8`` is ``de_DE.utf8``."""
    language, _, charset = name.partition(".")
    return f"{language}.{re.sub('[^a-z0-9]', '', charset.lower())}".rstrip(".").lower()


def account() -> str:
    """The OS user to run a server as when we are root, which PostgreSQL refuses to be; empty when we are not."""
    if os.geteuid() != 0:
        return ""
    for name in ("slipway-drill", "postgres"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise ScratchError("PostgreSQL does not run as root", "the user slipway-drill or postgres", "run site.yml")


@contextmanager
def cluster(
    base: Path, drill_id: str, taken: Manifest, *, memory_mb: int, jobs: int, beside: int = 0
) -> Iterator[Scratch]:
    """Make, start and, whatever happens, remove a scratch cluster for what ``taken`` holds.

    ``base``: the folder of all scratch clusters. ``beside``: bytes that spooled dumps take on the same disk. Raises
    ScratchError before anything is restored where this host cannot do it.
    """
    contents = taken.contents
    major = contents.cluster.version_num // 10000
    folder = programs(major)
    make_base(base)
    check_space(base, contents.databases, beside=beside)
    check_locales(contents.databases)
    home, owner = base / drill_id, account()
    sockets = home / "s"
    if len(f"{sockets}/.s.PGSQL.{PORT}") > _SOCKET_LONGEST:
        raise ScratchError(f"{sockets} is too long for a socket", f"at most {_SOCKET_LONGEST} letters with its name",
                           "choose a shorter scratch path")  # fmt: skip
    try:
        _lay_out(home, owner)
        bootstrap = bootstrap_of(taken)
        conf = configuration(
            sockets, memory_mb=memory_mb, tables=sum(len(each.tables) for each in contents.databases), cores=jobs
        )
        _initialise(folder, home, owner, bootstrap, conf)
        yield _open(folder, home, drill_id, bootstrap, major)
    finally:
        _remove(home)


def bootstrap_of(taken: Manifest) -> str:
    """The name that the source's bootstrap superuser has: memberships are granted in its name (manifests of old do not say)."""
    names = [each.name for each in taken.contents.cluster.roles if "SUPERUSER" in each.attributes]
    return taken.contents.cluster.bootstrap or ("postgres" if "postgres" in names or not names else names[0])


def _lay_out(home: Path, owner: str) -> None:
    home.mkdir(mode=0o700)
    mark = {"pid": os.getpid(), "what": "a scratch cluster of a restore drill: may be removed when no drill runs"}
    (home / MARK).write_text(json.dumps(mark), encoding="utf-8")
    for name in ("s", "data", "private"):
        (home / name).mkdir(mode=0o700)
    if owner:
        for path in (home, home / "s", home / "data"):
            shutil.chown(path, owner)


def _initialise(folder: Path, home: Path, owner: str, bootstrap: str, conf: str) -> None:
    prefix = ["runuser", "-u", owner, "--"] if owner else []
    try:
        run([*prefix, str(folder / "initdb"), "-D", str(home / "data"), f"--username={bootstrap}", "--auth=trust",
             "--encoding=UTF8", "--locale=C.UTF-8", "--data-checksums", "--no-sync", "--no-instructions"])  # fmt: skip
        with (home / "data/postgresql.auto.conf").open("a", encoding="utf-8") as file:
            file.write(conf)
        # Not by pipes: the server would inherit them, and we would wait for its end.
        done = subprocess.run(
            [*prefix, str(folder / "pg_ctl"), "-D", str(home / "data"), "-l", str(home / "data/log"), "-w", "-t", "60", "start"],
            check=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=90,
            cwd=home, start_new_session=True,
        )  # fmt: skip
    except (CommandError, OSError, subprocess.TimeoutExpired) as error:
        raise ScratchError(f"The scratch cluster could not be made: {error}") from error
    if done.returncode != 0:
        with contextlib.suppress(OSError):
            said = " ".join((home / "data/log").read_text(errors="replace").split()[-60:])
            raise ScratchError(f"The scratch cluster did not start: {said}", "a running server")
        raise ScratchError("The scratch cluster did not start and wrote no log", "a running server")


def _open(folder: Path, home: Path, drill_id: str, bootstrap: str, major: int) -> Scratch:
    """The running cluster, with a superuser and a database of our own: the restored globals may lock the others out."""
    import psycopg

    own = "slipway_" + re.sub("[^a-z0-9]", "_", drill_id.lower())[-40:]
    env = {
        "PATH": f"{folder}:{os.environ.get('PATH', '/usr/bin:/bin')}", "PGOPTIONS": session_options(major),
        "PGSERVICEFILE": "/nonexistent",
    }  # fmt: skip
    server = Server(str(home / "s"), PORT, bootstrap)
    try:
        with psycopg.connect(server.conninfo("postgres"), autocommit=True) as conn:
            conn.execute(f"CREATE ROLE {own} SUPERUSER LOGIN".encode())
            conn.execute(f"CREATE DATABASE {own} OWNER {own}".encode())
        server = Server(server.host, PORT, own)
        with psycopg.connect(server.conninfo(own), autocommit=True) as conn:
            conn.execute(b"DROP DATABASE postgres")  # it may come back from the backup
            row = conn.execute("SELECT split_part(current_setting('server_version'), ' ', 1)").fetchone()
    except psycopg.Error as error:
        raise ScratchError(f"The scratch cluster does not answer: {error}") from error
    return Scratch(server, own, env, home / "private", str(row[0]) if row else "")


def make_base(base: Path) -> None:
    """The folder of all scratch clusters; others may pass through, each cluster's own folder is closed to them."""
    base.mkdir(mode=0o750, parents=True, exist_ok=True)
    if os.geteuid() == 0:
        base.chmod(0o711)


def sweep(base: Path) -> list[str]:
    """Remove what drills that were killed left; the names of the folders. Only under the drills' lock."""
    gone = []
    for home in sorted(base.iterdir()) if base.is_dir() else []:
        if home.is_dir() and not home.is_symlink() and (home / MARK).is_file():
            _remove(home)
            gone.append(home.name)
    return gone


def _remove(home: Path) -> None:
    pid = postmaster(home / "data")
    if pid:
        _stop(pid)
    shutil.rmtree(home, ignore_errors=True)
    if home.exists():
        time.sleep(0.5)  # a last process of the server wrote something meanwhile
        shutil.rmtree(home, ignore_errors=True)


def postmaster(data: Path) -> int:
    """The pid of the server that runs on exactly this folder, or 0. A number alone proves nothing: pids come again."""
    try:
        pid = int((data / "postmaster.pid").read_text(encoding="utf-8").split("\n", 1)[0])
        return pid if pid > 1 and _lives_in(pid, data) else 0
    except (OSError, ValueError):
        return 0


def _lives_in(pid: int, data: Path) -> bool:
    """Whether that process is a server on this folder: by where it is or, for root in a container, how it was called."""
    try:
        return Path(os.readlink(f"/proc/{pid}/cwd")) == data.resolve()
    except PermissionError:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        places = (place for option, place in itertools.pairwise(words) if option == b"-D")
        return any(Path(os.fsdecode(place)).resolve() == data.resolve() for place in places)


def _stop(pid: int) -> None:
    """End a server whose data nobody needs: SIGQUIT is its immediate shutdown, then SIGKILL."""
    for number in (signal.SIGQUIT, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
        limit = time.monotonic() + _STOP_SECONDS
        while time.monotonic() < limit:
            if not _runs(pid):
                return
            time.sleep(0.05)


def _runs(pid: int) -> bool:
    """Whether the process is there and not only waiting to be collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return False
