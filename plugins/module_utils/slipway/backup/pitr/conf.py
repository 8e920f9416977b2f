# SPDX-License-Identifier: Apache-2.0
"""Point-in-time recovery: what a host is told, and pgBackRest's configuration made from it. Pure, but for :func:`load`.

Two files are rendered, so that the one without secrets can be shown and diffed: ``pgbackrest.conf``, and
``conf.d/secrets.conf`` with the passphrase and the storage key, which root and the user postgres alone may read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..codec import FormatError, decode, parse_json
from ..config import ConfigError
from ..verdict import TIERS

FORMAT = 1
FILE = Path("/etc/slipway/pitr/config.json")
STATE = Path("/var/lib/slipway/pitr")
"""Of the user postgres: what the last check found, the last drill's outcome, scratch clusters."""
SPOOL = "/var/spool/pgbackrest"
SHORTEST_PASSPHRASE = 20
_PATH = re.compile(r"^/[\w./-]*[\w-]$")


@dataclass(frozen=True)
class Repository:
    """Where base backups and WAL go. ``kind``: ``directory`` (with ``path``) or ``s3``, where ``path`` is the prefix.

    ``endpoint``: a host name, with a port where it is not 443; it is always spoken to by TLS.
    """

    kind: str
    path: str
    endpoint: str = ""
    region: str = ""
    bucket: str = ""
    ca_file: str = ""

    def __post_init__(self) -> None:
        if self.kind not in ("directory", "s3"):
            raise FormatError(f"'{self.kind}' is no kind of repository", "directory or s3")
        if not _PATH.match(self.path) or ".." in self.path:
            raise FormatError(f"the repository's path is '{self.path}'", "an absolute path, / for none is not enough")
        missing = [name for name in ("endpoint", "region", "bucket") if self.kind == "s3" and not getattr(self, name)]
        if missing:
            raise FormatError(f"a repository of kind s3 lacks {', '.join(missing)}", "all of them")

    def __str__(self) -> str:
        return self.path if self.kind == "directory" else f"{self.bucket}{self.path} at {self.endpoint}"


@dataclass(frozen=True)
class Settings:
    """Everything but secrets. Times in seconds or days, sizes in MB.

    ``keep_days``: any second of so many days can be gone back to. ``full_days``: between two full backups; those in between
    hold the difference. ``queue_mb``: WAL that may wait for the repository before it is given up, so that the disk does
    not fill and stop the database. ``wal_segment_mb``: as the cluster was made.
    """

    host: str
    tier: str
    repository: Repository
    major: int = 17
    cluster: str = "main"
    port: int = 5432
    stanza: str = "main"
    cores: int = 1
    archive_timeout_s: int = 300
    keep_days: int = 14
    full_days: int = 7
    queue_mb: int = 4096
    backup_interval_s: int = 86_400
    drill_interval_s: int = 604_800
    scratch_path: str = str(STATE / "scratch")
    scratch_mb: int = 256
    wal_segment_mb: int = 16
    format: int = FORMAT

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise FormatError(f"the settings are of format {self.format}", f"format {FORMAT}", "run site.yml again")
        if self.tier not in TIERS:
            raise FormatError(f"unknown recovery tier '{self.tier}'", f"one of: {', '.join(TIERS)}")
        for name, least, most in _BOUNDS:
            if not least <= getattr(self, name) <= most:
                raise FormatError(f"{name} is {getattr(self, name)}", f"{least} to {most}")
        for name in ("stanza", "cluster"):
            if not re.fullmatch(r"[A-Za-z0-9_-]+", getattr(self, name)):
                raise FormatError(f"{name} is '{getattr(self, name)}'", "letters, digits, - and _")
        if self.full_days > self.keep_days:
            raise FormatError(
                f"full backups every {self.full_days} days, kept for {self.keep_days}", "full_days at most keep_days"
            )

    @property
    def data(self) -> Path:
        """Debian's data folder of the cluster."""
        return Path(f"/var/lib/postgresql/{self.major}/{self.cluster}")

    @property
    def unit(self) -> str:
        """Debian's systemd unit of the cluster."""
        return f"postgresql@{self.major}-{self.cluster}.service"

    @property
    def programs(self) -> Path:
        """PostgreSQL's own programs."""
        return Path(f"/usr/lib/postgresql/{self.major}/bin")

    @property
    def late_s(self) -> int:
        """Age of the newest archived WAL that says that something is wrong: two segments, and the time they may take."""
        return 2 * self.archive_timeout_s + 300


_BOUNDS = (
    ("archive_timeout_s", 30, 3600), ("keep_days", 1, 366), ("full_days", 1, 31), ("queue_mb", 256, 10_000_000),
    ("cores", 1, 1024), ("port", 1, 65535), ("major", 13, 99), ("scratch_mb", 64, 1_000_000),
    ("backup_interval_s", 3600, 604_800), ("drill_interval_s", 3600, 31_536_000), ("wal_segment_mb", 1, 1024),
)  # fmt: skip


