# SPDX-License-Identifier: Apache-2.0
"""The shapes that :mod:`sizing` takes and gives. Frozen, and checked when they are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..errors import InputError
from .budget import Budget
from .redis import PURPOSES, RedisSizing
from .settings import NEWEST_MAJOR, OLDEST_MAJOR, whole_number

SHARED, DEDICATED, APPS = "shared", "dedicated", "apps"
JOB_MEMORY_MB = 256
"""One Python process with an application loaded, and room for its work."""
DISK_MINIMUM_MB = 6144
"""Base system and packages 2.5 GB, images of a few releases 1.5 GB, WAL and a first database 2 GB."""


@dataclass(frozen=True)
class JobShape:
    """One background job of an app: in how many containers it runs, and the memory limit of each."""

    name: str
    count: int = 1
    memory_mb: int = JOB_MEMORY_MB

    def __post_init__(self) -> None:
        for field in ("count", "memory_mb"):
            if getattr(self, field) < 1:
                raise InputError(
                    f"Job {self.name} has {field}: {getattr(self, field)}", "1 or more", f"correct {field}"
                )

    @classmethod
    def from_mapping(cls, app: object, job: Mapping[str, Any]) -> JobShape:
        """From an entry of an app's ``jobs``; what is missing has its default, other keys are not looked at."""

        def number(field: str, default: int) -> int:
            raw = job.get(field)
            return default if raw is None else whole_number(f"{field} of job {job.get('name')} of app {app}", raw)

        if not job.get("name"):
            raise InputError(
                f"A job of app {app} has no name", "a name for each entry of jobs", "add name: to the entry"
            )
        return cls(str(job["name"]), number("count", 1), number("memory_mb", JOB_MEMORY_MB))


@dataclass(frozen=True)
class AppShape:
    """One app as the user wants it. None means: by the rule.

    ``workers``: processes. ``concurrency``: requests at once for each worker. ``memory_mb``: limit of its container.
    ``database``: whether it talks to the database, and so needs a pool. ``jobs``: its background workers.
    ``redis``: what it wants of Redis.
    """

    name: str
    workers: int | None = None
    concurrency: int | None = None
    memory_mb: int | None = None
    database: bool = True
    jobs: tuple[JobShape, ...] = ()
    redis: tuple[str, ...] = ()

    @property
    def job_count(self) -> int:
        """How many background containers it has."""
        return sum(job.count for job in self.jobs)

    @property
    def jobs_mb(self) -> int:
        """What they may take together."""
        return sum(job.count * job.memory_mb for job in self.jobs)

    def __post_init__(self) -> None:
        for field in ("workers", "concurrency", "memory_mb"):
            value = getattr(self, field)
            if value is not None and value < 1:
                raise InputError(f"App {self.name} has {field}: {value}", "1 or more", f"correct {field}, or use auto")
        for purpose in self.redis:
            if purpose not in PURPOSES:
                raise InputError(f"App {self.name} wants Redis as '{purpose}'", " or ".join(PURPOSES), "correct redis")

    @classmethod
    def from_mapping(cls, app: Mapping[str, Any]) -> AppShape:
        """From an entry of ``slipway_apps``: ``auto`` and what is missing mean by the rule; other keys are not looked at."""

        def number(field: str) -> int | None:
            raw = app.get(field)
            return None if raw is None or raw == "auto" else whole_number(f"{field} of app {app.get('name')}", raw)

        if not app.get("name"):
            raise InputError("An app has no name", "a name for each entry of slipway_apps", "add name: to the entry")
        return cls(
            name=str(app["name"]),
            workers=number("workers"),
            concurrency=number("concurrency"),
            memory_mb=number("memory_mb"),
            database=bool(app.get("database", True)),
            jobs=tuple(JobShape.from_mapping(app["name"], job) for job in app.get("jobs") or ()),
            redis=tuple(str(purpose) for purpose in app.get("redis") or ()),
        )


