# SPDX-License-Identifier: Apache-2.0
"""A Debian PostgreSQL cluster that runs, with checksums, with exactly the settings it was given.

Reload where a reload is enough; a restart only for settings that need one and really differ. When the server does not
come back with new settings, the last ones that worked are put back and it is started with those.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..commands import CommandError, run
from ..errors import SlipwayError
from ..host import systemd
from . import pooler as pgpooler
from . import server as pgserver
from .conf import SettingsError, differences, explain

KEPT = Path("/var/lib/slipway/postgres")
ALL_CLUSTERS = "postgresql.service"
"""Debian's unit that starts every cluster at boot whose start.conf says auto."""
RELOAD_SECONDS, START_SECONDS = 10.0, 60.0


class ClusterError(SlipwayError):
    """The cluster is missing, has no checksums, or does not start."""


@dataclass(frozen=True)
class Wish:
    """A cluster as it should be. ``settings``: name -> value; ``conf`` is the file that holds them.

    ``restart_allowed`` False leaves settings that need a restart pending, with a warning. ``pooler_port`` is PgBouncer's on this
    host (0: none), which holds back new transactions during a restart. ``pause_seconds``: what transactions get to end before
    one; those still at work then end the run (0: they get a while and are cut off).
    """

    major: int
    settings: Mapping[str, str]
    conf: Path
    name: str = "main"
    port: int = 5432
    checksums: bool = True
    listen: tuple[str, ...] = ("localhost",)
    restart: bool = False
    restart_allowed: bool = True
    pooler_port: int = 0
    pause_seconds: int = 0

    @property
    def unit(self) -> str:
        """Debian's systemd unit."""
        return f"postgresql@{self.major}-{self.name}.service"

    @property
    def conf_dir(self) -> Path:
        """Debian's folder with postgresql.conf and pg_hba.conf."""
        return Path(f"/etc/postgresql/{self.major}/{self.name}")

    @property
    def kept(self) -> Path:
        """Copy of the last settings that the server came up with."""
        return KEPT / f"{self.major}-{self.name}.conf"


@dataclass
class Outcome:
    """What was done, or would be: ``steps`` in order, settings ``before`` and ``after``, where it listens, warnings.

    ``held_seconds``: how long new transactions were held back for a restart.
    """

    steps: list[str] = field(default_factory=list)
    before: dict[str, str] = field(default_factory=dict)
    after: dict[str, str] = field(default_factory=dict)
    listening: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    held_seconds: float = 0


def newest_change(paths: Iterable[Path]) -> float:
    """The latest modification (Unix time) of files and folders below ``paths``; 0 where there is nothing."""
    latest = 0.0
    for top in paths:
        for path in (top, *top.rglob("*")) if top.exists() else ():
            with contextlib.suppress(FileNotFoundError):
                latest = max(latest, path.stat().st_mtime)
    return latest


def converge(wish: Wish, *, dry_run: bool = False) -> Outcome:
    """Bring the cluster to ``wish`` and prove it by reading it back. Raises ClusterError, SettingsError, ServerError."""
    outcome = Outcome()
    if not (wish.conf_dir / "postgresql.conf").exists():
        if not dry_run:
            raise ClusterError(
                f"There is no PostgreSQL cluster {wish.major}/{wish.name}",
                f"one in {wish.conf_dir}",
                f"run 'pg_createcluster {wish.major} {wish.name}' on the host, then the playbook again",
            )
        return _bare(wish, outcome)
    if not _service(wish, outcome, dry_run):
        return _bare(wish, outcome)
    try:
        pending = _settle(wish, outcome, dry_run)
    except pgserver.ServerError:
        if not dry_run:
            raise
        return _bare(wish, outcome)  # psycopg or the superuser's way in come with the same run
    # Started just now, it has its unit's rights already.
    restart = wish.restart and "start" not in outcome.steps
    if (pending or restart) and not wish.restart_allowed:
        what = ", ".join(pending) or "what its unit may do"
        outcome.warnings.append(f"These settings wait for a restart of PostgreSQL: {what}.")
    elif pending or restart:
        outcome.steps.append(f"restart{' for ' + ', '.join(pending) if pending else ''}")
        if not dry_run:
            outcome.held_seconds = _restart(wish)
    if not dry_run:
        if left := pgpooler.resume_left(wish.pooler_port):
            outcome.steps.append(f"resume {', '.join(left)}, which a run that was killed had left paused")
        _prove(wish, outcome, pending)
    return outcome


