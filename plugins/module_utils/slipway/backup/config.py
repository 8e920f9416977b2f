# SPDX-License-Identifier: Apache-2.0
"""What backups and drills on this host are told: one file without secrets, and credentials apart from it.

The file is laid down by the role ``backup``. Credentials are files too, handed to a unit by systemd (``LoadCredential``,
``$CREDENTIALS_DIRECTORY``); a person who runs the command as root reads them where they lie.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from ..errors import SlipwayError
from .codec import FormatError, decode, parse_json
from .keeping.retention import Keeps
from .stores.s3 import Bucket, S3Store
from .stores.store import DirectoryStore, Lock, Store
from .verdict import TIERS, Tier

FORMAT = 1
FOLDER = Path("/etc/slipway/backup")
FILE, RECIPIENTS, ASSERTIONS = FOLDER / "config.json", FOLDER / "recipients", FOLDER / "assertions.json"
CREDENTIALS = FOLDER / "credentials"
STATE = Path("/var/lib/slipway/backup")
"""Of the user slipway-backup: runs.jsonl, pending/, the lock."""
DRILLS = Path("/var/lib/slipway/drill")
"""Of the user slipway-drill: evidence.jsonl, reports/, the scratch cluster."""
METRICS = Path("/var/lib/slipway/metrics")
"""Files for Prometheus' textfile collector, one a subject."""

Purpose = Literal["writer", "reader", "pruner", "evidence"]
MB = 1024 * 1024


class ConfigError(SlipwayError):
    """A setting or a credential is missing, or is not what it should be."""


@dataclass(frozen=True)
class Place:
    """Where backups are kept. ``kind``: ``directory`` (with ``path``) or ``s3`` (with the rest)."""

    kind: str
    path: str = ""
    endpoint: str = ""
    region: str = ""
    bucket: str = ""
    ca_file: str = ""
    lock_mode: str = ""  # GOVERNANCE, COMPLIANCE, or empty for none
    lock_days: int = 0

    def __post_init__(self) -> None:
        if self.kind not in ("directory", "s3"):
            raise FormatError(f"'{self.kind}' is no kind of store", "directory or s3")
        needed = ("path",) if self.kind == "directory" else ("endpoint", "region", "bucket")
        if missing := [name for name in needed if not getattr(self, name)]:
            raise FormatError(f"a store of kind {self.kind} lacks {', '.join(missing)}", "all of them")
        if self.lock_mode not in ("", "GOVERNANCE", "COMPLIANCE") or bool(self.lock_mode) != (self.lock_days > 0):
            raise FormatError("the lock is half set", "lock_mode GOVERNANCE or COMPLIANCE with lock_days, or neither")

    def lock(self, now: datetime) -> Lock | None:
        """Object Lock for what is written at ``now``, or None."""
        if not self.lock_mode:
            return None
        return Lock(
            "COMPLIANCE" if self.lock_mode == "COMPLIANCE" else "GOVERNANCE", now + timedelta(days=self.lock_days)
        )

    def __str__(self) -> str:
        return self.path if self.kind == "directory" else f"{self.bucket} at {self.endpoint}"


