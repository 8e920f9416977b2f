# SPDX-License-Identifier: Apache-2.0
"""What a backup says of itself. Uploaded last: without a manifest there is no backup.

It holds no row data and no password: counts, hashes, names, definitions' fingerprints. ``Contents`` is what was seen in
a cluster, and the drill fills the same classes from the restored one, so that the two can be compared (``compare``).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .codec import FormatError, canonical, decode, parse_json

FORMAT = 1
_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-[a-z0-9][a-z0-9.-]{0,60}-[0-9a-f]{6}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MD5 = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Snapshot:
    """The moment a database's part of the backup shows. Snapshots are per database in PostgreSQL."""

    at: datetime
    lsn: str
    held_ms: int = 0  # how long it kept vacuum from cleaning up; 0 until it is let go


@dataclass(frozen=True)
class Sample:
    """Which rows a content hash covers: those whose ``key`` columns, as text, hash to 0 modulo ``modulus``."""

    modulus: int
    key: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.modulus < 2 or not self.key:
            raise FormatError("a sampling rule needs a modulus of 2 or more and key columns", "both")

    def __str__(self) -> str:
        return f"rows whose ({', '.join(self.key)}) hashes to 0 mod {self.modulus}"


@dataclass(frozen=True)
class Table:
    """Rows of one table without those of its partitions or children: each of them has its own entry.

    ``rows`` is exact, always. ``content`` is the order-free hash over ``hashed`` rows, by ``method``
    (``catalog.METHOD``); ``sample`` is None where every row went in. ``bytes`` is its size with toast, without indexes.
    """

    name: str  # quoted where needed, schema first: public."Order"
    rows: int
    hashed: int
    content: str
    method: str
    bytes: int
    sample: Sample | None = None


@dataclass(frozen=True)
class Sequence:
    """A sequence, and how far the column that owns it has got (None: it has no column, or the column is empty)."""

    name: str
    value: int
    called: bool
    increment: int
    column: str = ""
    column_furthest: int | None = None

    @property
    def behind(self) -> bool:
        """Whether the next value would collide with one that its column already holds."""
        if self.column_furthest is None:
            return False
        following = self.value + (self.increment if self.called else 0)
        return following <= self.column_furthest if self.increment > 0 else following >= self.column_furthest


@dataclass(frozen=True)
class Extension:
    """An extension in a database."""

    name: str
    version: str
    schema: str


@dataclass(frozen=True)
class Access:
    """Owner and grants of one object: ``privileges`` are sorted lines of ``grantee: PRIVILEGE [with grant option]``."""

    kind: str
    name: str
    owner: str
    privileges: tuple[str, ...] = ()


@dataclass(frozen=True)
class LargeObjects:
    """Large objects of a database: how many, how many bytes, and an order-free hash over number and content."""

    count: int = 0
    bytes: int = 0
    content: str = "0"


@dataclass(frozen=True)
class Sentinel:
    """The row written just before the backup. A dump of a stopped or wrong database shows by its age."""

    at: datetime
    token: str


@dataclass(frozen=True)
class Database:
    """Everything seen in one database within its snapshot.

    ``schema``: kind of object -> its identity -> fingerprint of its definition. ``settings``: ``role: name`` or
    ``name`` -> value, as set by ALTER DATABASE/ROLE IN DATABASE. ``collation``: provider and locale in one line; its version is
    that of the source host's C library or ICU (a restored copy builds its indexes under its own host's).
    ``unchecked``: what could not or need not be hashed, with the reason.
    """

    name: str
    owner: str
    encoding: str
    collation: str
    bytes: int
    snapshot: Snapshot
    tables: tuple[Table, ...]
    sequences: tuple[Sequence, ...]
    extensions: tuple[Extension, ...]
    schema: Mapping[str, Mapping[str, str]]
    access: tuple[Access, ...]
    settings: Mapping[str, str] = field(default_factory=dict)
    large_objects: LargeObjects = LargeObjects()
    sentinel: Sentinel | None = None
    collation_version: str = ""
    unchecked: tuple[str, ...] = ()


@dataclass(frozen=True)
class Role:
    """A role without its password. ``member_of``: ``group`` or ``group (admin)``; ``settings``: name=value."""

    name: str
    attributes: tuple[str, ...] = ()
    member_of: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cluster:
    """The server: versions, what lives beside the databases, and settings that differ from the built-in ones.

    ``bootstrap``: the superuser that initdb made. Memberships are granted in its name, and since PostgreSQL 16 by nobody
    else's, so that a copy of the cluster must be made with a bootstrap superuser of the same name.
    """

    version: str
    version_num: int
    system_identifier: str
    data_checksums: bool
    roles: tuple[Role, ...]
    tablespaces: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    bootstrap: str = ""


