# SPDX-License-Identifier: Apache-2.0
"""pgBackRest and the database server, as the user postgres: the effects of point-in-time recovery.

Root becomes postgres for each program; the units of the role run as postgres from the start.
"""

from __future__ import annotations

import os
import pwd
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ...commands import CommandError, Outcome, run
from ...errors import SlipwayError
from ...postgres import server as pgserver
from . import pgbackrest as pitr
from .conf import Settings

USER = "postgres"
_ARCHIVED_SECONDS = 120.0
_TABLE = (
    "CREATE SCHEMA IF NOT EXISTS slipway; CREATE TABLE IF NOT EXISTS slipway.recovery_point "
    "(id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz NOT NULL, mark text NOT NULL)"
)
# What pgBackRest says, and what it means for the user. The first that fits is told.
_MEANINGS = (
    (r"\[050\]", "Another run of pgBackRest is at work", "no other run", "wait until it is over: 'slipway pitr list' works meanwhile"),
    (r"\[056\]", "The database server does not run", "it to run: a base backup is taken from the running server", "see 'systemctl status postgresql@*'"),
    (r"CryptoError|FormatError|key/value found outside of section|invalid checksum", "The repository cannot be decrypted with this host's passphrase, or is damaged", "the passphrase it was made with",
     "where 'slipway pitr list' says the same, put the right one into vault_pitr_passphrase and run site.yml; where it does not, a file is "
     "damaged: take a second before an older base backup, or the dumps"),
    (r"\[028\]|\[051\]|do not match|does not match", "The repository belongs to another cluster than the one that runs here",
     "the cluster (system identifier and major) that the repository was made for",
     "after an upgrade, or to go on with a new cluster: 'slipway pitr setup --new-cluster' (older backups are kept); to get the old data "
     "back: 'slipway pitr restore --whole-server'"),
    (r"\[055\]|missing stanza|stanza-create", "The repository is not set up for this host", "a stanza in it", "run 'slipway pitr setup'"),
    (r"\[062\]|stop file", "pgBackRest was told to stop on this host", "it to run", "run 'sudo -u postgres pgbackrest start'"),
    (r"NoSuchBucket", "The bucket does not exist", "the bucket named in the inventory", "make it, or correct the name"),
    (r"InvalidAccessKeyId|SignatureDoesNotMatch|AccessDenied|\b403\b|\b401\b", "The store refuses this host's key",
     "a key that may list, read, write and hide files below the prefix", "see docs/point_in_time.md for its rights; put it into vault_pitr_key"),
    (r"No space left|\b507\b|QuotaExceeded|Storage cap exceeded", "The repository is full", "room in it",
     "free some, or keep less: pitr_keep_days"),
    (r"\[049\]|\[102\]|timeout|unable to (?:get address|connect)|Connection re", "The repository cannot be reached",
     "the store within reach of this host", "look at the network and the store; WAL waits on this host meanwhile"),
    (r"\[075\]", "No base backup is old enough", "one that ended before that second", "'slipway pitr list' shows what is possible"),
)  # fmt: skip


def as_postgres(argv: Sequence[str]) -> list[str]:
    """``argv`` run by postgres, when root calls it. Raises PermissionError for anybody else."""
    if os.geteuid() == 0:
        return ["runuser", "-u", USER, "--", *argv]
    if pwd.getpwuid(os.geteuid()).pw_name != USER:
        raise PermissionError(13, "not allowed", "/etc/pgbackrest/conf.d/secrets.conf")
    return list(argv)


def call(settings: Settings, *words: str, timeout: float | None = 300, check: bool = True) -> Outcome:
    """One pgBackRest command. Raises PitrError, BusyError with what it means."""
    argv = as_postgres(["pgbackrest", f"--stanza={settings.stanza}", *words])
    try:
        done = run(argv, check=False, timeout=timeout, env={"TZ": "UTC"})
    except CommandError as error:
        raise pitr.PitrError(error.found, error.expected, error.remedy) from error
    if check and not done.ok:
        raise explain(done)
    return done