def _service(wish: Wish, outcome: Outcome, dry_run: bool) -> bool:
    """Debian's units: started at boot, and running now. False where it would have to be started first."""
    found = systemd.show([wish.unit, ALL_CLUSTERS])
    enable = systemd.plan(systemd.UnitSpec(ALL_CLUSTERS, enabled=True), found[ALL_CLUSTERS])
    if enable:
        outcome.steps.append(f"enable {ALL_CLUSTERS}")
        if not dry_run:
            systemd.apply(enable, daemon_reload=False)
    if found[wish.unit].running:
        return True
    outcome.steps.append("start")
    if not dry_run:
        _start_or_put_back(wish, "start")
    return not dry_run


def _settle(wish: Wish, outcome: Outcome, dry_run: bool) -> list[str]:
    """Checksums and whatever a reload can bring; the settings that only a restart can."""
    with contextlib.ExitStack() as stack:
        connection = stack.enter_context(_connect(wish))
        if wish.checksums and _needs_checksums(connection, wish):
            outcome.steps.append("enable data checksums")
            if not dry_run:
                connection.close()
                _enable_checksums(wish)
                connection = stack.enter_context(_connect(wish))
        running = pgserver.running_settings(connection)
        found = differences(wish.settings, running)
        outcome.before = pgserver.summary(running, [item.name for item in found])
        outcome.after = {item.name: item.wished for item in found}
        if _stale(connection, wish) or any(not item.needs_restart for item in found):
            outcome.steps.append("reload")
            if not dry_run:
                _reload(connection)
                running = pgserver.running_settings(connection)
        pending = {name for name, row in running.items() if row.pending_restart}
        if dry_run:
            pending |= {item.name for item in found if item.needs_restart}
    return sorted(pending)


def _bare(wish: Wish, outcome: Outcome) -> Outcome:
    outcome.steps = ["start", f"set {len(wish.settings)} settings"]
    outcome.after = dict(wish.settings)
    return outcome


def _connect(wish: Wish) -> Any:
    return pgserver.connect(port=wish.port)


def _needs_checksums(connection: Any, wish: Wish) -> bool:
    """Whether they are off and can be switched on at no risk: in a cluster without data. Raises ClusterError otherwise."""
    if pgserver.rows(connection, "SHOW data_checksums")[0][0] == "on":
        return False
    databases = pgserver.rows(
        connection, "SELECT datname FROM pg_database WHERE datname NOT IN ('postgres', 'template0', 'template1')"
    )
    relations = pgserver.rows(
        connection, "SELECT 1 FROM pg_class WHERE oid >= 16384 AND relkind IN ('r', 'p', 'm') LIMIT 1"
    )
    if not databases and not relations:
        return True
    raise ClusterError(
        f"The cluster {wish.major}/{wish.name} holds data and has no data checksums",
        "checksums, without which a damaged page is read as if it were sound",
        f"in a maintenance window: 'systemctl stop {wish.unit}', 'runuser -u postgres -- /usr/lib/postgresql/{wish.major}/bin/pg_checksums "
        f"--enable --progress -D /var/lib/postgresql/{wish.major}/{wish.name}', 'systemctl start {wish.unit}' (minutes per 100 GB); "
        "or set postgres_checksums: false and live with it",
    )


def _enable_checksums(wish: Wish) -> None:
    with _connect(wish) as connection:
        data = pgserver.rows(connection, "SHOW data_directory")[0][0]
    run(["systemctl", "stop", wish.unit], timeout=300)
    try:
        program = f"/usr/lib/postgresql/{wish.major}/bin/pg_checksums"
        run(["runuser", "-u", "postgres", "--", program, "--enable", "-D", data], timeout=600)
    finally:
        _start(wish, "start")


def _stale(connection: Any, wish: Wish) -> bool:
    """Whether a file changed after the server last read its configuration: also finds what an interrupted run left."""
    loaded = float(pgserver.rows(connection, "SELECT extract(epoch FROM pg_conf_load_time())")[0][0])
    return newest_change([wish.conf_dir]) > loaded


def _reload(connection: Any) -> None:
    errors = pgserver.file_errors(connection)
    if errors:
        raise SettingsError(
            "PostgreSQL cannot read its configuration: " + "; ".join(errors),
            "files it can read",
            "mend the lines named; the server still runs with what it read before",
        )
    query = "SELECT pg_conf_load_time()::text"
    before = pgserver.rows(connection, query)
    connection.execute("SELECT pg_reload_conf()")
    until = time.monotonic() + RELOAD_SECONDS
    while pgserver.rows(connection, query) == before:
        if time.monotonic() > until:
            raise SettingsError(
                f"PostgreSQL did not read its configuration again within {RELOAD_SECONDS:.0f} s",
                "",
                "look at the server's log",
            )
        time.sleep(0.05)
    time.sleep(0.1)  # the load time changes before the last setting is in place