@dataclass(frozen=True)
class HostShape:
    """What a host has (RAM and disk in MB, as measured; cores) and what is to live on it.

    ``role`` is ``shared`` (apps beside the database), ``dedicated`` (the database alone) or ``apps`` (the apps, with the
    database on another host: ``database`` is that one's shape).
    Raises InputError for what no host can be, or is too small in disk.
    """

    ram_mb: int
    cores: int
    disk_mb: int
    role: str = SHARED
    postgres_major: int = 17
    pooler: bool = True
    apps: tuple[AppShape, ...] = (AppShape("app"),)
    redis: bool = False
    database: HostShape | None = None

    def __post_init__(self) -> None:
        if self.role not in (SHARED, DEDICATED, APPS):
            raise InputError(f"Sizing role is '{self.role}'", "shared, dedicated or apps", "correct the role")
        if (self.role == APPS) != (self.database is not None) or (self.database and self.database.role != DEDICATED):
            raise InputError(
                f"A host of role {self.role} is sized with {'a' if self.database else 'no'} host for its database",
                "the database's own host with the role apps, and with no other",
                "give the facts of the database's host",
            )
        if self.ram_mb < 1 or self.cores < 1:
            raise InputError(
                f"The host reports {self.ram_mb} MB of RAM and {self.cores} cores",
                "at least 1 of each",
                "look at /proc/meminfo and nproc on the host",
            )
        if not OLDEST_MAJOR <= self.postgres_major <= NEWEST_MAJOR:
            raise InputError(
                f"PostgreSQL {self.postgres_major} is asked for",
                f"a major from {OLDEST_MAJOR} to {NEWEST_MAJOR}",
                "choose a supported major (Debian 13 has 17)",
            )
        if self.disk_mb < DISK_MINIMUM_MB:
            raise InputError(
                f"The disk has {self.disk_mb} MB",
                f"at least {DISK_MINIMUM_MB} MB for system, images, WAL and data",
                "take a plan with a larger disk, or enlarge the volume",
            )
        names = [app.name for app in self.apps]
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"Two apps are called '{name}'", "a name of its own for each app", "rename one")


@dataclass(frozen=True)
class PostgresSizing:
    """Every setting as PostgreSQL reads it (``settings``), and what the budget counts, in MB.

    ``active`` is how many connections may work at once; ``oom_score_adjust`` is for the postmaster's unit.
    """

    settings: Mapping[str, str]
    shared_buffers_mb: int
    effective_cache_size_mb: int
    work_mem_mb: float
    maintenance_work_mem_mb: int
    autovacuum_workers: int
    autovacuum_work_mem_mb: int
    max_connections: int
    max_wal_size_mb: int
    min_wal_size_mb: int
    max_slot_wal_keep_size_mb: int
    active: int
    oom_score_adjust: int = -900


@dataclass(frozen=True)
class PgBouncerSizing:
    """Server connections to Postgres (``pool_size`` transaction, ``session_pool_size`` session mode), of all apps
    together, and the clients admitted. ``max_prepared_statements`` is for each server connection.
    """

    pool_size: int
    session_pool_size: int
    max_client_conn: int
    max_prepared_statements: int = 200


@dataclass(frozen=True)
class AppSizing:
    """One app's numbers. ``client_pool`` + ``client_overflow`` are the app's own connection pool, for each worker;
    ``server_pool`` and ``session_pool`` its share of PgBouncer's server connections.
    """

    name: str
    workers: int
    concurrency: int
    memory_mb: int
    client_pool: int
    client_overflow: int
    server_pool: int
    session_pool: int
    jobs: tuple[JobShape, ...] = ()

    @property
    def jobs_mb(self) -> int:
        """What its background containers may take together."""
        return sum(job.count * job.memory_mb for job in self.jobs)

    @property
    def max_requests(self) -> int:
        """Largest number of requests at once."""
        return self.workers * self.concurrency


@dataclass(frozen=True)
class Sizing:
    """Everything decided for one host. ``notes`` say what was assumed, ``warnings`` which bound an override breaks.

    On a host of role ``apps``, ``postgres`` is what the database's own host runs with: nothing of it is in ``budget``.
    """

    host: HostShape
    plan_ram_mb: int
    postgres: PostgresSizing
    pgbouncer: PgBouncerSizing | None
    apps: tuple[AppSizing, ...]
    redis: tuple[RedisSizing, ...]
    budget: Budget
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def redis_maxmemory_mb(self) -> int | None:
        """What all servers of Redis may keep together; None where there is none."""
        return sum(server.maxmemory_mb for server in self.redis) or None

    @property
    def settings(self) -> Mapping[str, str]:
        """Every PostgreSQL setting, name to value as PostgreSQL reads it."""
        return self.postgres.settings

    def to_dict(self) -> dict[str, object]:
        """The same as plain data for JSON and for templates; MB as integers."""
        host = asdict(replace(self.host, role=SHARED, database=None)) | {"role": self.host.role}
        del host["database"]
        host["apps"] = [app.name for app in self.host.apps]
        host["plan_ram_mb"] = self.plan_ram_mb
        postgres = asdict(self.postgres)
        postgres["settings"] = dict(self.postgres.settings)
        return {
            "host": host,
            "postgres": postgres,
            "pgbouncer": asdict(self.pgbouncer) if self.pgbouncer else None,
            "apps": {app.name: {**asdict(app), "max_requests": app.max_requests} for app in self.apps},
            "redis": {
                "maxmemory_mb": self.redis_maxmemory_mb,
                "servers": [{**asdict(server), "limit_mb": server.limit_mb} for server in self.redis],
            }
            if self.redis
            else None,
            "budget": {
                "ram_mb": self.budget.ram_mb,
                "total_mb": self.budget.total_mb,
                "free_mb": self.budget.free_mb,
                "fits": self.budget.fits,
                "lines": [asdict(line) for line in self.budget.lines],
            },
            "notes": list(self.notes),
            "warnings": list(self.warnings),
        }