def explain(done: Outcome) -> pitr.PitrError:
    """A failed run as one message: what it means, and pgBackRest's own words."""
    return meaning(f"{done.stderr}\n{done.stdout}", f"pgBackRest ended with code {done.code}")


def meaning(text: str, otherwise: str) -> pitr.PitrError:
    """What pgBackRest's words mean. Pure."""
    said = words(text)
    for pattern, found, expected, remedy in _MEANINGS:
        if re.search(pattern, text):
            kind = pitr.BusyError if pattern == r"\[050\]" else pitr.PitrError
            return kind(f"{found} (pgBackRest: {said})" if said else found, expected, remedy)
    return pitr.PitrError(f"{otherwise}: {said or 'it said nothing'}", "code 0", "look at what it says")


def words(text: str) -> str:
    """pgBackRest's first error without dates and hints, on one line."""
    # What a wrong passphrase decrypts to is noise, which pgBackRest quotes.
    text = re.sub(r"[^\x20-\x7e\n]+", "?", text)
    found = re.search(r"ERROR:\s*(.+?)(?=\n\S|\n\s*HINT|\Z)", text, re.DOTALL)
    return " ".join(found[1].split())[:300] if found else " ".join(text.split())[-200:]


@dataclass(frozen=True)
class Repo:
    """The repository as read: pgBackRest's info, the WAL, the newest timeline's path and what can be reached along it."""

    info: pitr.Info
    archive: pitr.Archive
    path: tuple[tuple[int, int], ...]
    windows: tuple[pitr.Window, ...]


def info(settings: Settings) -> pitr.Info:
    """Base backups. Raises PitrError where the repository cannot be read."""
    done = call(settings, "--output=json", "--log-level-console=warn", "info")
    found = pitr.parse_info(done.stdout, settings.stanza)
    if found.code == 99:
        raise meaning(found.message, "The repository cannot be read")
    return found


def look(settings: Settings, now: datetime, timeline: int = 0) -> Repo:
    """All that is in the repository, with the windows of ``timeline`` (0: the newest). Raises PitrError, RangeError."""
    found = info(settings)
    if not found.archive_id:
        return Repo(found, pitr.Archive({}), (), ())
    folder = f"archive/{settings.stanza}"
    done = call(settings, "--output=json", "--log-level-console=warn", "--recurse", "repo-ls", folder)
    archive = pitr.parse_archive(done.stdout, found.archive_id)
    known = sorted({*archive.timelines, *archive.histories})
    if timeline and timeline not in known:
        raise pitr.RangeError(
            f"The repository has no timeline {timeline}", f"one of {', '.join(map(str, known)) or 'none'}"
        )
    chosen = timeline or (known[-1] if known else 1)
    path: tuple[tuple[int, int], ...] = ((chosen, 1 << 62),)
    if chosen in archive.histories:
        name = f"{folder}/{found.archive_id}/{chosen:08X}.history"
        text = call(settings, "--log-level-console=warn", "repo-get", name).stdout
        path = pitr.parse_history(text, chosen, settings.wal_segment_mb)
    reached = pitr.windows(found.backups, archive, path, now, settings.wal_segment_mb)
    return Repo(found, archive, path, tuple(reached))


def goal(settings: Settings, target: datetime | None, timeline: int = 0) -> pitr.Goal:
    """How to reach ``target`` along ``timeline`` (0: the newest); None: as far as the WAL goes.

    Raises RangeError with what is possible.
    """
    now = datetime.now(UTC)
    repo = look(settings, now, timeline)
    if target is None and repo.windows:
        last = repo.windows[-1]
        return pitr.Goal(last.end, last.backups[-1], repo.path[-1][0], latest=True)
    target = target or now
    base = pitr.choose(repo.windows, target, now)
    return pitr.Goal(target, base, repo.path[-1][0])