def _start(wish: Wish, verb: str) -> None:
    """``start`` or ``restart``, and wait until it answers. Raises UnitError or ServerError."""
    step: Any = verb
    run(["systemctl", "reset-failed", wish.unit], check=False)  # a start limit reached earlier must not forbid this one
    systemd.apply([systemd.Step(step, wish.unit)], daemon_reload=False)
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            _connect(wish).close()
        except pgserver.ServerError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)
        else:
            return


def _restart(wish: Wish) -> float:
    """Restart behind the pooler; for how many seconds it held transactions back."""
    before = _begun(wish)
    # What a checkpoint writes now, the server need not write while everybody waits for it to stop.
    _ask(wish, "CHECKPOINT")
    run(["systemctl", "reset-failed", wish.unit], check=False)
    started = time.monotonic()
    with pgpooler.paused(wish.pooler_port, at_most=wish.pause_seconds):
        # Debian's start goes on looking for seconds after the server answers: nobody should have to wait for that.
        restarting = _begin_restart(wish)
        while restarting.poll() is None and _begun(wish) in ("", before):
            time.sleep(0.05)
        if _begun(wish) in ("", before):
            _start_or_put_back(wish, "restart")
    held = round(time.monotonic() - started, 2)
    restarting.wait()
    return held


def _begin_restart(wish: Wish) -> subprocess.Popen[bytes]:
    quiet = subprocess.DEVNULL  # what went wrong is told by the attempt that follows
    return subprocess.Popen(["systemctl", "restart", "--", wish.unit], stdin=quiet, stdout=quiet, stderr=quiet)


def _begun(wish: Wish) -> str:
    """When the server that answers now was started; empty where none does."""
    found = _ask(wish, "SELECT pg_postmaster_start_time()::text")
    return str(found[0][0]) if found else ""


def _ask(wish: Wish, query: str) -> list[tuple[Any, ...]]:
    """The rows of a query, none where the server does not answer, or stops in the midst of it."""
    import psycopg

    with contextlib.suppress(pgserver.ServerError, psycopg.Error), _connect(wish) as connection:
        cursor = connection.execute(query)
        return list(cursor.fetchall()) if cursor.description else []
    return []


def _start_or_put_back(wish: Wish, verb: str) -> None:
    """``start`` or ``restart``; the settings that worked last when these do not. Raises ClusterError then."""
    try:
        _start(wish, verb)
    except (SlipwayError, CommandError) as error:
        old = (
            wish.kept.read_bytes()
            if wish.kept.exists()
            else b"# The settings that stood here kept PostgreSQL from starting.\n"
        )
        refused = _refused(wish)
        KEPT.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copyfile(wish.conf, refused)
        wish.conf.write_bytes(old)
        _start(wish, "restart")
        raise ClusterError(
            f"PostgreSQL does not start with the new settings: {getattr(error, 'found', error)}",
            "settings that this host can carry",
            f"correct postgres_settings (the refused file is {refused}). The settings from before were put back and PostgreSQL runs with them",
        ) from error


def _prove(wish: Wish, outcome: Outcome, pending: Iterable[str]) -> None:
    """Read back what runs; keep the file as the one to return to."""
    with _connect(wish) as connection:
        left = differences(wish.settings, pgserver.running_settings(connection))
    waiting = set() if wish.restart_allowed else set(pending)
    left = [item for item in left if item.name not in waiting]
    if left:
        raise explain(left, str(wish.conf))
    outcome.listening = pgserver.check_listening(wish.port, wish.listen, "PostgreSQL")
    if wish.conf.exists() and (not wish.kept.exists() or wish.kept.read_bytes() != wish.conf.read_bytes()):
        KEPT.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = wish.kept.with_suffix(".part")
        part.write_bytes(wish.conf.read_bytes())
        part.chmod(0o600)
        os.replace(part, wish.kept)
    _refused(wish).unlink(missing_ok=True)


def _refused(wish: Wish) -> Path:
    """Where settings go that the server did not start with: to be looked at, and out of the way."""
    return wish.kept.with_suffix(".refused")