@dataclass(frozen=True)
class Contents:
    """What was seen in a cluster: at backup time, or in a drill's restored copy."""

    cluster: Cluster
    databases: tuple[Database, ...]

    def database(self, name: str) -> Database | None:
        """The database of that name, or None."""
        return next((each for each in self.databases if each.name == name), None)


@dataclass(frozen=True)
class StoredObject:
    """One object in the store: ciphertext, as it was sent.

    ``holds``: ``globals``, ``dump``, ``schema``, ``data`` or ``indexes``; ``stream``: place among the data streams.
    ``part_md5``: MD5 of each part as the store confirmed it. ``recipients`` see the manifest.
    """

    key: str
    size: int
    sha256: str
    part_size: int
    part_md5: tuple[str, ...]
    holds: str
    database: str = ""
    stream: int = 0
    version: str = ""

    def __post_init__(self) -> None:
        if not _SHA256.fullmatch(self.sha256) or not all(_MD5.fullmatch(each) for each in self.part_md5):
            raise FormatError(f"the hashes of {self.key} are not hashes", "SHA-256 and MD5 in lower-case hexadecimal")
        parts = -(-self.size // self.part_size) if self.part_size > 0 and self.size > 0 else 0
        if parts != len(self.part_md5):
            raise FormatError(
                f"{self.key} has {len(self.part_md5)} part hashes for {self.size} bytes in parts of {self.part_size}",
                "one a part, at least one",
            )


@dataclass(frozen=True)
class Manifest:
    """The whole record of one backup. ``recipients``: fingerprints of the age recipients, never identities.

    ``left_out``: databases named as such by the user; ``unlisted``: databases that nobody listed and that were
    backed up all the same. ``tools``: program -> version.
    """

    backup_id: str
    host: str
    started: datetime
    finished: datetime
    contents: Contents
    objects: tuple[StoredObject, ...]
    recipients: tuple[str, ...]
    tools: Mapping[str, str]
    left_out: tuple[str, ...] = ()
    unlisted: tuple[str, ...] = ()
    format: int = FORMAT

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.backup_id):
            raise FormatError(f"'{self.backup_id}' is no backup id", "such as 20260131T030000Z-web1-1f0c9a")
        if not self.objects or not self.recipients:
            raise FormatError("the manifest names no objects or no recipients", "at least one of each")
        keys = [each.key for each in self.objects]
        if len(set(keys)) != len(keys):
            raise FormatError("the manifest names one object twice", "each key once")
        names = [each.name for each in self.contents.databases]
        if len(set(names)) != len(names):
            raise FormatError("the manifest names one database twice", "each name once")

    @property
    def taken(self) -> datetime:
        """The recovery point: the oldest snapshot in it, since no later moment is whole in every database."""
        return min((each.snapshot.at for each in self.contents.databases), default=self.started)

    @property
    def stored_bytes(self) -> int:
        """What it takes in the store, without the manifest itself."""
        return sum(each.size for each in self.objects)


def backup_id(at: datetime, host: str, random_hex: str) -> str:
    """An id that sorts by time: ``20260131T030000Z-web1-1f0c9a``. ``random_hex``: six hexadecimal digits."""
    name = re.sub(r"[^a-z0-9.-]+", "-", host.lower()).strip("-.")[:60] or "host"
    return f"{at:%Y%m%dT%H%M%SZ}-{name}-{random_hex}"


def write(manifest: Manifest) -> bytes:
    """The manifest as canonical JSON with a checksum of its own around it, so that a cut or altered one shows."""
    body: dict[str, Any] = {"manifest": manifest, "sha256": hashlib.sha256(canonical(manifest)).hexdigest()}
    return canonical(body) + b"\n"


def read(text: bytes, name: str = "the manifest") -> Manifest:
    """Parse what :func:`write` made. Raises FormatError for anything else, a newer format included."""
    data = parse_json(text, name)
    if not isinstance(data, dict) or set(data) != {"manifest", "sha256"}:
        raise FormatError(f"{name} is no manifest", "an object with 'manifest' and 'sha256'")
    body = data["manifest"]
    found = body.get("format") if isinstance(body, dict) else None
    if found != FORMAT or isinstance(found, bool):
        raise FormatError(
            f"{name} is of format {found!r}", f"format {FORMAT}", "read it with the Slipway that wrote it"
        )
    try:
        digest = hashlib.sha256(canonical(body)).hexdigest()
    except TypeError as error:
        raise FormatError(f"{name} was altered: {error}", "the file as it was written") from error
    if digest != data["sha256"]:
        raise FormatError(f"{name} does not match its own checksum: it was altered or damaged", "the file as written")
    return decode(Manifest, body, name)