# -- the server ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Archiver:
    """The server's archiver. ``waiting``: segments not yet in the repository; times None where there was none."""

    now: datetime
    last: str
    last_at: datetime | None
    failed: str
    failed_at: datetime | None
    failures: int
    waiting: int
    wal_bytes: int
    reset_at: datetime | None = None

    @property
    def failing(self) -> bool:
        """Whether the last attempt was a failure."""
        return self.failed_at is not None and (self.last_at is None or self.failed_at > self.last_at)


def connect(settings: Settings) -> Any:
    """The live server. Raises ServerError."""
    return pgserver.connect(port=settings.port)


def archiver(connection: Any) -> Archiver:
    """How archiving goes."""
    query = (
        "SELECT clock_timestamp(), coalesce(last_archived_wal, ''), last_archived_time, coalesce(last_failed_wal, ''), "
        "last_failed_time, failed_count, (SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'), "
        "(SELECT coalesce(sum(size), 0)::bigint FROM pg_ls_waldir()), pg_postmaster_start_time() FROM pg_stat_archiver"
    )
    return Archiver(*pgserver.rows(connection, query)[0])


def mark(connection: Any, text: str) -> datetime:
    """Write a row whose presence after a recovery shows how far it went; its commit is over when this returns."""
    connection.execute("SET synchronous_commit = on")
    connection.execute(_TABLE)
    row = pgserver.rows(
        connection, "INSERT INTO slipway.recovery_point (at, mark) VALUES (clock_timestamp(), %s) RETURNING at", (text,)
    )
    at: datetime = row[0][0]
    return at.astimezone(UTC)


def prune_marks(connection: Any, days: int) -> None:
    """Remove marks that no recovery can be asked for any more."""
    connection.execute("DELETE FROM slipway.recovery_point WHERE at < now() - make_interval(days => %s)", (days,))


def flush(connection: Any, *, seconds: float = _ARCHIVED_SECONDS) -> float:
    """Finish the current WAL segment and wait until it is in the repository; how long that took, in seconds.

    Raises PitrError when it does not arrive.
    """
    started = time.monotonic()
    name = str(pgserver.rows(connection, "SELECT pg_walfile_name(pg_switch_wal())")[0][0])
    while True:
        found = archiver(connection)
        if re.match(r"[0-9A-F]{24}", found.last) and found.last[:24] >= name:
            return time.monotonic() - started
        if time.monotonic() - started > seconds:
            raise pitr.PitrError(
                f"WAL segment {name} is not in the repository after {seconds:.0f} s"
                + (f"; archiving has failed {found.failures} times, last at {pitr.shown(found.failed_at)}" if found.failing and found.failed_at else ""),
                "archiving to work", "run 'slipway pitr check', which says why",
            )  # fmt: skip
        time.sleep(0.25)


def system_id(connection: Any) -> int:
    """What tells this cluster from every other."""
    return int(pgserver.rows(connection, "SELECT system_identifier FROM pg_control_system()")[0][0])


def setup(settings: Settings, *, new_cluster: bool = False) -> str:
    """Make the repository this cluster's: what was done, or an empty string. Raises PitrError for another cluster's."""
    found = info(settings)
    if found.code in (1, 3) or not found.system_id:
        call(settings, "stanza-create")
        return "made the repository's stanza"
    with connect(settings) as connection:
        mine, version = system_id(connection), connection.info.server_version // 10000
    if (found.system_id, found.version) == (mine, str(version)):
        return ""
    if not new_cluster:
        raise meaning(
            f"ERROR: the repository is of cluster {found.system_id} (PostgreSQL {found.version}), here runs {mine} (PostgreSQL {version}): do not match",
            "",
        )
    call(settings, "stanza-upgrade")
    return f"the repository goes on with cluster {mine}; what it holds of {found.system_id} stays until it expires"


def complaint(error: Exception) -> str:
    """An error as one line for a list of problems."""
    return str(error) if isinstance(error, SlipwayError) else f"{type(error).__name__}: {error}"
