# SPDX-License-Identifier: Apache-2.0
"""Whether point-in-time recovery would work if it were needed now: looked at every few minutes, told once.

The killers are slow ones: archiving fails, WAL piles up on the database's own disk, and at its limit is given up (better
than a full disk, which stops the database). So the age of the newest archived WAL is the first figure, and what waits the
second. A timer's check ends with 1 when something new is wrong, and again every six hours while it lasts.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ...errors import SlipwayError
from ...postgres import server as pgserver
from .. import metrics
from ..codec import FormatError, canonical, decode, parse_json
from ..config import METRICS
from ..drills.proofs import replace
from ..metrics import Metric, plain
from ..verdict import TIERS, span
from . import pgbackrest as pitr
from . import run as pitr_run
from .conf import STATE, Settings
from .run import Archiver, Repo

SEEN, WANTED = STATE / "check.json", STATE / "backup-wanted"
REMIND = timedelta(hours=6)
LOOK = timedelta(hours=1)
"""Between two looks into the repository: each costs requests at the store. The server is asked every time."""
_LATE_BACKUP = timedelta(hours=6)
_MB = 1024 * 1024


@dataclass(frozen=True)
class Seen:
    """What a check found. ``told``: when the problems were last told; ``looked``: when the repository was last read.

    ``oldest``/``newest``: seconds that can be gone back to; ``gap``: the first missing WAL segment, if any.
    """

    at: datetime
    problems: tuple[str, ...] = ()
    told: datetime | None = None
    looked: datetime | None = None
    oldest: datetime | None = None
    newest: datetime | None = None
    backup: str = ""
    backup_at: datetime | None = None
    full_at: datetime | None = None
    backups: int = 0
    stored_mb: int = 0
    gap: str = ""
    last_archived: datetime | None = None
    failures: int = 0
    waiting: int = 0
    wal_mb: int = 0
    repository_problems: tuple[str, ...] = ()
    wanted: str = ""
    format: int = field(default=1)


def of_server(settings: Settings, found: Archiver, disk_free_mb: int) -> list[str]:
    """What is wrong with archiving, in sentences. Pure."""
    problems = []
    age = found.now - found.last_at if found.last_at else None
    up = found.now - found.reset_at if found.reset_at else timedelta(0)
    if found.failing and found.failed_at:
        since = pitr.shown(found.last_at) if found.last_at else "ever"
        problems.append(
            f"Archiving fails: segment {found.failed} was refused {span(_ms(found.now - found.failed_at))} ago, "
            f"{found.failures} failures in all; nothing arrived since {since}"
        )
    elif age is not None and age > timedelta(seconds=settings.late_s) and up > timedelta(seconds=settings.late_s):
        problems.append(
            f"The newest archived WAL is {span(_ms(age))} old, expected every {span(settings.archive_timeout_s * 1000)}"
        )
    elif age is None and up > timedelta(seconds=settings.late_s):
        problems.append("No WAL was ever archived from this server")
    waiting_mb = found.waiting * settings.wal_segment_mb
    if waiting_mb * 2 > settings.queue_mb:
        problems.append(
            f"{waiting_mb} MB of WAL wait for the repository; beyond {settings.queue_mb} MB they are given up, and no second "
            "from then until the next backup can be gone back to"
        )
    if disk_free_mb < max(512, settings.queue_mb - waiting_mb):
        problems.append(
            f"The database's disk has {disk_free_mb} MB free, less than the {settings.queue_mb} MB of WAL that may wait on it"
        )
    return problems


def of_repository(settings: Settings, repo: Repo, now: datetime, repo_free_mb: int | None) -> tuple[list[str], str]:
    """What is wrong with the repository, and why a backup is wanted now, or an empty string. Pure."""
    problems, wanted = [], ""
    found = repo.info
    if found.code not in (0, 2):
        problems.append(f"The repository is not whole: {found.message}")
    backups = [each for window in repo.windows for each in window.backups]
    if not backups:
        return [*problems, "There is no base backup yet: nothing can be gone back to"], "there is none"
    newest = backups[-1]
    limit = timedelta(seconds=settings.backup_interval_s) + _LATE_BACKUP
    if now - newest.stopped > limit:
        problems.append(f"The newest base backup is {span(_ms(now - newest.stopped))} old, limit {span(_ms(limit))}")
    if newest.damaged:
        problems.append(
            f"Base backup {newest.label} holds pages with wrong checksums: the disk or the memory is at fault"
        )
    last = repo.windows[-1]
    if last.missing:
        problems.append(
            f"WAL segment {last.missing} is missing in the repository: no second after {pitr.shown(last.end)} can be gone "
            "back to before the next backup"
        )
        wanted = f"segment {last.missing} is missing"
    if repo_free_mb is not None and repo_free_mb < 1024:
        problems.append(f"The repository's disk has {repo_free_mb} MB free")
    return problems, wanted


def check(settings: Settings, before: Seen | None, *, deep: bool, now: datetime) -> Seen:
    """Ask the server, and where it is due (``deep``: in any case) the repository; never raises for what it finds."""
    seen = Seen(now)
    problems: list[str] = []
    archiver: Archiver | None = None
    try:
        with pitr_run.connect(settings) as connection:
            if not pgserver.rows(connection, "SELECT pg_is_in_recovery()")[0][0]:
                pitr_run.mark(connection, "check")
                pitr_run.prune_marks(connection, settings.keep_days + settings.full_days + 1)
            archiver = pitr_run.archiver(connection)
        problems += of_server(settings, archiver, shutil.disk_usage(settings.data).free // _MB)
    except (SlipwayError, OSError) as error:
        problems.append(pitr_run.complaint(error))
    due = (
        deep
        or before is None
        or before.looked is None
        or now - before.looked >= LOOK
        or bool(before.repository_problems)
    )
    looked = _look(settings, now) if due or before is None else before
    return Seen(
        now, (*problems, *looked.repository_problems), None, looked.looked, looked.oldest, looked.newest, looked.backup,
        looked.backup_at, looked.full_at, looked.backups, looked.stored_mb, looked.gap,
        archiver.last_at if archiver else None, archiver.failures if archiver else 0, archiver.waiting if archiver else 0,
        archiver.wal_bytes // _MB if archiver else 0, looked.repository_problems, looked.wanted if due else "", seen.format,
    )  # fmt: skip


def _look(settings: Settings, now: datetime) -> Seen:
    try:
        repo = pitr_run.look(settings, now)
    except (SlipwayError, OSError) as error:
        return Seen(now, looked=now, repository_problems=(pitr_run.complaint(error),))
    free = None
    if settings.repository.kind == "directory":
        free = shutil.disk_usage(settings.repository.path).free // _MB
    problems, wanted = of_repository(settings, repo, now, free)
    backups = [each for window in repo.windows for each in window.backups]
    fulls = [each for each in backups if each.kind == "full"]
    stored = sum(each.stored_bytes for each in backups) + sum(each.bytes for each in repo.archive.segments.values())
    return Seen(
        now, looked=now, oldest=repo.windows[0].start if repo.windows else None, newest=repo.windows[-1].end if repo.windows else None,
        backup=backups[-1].label if backups else "", backup_at=backups[-1].stopped if backups else None,
        full_at=fulls[-1].stopped if fulls else None, backups=len(backups), stored_mb=stored // _MB,
        gap=next((each.missing for each in repo.windows if each.missing), ""), repository_problems=tuple(problems), wanted=wanted,
    )  # fmt: skip


def kind_due(settings: Settings, repo: Repo, now: datetime) -> str:
    """``full`` when the last is ``full_days`` old (less an hour, so that a timer's spread does not skip a day), else ``diff``."""
    fulls = [each for each in repo.info.backups if each.kind == "full"]
    age = now - fulls[-1].started if fulls else None
    return "full" if age is None or age > timedelta(days=settings.full_days) - timedelta(hours=1) else "diff"


def told(before: Seen | None, seen: Seen) -> tuple[Seen, bool]:
    """``seen`` with its time of telling, and whether to tell now: what is new, or has lasted for long. Pure.

    Figures in a sentence change at each look: a problem is the same when its first words are.
    """
    if not seen.problems:
        return seen, False
    known = {_gist(each) for each in before.problems} if before else set()
    new = any(_gist(each) not in known for each in seen.problems)
    last = before.told if before else None
    tell = new or last is None or seen.at - last >= REMIND
    from dataclasses import replace as changed

    return changed(seen, told=seen.at if tell else last), tell


def _gist(problem: str) -> str:
    return " ".join(word for word in problem.split() if not any(letter.isdigit() for letter in word))[:40]


def load(path: Path = SEEN) -> Seen | None:
    """What the last check found, or None. Never raises: a file that cannot be read is as none."""
    try:
        return decode(Seen, parse_json(path.read_bytes(), str(path)), str(path))
    except (OSError, FormatError):
        return None


def keep(settings: Settings, seen: Seen) -> list[str]:
    """Write what was found for the next check, for ``fab`` and for Prometheus; ask for a backup where one is wanted."""
    complaints = []
    try:
        replace(SEEN, canonical(seen), 0o644)
        if seen.wanted and not _asked_for(seen.wanted, seen.at):
            replace(WANTED, f"{seen.wanted}\n".encode(), 0o644)
    except OSError as error:
        complaints.append(f"{SEEN} could not be written: {error.strerror}")
    return complaints + metrics.write(METRICS, "pitr", lambda: gauges(settings, seen))


def _asked_for(wanted: str, at: datetime) -> bool:
    """Whether the same was asked for not long ago: a backup that fails must not be started again and again."""
    try:
        asked = datetime.fromtimestamp(WANTED.stat().st_mtime, UTC)
        return at - asked < REMIND and WANTED.read_text(encoding="utf-8").strip() == wanted
    except OSError:
        return False


def gauges(settings: Settings, seen: Seen) -> Sequence[Metric]:
    """For Prometheus. Pure."""
    found = [
        plain("slipway_pitr_checked_timestamp_seconds", "When this was looked at.", seen.at.timestamp()),
        plain("slipway_pitr_problems", "What is wrong with point-in-time recovery, in number.", len(seen.problems)),
        plain("slipway_pitr_rpo_target_seconds", "Data at risk at most, by the recovery tier.", TIERS[settings.tier].rpo_s),
        plain("slipway_pitr_archive_timeout_seconds", "WAL is archived at least so often.", settings.archive_timeout_s),
        plain("slipway_pitr_archive_failures", "Failures of archiving since statistics were reset.", seen.failures),
        plain("slipway_pitr_waiting_segments", "WAL segments that wait for the repository.", seen.waiting),
        plain("slipway_pitr_waiting_limit_bytes", "Beyond this waiting WAL is given up.", settings.queue_mb * _MB),
        plain("slipway_pitr_wal_bytes", "Size of pg_wal.", seen.wal_mb * _MB),
        plain("slipway_pitr_backups", "Base backups that can be recovered from.", seen.backups),
        plain("slipway_pitr_stored_bytes", "Size of base backups and WAL in the repository.", seen.stored_mb * _MB),
        plain("slipway_pitr_gap", "Whether WAL is missing in the repository.", int(bool(seen.gap))),
    ]  # fmt: skip
    times = {
        "slipway_pitr_last_archived_timestamp_seconds": (
            "When the newest WAL arrived in the repository.",
            seen.last_archived,
        ),
        "slipway_pitr_oldest_timestamp_seconds": ("The oldest second that can be gone back to.", seen.oldest),
        "slipway_pitr_backup_timestamp_seconds": ("End of the newest base backup.", seen.backup_at),
        "slipway_pitr_full_timestamp_seconds": ("End of the newest full backup.", seen.full_at),
    }
    found += [plain(name, text, at.timestamp()) for name, (text, at) in times.items() if at]
    if seen.last_archived:
        age = max(0.0, (seen.at - seen.last_archived).total_seconds())
        found.append(plain("slipway_pitr_archive_age_seconds", "Age of the newest archived WAL: data at risk.", age))
    return found


def _ms(found: timedelta) -> int:
    return max(0, found // timedelta(milliseconds=1))


def now() -> datetime:
    """The time, UTC."""
    return datetime.now(UTC)