def load(path: Path = FILE) -> Settings:
    """The settings of this host. Raises ConfigError, FormatError."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(
            "Point-in-time recovery is not set up on this host", f"{path}",
            "set slipway_recovery_tier: growth and run site.yml; see docs/point_in_time.md",
        ) from None  # fmt: skip
    return settings(parse_json(text, str(path)), str(path))


def settings(data: Any, where: str = "the settings of point-in-time recovery") -> Settings:
    """Plain data as Settings. Raises FormatError."""
    return decode(Settings, data, where)


def archive_command(stanza: str) -> str:
    """What PostgreSQL runs for each finished WAL segment."""
    return f"pgbackrest --stanza={stanza} archive-push %p"


def queue_mb(disk_mb: int) -> int:
    """How much WAL may wait, from the size of the disk: 15 %, at least 1 GB.

    Less would give up a history of days for an outage of an hour; more could fill a disk that is at 80 %, where the
    user is told to act, and PostgreSQL stops when it has no room for WAL.
    """
    return max(1024, disk_mb * 15 // 100)


def render(found: Settings) -> str:
    """``pgbackrest.conf``: everything but secrets.

    Processes: pushing WAL must never be what the application feels, nor a backup; a restore has the machine for itself.
    """
    repository = found.repository
    backup = max(1, min(4, found.cores // 2))
    restore = max(1, min(8, found.cores))
    general = {
        **_store(repository),
        "repo1-path": repository.path,
        "repo1-cipher-type": "aes-256-cbc",
        # Few large objects instead of thousands of small ones, and of a changed file only its changed blocks.
        "repo1-bundle": "y",
        "repo1-block": "y",
        "repo1-retention-full-type": "time",
        "repo1-retention-full": str(found.keep_days),
        "compress-type": "zst",
        "compress-level": "3",
        "archive-async": "y",
        "spool-path": SPOOL,
        # The server's own unit has a /tmp of its own, where nobody else would see its locks.
        "lock-path": f"{SPOOL}/lock",
        "start-fast": "y",
        "log-level-console": "info",
        "log-level-file": "off",
    }
    parts = {
        "global": general,
        "global:archive-push": {
            "process-max": str(min(2, found.cores)),
            "archive-push-queue-max": f"{found.queue_mb}MiB",
            "log-level-console": "warn",
        },
        "global:archive-get": {"process-max": str(min(2, found.cores))},
        "global:backup": {"process-max": str(backup)},
        "global:restore": {"process-max": str(restore)},
        found.stanza: {"pg1-path": str(found.data), "pg1-port": str(found.port), "pg1-socket-path": "/var/run/postgresql"},
    }  # fmt: skip
    return "# Managed by Slipway (role pitr): changes made here are overwritten.\n" + _ini(parts)


def _store(repository: Repository) -> dict[str, str]:
    if repository.kind == "directory":
        return {"repo1-type": "posix"}
    host, _, port = repository.endpoint.removeprefix("https://").rstrip("/").partition(":")
    found = {
        "repo1-type": "s3",
        "repo1-s3-bucket": repository.bucket,
        "repo1-s3-endpoint": host,
        "repo1-s3-region": repository.region,
        "repo1-s3-uri-style": "path",
    }
    found |= {"repo1-storage-port": port} if port else {}
    return found | ({"repo1-storage-ca-file": repository.ca_file} if repository.ca_file else {})


def render_secrets(found: Settings, passphrase: str, key: Mapping[str, str] | None = None) -> str:
    """``conf.d/secrets.conf``. ``key``: ``key_id`` and ``secret`` of the bucket's key. Raises ConfigError; no secret in it."""
    if len(passphrase) < SHORTEST_PASSPHRASE:
        raise ConfigError(
            f"The passphrase of the point-in-time repository has {len(passphrase)} letters",
            f"at least {SHORTEST_PASSPHRASE}, random, and kept where the server is not: without it nothing can be restored",
            "put vault_pitr_passphrase into the vault (openssl rand -base64 36)",
        )
    secrets = {"repo1-cipher-pass": passphrase}
    if found.repository.kind == "s3":
        if not key or not key.get("key_id") or not key.get("secret"):
            raise ConfigError(
                f"The key of {found.repository} is not in the inventory", "key_id and secret",
                "put vault_pitr_key into the vault; see docs/point_in_time.md",
            )  # fmt: skip
        secrets |= {"repo1-s3-key": key["key_id"], "repo1-s3-key-secret": key["secret"]}
    return "# Managed by Slipway (role pitr): changes made here are overwritten.\n" + _ini({"global": secrets})


def _ini(parts: Mapping[str, Mapping[str, str]]) -> str:
    lines: list[str] = []
    for part, values in parts.items():
        lines.append(f"\n[{part}]")
        for name, value in values.items():
            if not value or value != value.strip() or not value.isprintable():
                # pgBackRest trims values, and takes a line break for the next option.
                raise FormatError(f"{name} is empty, or has a space or an unprintable letter at a wrong place", "text")
            lines.append(f"{name}={value}")
    return "\n".join(lines) + "\n"