@dataclass(frozen=True)
class Config:
    """Everything but secrets. Times in seconds, sizes in MB.

    ``host``: the name that this host's backups go by in the store (a folder of its own). ``databases``: those that the
    inventory knows; any other is backed up all the same and reported. ``left_out``: databases that are not wanted.
    ``interval_s``: between two backups, as the timer has it. ``parallel_mb``: from this size on a database is dumped in
    several streams; ``full_hash_mb``: up to this size a table's every row goes into its hash. ``lock_wait_s``: how long a
    backup waits for somebody's lock; ``give_way_s``: how long somebody waits for one of its own before it gives way.
    ``drill_host``: the name that this host's drills go by in the store (by default what it calls itself).
    """

    host: str
    place: Place
    databases: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    tier: str = "startup"
    interval_s: int = 43_200
    drill_interval_s: int = 604_800
    lock_wait_s: int = 60
    give_way_s: int = 20
    longest_s: int = 14_400
    parallel_mb: int = 1024
    full_hash_mb: int = 1024
    memory_mb: int = 160
    port: int = 5432
    role: str = "slipway_backup"
    socket: str = "/var/run/postgresql"
    recovery_targets: Mapping[str, int] = field(default_factory=dict)
    keeps: Mapping[str, int] = field(default_factory=dict)
    scratch_mb: int = 256
    scratch_path: str = ""
    alarms: bool = False
    drill_host: str = ""
    format: int = FORMAT

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise FormatError(f"the settings are of format {self.format}", f"format {FORMAT}", "run site.yml again")
        if self.tier not in TIERS:
            raise FormatError(f"unknown recovery tier '{self.tier}'", f"one of: {', '.join(TIERS)}")
        for name in ("interval_s", "drill_interval_s", "lock_wait_s", "longest_s", "memory_mb"):
            if getattr(self, name) < 1:
                raise FormatError(f"{name} is {getattr(self, name)}", "at least 1")

    @property
    def interval(self) -> timedelta:
        """Between two backups."""
        return timedelta(seconds=self.interval_s)

    def targets(self) -> Tier:
        """RTO and RPO to reach: those of the tier, and where the user set own ones (``rto_s``, ``rpo_s``) these."""
        if unknown := sorted(set(self.recovery_targets) - {"rto_s", "rpo_s"}):
            raise FormatError(f"recovery_targets has the unknown key '{unknown[0]}'", "only rto_s, rpo_s")
        tier = TIERS[self.tier]
        return Tier(
            tier.name, self.recovery_targets.get("rto_s", tier.rto_s), self.recovery_targets.get("rpo_s", tier.rpo_s)
        )

    def retention(self) -> Keeps:
        """How much to keep. Raises InputError, FormatError."""
        try:
            return Keeps(**self.keeps)
        except TypeError as error:
            raise FormatError("the settings have an unknown keep", ", ".join(Keeps.__dataclass_fields__)) from error


@dataclass(frozen=True)
class Key:
    """A storage key as its credential file has it."""

    key_id: str
    secret: str

    def __repr__(self) -> str:
        return f"Key({self.key_id!r}, ***)"


def load(path: Path = FILE) -> Config:
    """The settings of this host. Raises ConfigError, FormatError."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(
            "Backups are not set up on this host", f"{path}", "run site.yml for it; see docs/backups.md"
        ) from None
    return decode(Config, parse_json(text, str(path)), str(path))


def credential_path(name: str) -> Path | None:
    """Where a credential lies as a file, for programs that read it themselves (age its identity); None if there is none."""
    folder = _credentials()
    return folder / name if folder and (folder / name).exists() else None


def _credentials() -> Path | None:
    """Where this process has its credentials; None for a unit that was handed none at all."""
    if folder := os.environ.get("CREDENTIALS_DIRECTORY"):
        return Path(folder)
    return None if "INVOCATION_ID" in os.environ and os.geteuid() != 0 else CREDENTIALS


def credential(name: str) -> bytes | None:
    """A credential's content, or None where this process was given none of that name.

    Under systemd only what the unit was handed counts; else root's own files. Raises PermissionError for others.
    """
    folder = _credentials()
    try:
        return (folder / name).read_bytes() if folder else None
    except FileNotFoundError:
        return None


def key(purpose: Purpose) -> Key | None:
    """The storage key for a purpose, or None. Raises FormatError."""
    text = credential(purpose)
    return None if text is None else decode(Key, parse_json(text, f"credential {purpose}"), f"credential {purpose}")


def store(config: Config, purpose: Purpose) -> Store:
    """The store, opened for a purpose. Raises ConfigError where its key is not on this host."""
    place = config.place
    if place.kind == "directory":
        return DirectoryStore(place.path)
    found = key(purpose)
    if found is None:
        raise ConfigError(
            f"The {purpose} key of {place} is not on this host", f"the credential '{purpose}'", _WHERE[purpose]
        )
    return S3Store(bucket(place, found))


def bucket(place: Place, found: Key) -> Bucket:
    """The bucket as the S3 client wants it."""
    return Bucket(
        place.bucket, place.endpoint, place.region, access_key=found.key_id, secret_key=found.secret, ca=place.ca_file
    )


_WHERE: Mapping[str, str] = {
    "writer": "put vault_backup_writer into the vault and run site.yml",
    "reader": "run this on the drill host, or put vault_backup_reader into its vault",
    "pruner": "run playbooks/prune_backups.yml: the pruner's key is kept off the servers",
    "evidence": "put vault_backup_evidence (or the writer's key) into the vault and run site.yml",
}
