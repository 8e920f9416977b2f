# SPDX-License-Identifier: Apache-2.0
"""What a user may type about backups and drills, with the keys that belong into the vault, and the rules between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

from ..backup.keeping.retention import Keeps
from .schema import Field, Path, Problem, check, expected_form

DIRECTORY = "/var/backups/slipway"
HOURS = (1, 2, 3, 4, 6, 8, 12)
"""Intervals that a day has a whole number of. 24 is none of them: with the time that a backup takes, more than the 24 h
of the mildest tier would be at risk."""

STORE = Field(
    "mapping",
    "where backups are kept: path for a folder of the database host, or endpoint, region and bucket for S3 (Backblaze B2 ...)",
    fields={
        "path": Field("string", "a folder of the database host: fine to begin with, lost with the server", form="absolute_path"),
        "endpoint": Field("string", "the S3 endpoint, such as https://s3.eu-central-003.backblazeb2.com", form="https_url"),
        "region": Field("string", "its region, such as eu-central-003"),
        "bucket": Field("string", "the bucket's name", form="bucket"),
        "ca_file": Field("string", "file with the root certificate of a store with a private authority"),
        "lock": Field(
            "mapping",
            "Object Lock for each object: nobody can destroy it before its time (the bucket must have it switched on)",
            fields={
                "mode": Field("string", "governance (a special right can lift it) or compliance (nobody can)",
                              required=True, choices=("governance", "compliance")),
                "days": Field("integer", "how long", required=True, minimum=1, maximum=3650),
            },
        ),
    },
)  # fmt: skip

PITR_STORE = Field(
    "mapping",
    "where point-in-time recovery keeps base backups and WAL: path for a folder of the database host, or a bucket",
    fields={
        **{name: STORE.fields[name] for name in ("path", "endpoint", "region", "bucket", "ca_file")},
        "prefix": Field("string", "folder within the bucket, such as /pitr", form="absolute_path"),
    },
)

KEEPS = Field(
    "mapping",
    "how many backups to keep at least, of days, weeks, months and years",
    fields={
        one.name: Field(
            "integer", f"see docs/backups.md (default {one.default})", default=one.default, minimum=0, maximum=10000
        )
        for one in fields(Keeps)
    },
)

ASSERTION = Field(
    "mapping",
    "one question to a restored copy",
    fields={
        "name": Field("string", "what it makes sure of, in a few words"),
        "database": Field("string", "the database that is asked; the only one, where it is left out"),
        "query": Field("string", "a SELECT; it can write nothing", required=True),
        "timeout_s": Field("integer", "seconds it may take", default=60, minimum=1, maximum=86400),
        "value": Field("scalar", "what the first column of its only row is"),
        "at_least": Field("number", "or: the smallest that is good"),
        "at_most": Field("number", "or: the largest that is good"),
        "rows": Field("integer", "or: how many rows come", minimum=0),
        "newer_than": Field("scalar", "or: how much older than the backup the time there may be, such as 26 h"),
    },
)
EXPECTATIONS = ("value", "at_least", "at_most", "rows", "newer_than")

TARGETS = Field(
    "mapping",
    "your own targets where they are not those of the tier",
    fields={
        "rto_s": Field("integer", "seconds in which you must be back", minimum=1),
        "rpo_s": Field("integer", "seconds of data that may be lost", minimum=0),
    },
)

BACKUP_SETTINGS: dict[str, Field] = {
    "slipway_recovery_targets": TARGETS,
    "slipway_backups": Field("boolean", "take backups and drill them; without them nothing brings your data back", default=True),
    "slipway_backup_store": STORE,
    "slipway_backup_recipients": Field(
        "list", "public keys of age that can read the backups: the drills' and your own recovery key (bin/fab init makes both)",
        items=Field("string", "a public key of age", form="age_recipient"),
    ),
    "slipway_backup_interval_hours": Field(
        "integer", "hours between two backups; the most that can be lost is this and the time one takes", default=12, minimum=1, maximum=12
    ),
    "slipway_backup_left_out": Field("list", "databases that need no backup; any other is backed up, listed or not", default=[],
                                     items=Field("string", "a database")),
    "slipway_backup_keeps": KEEPS,
    "slipway_backup_assertions": Field("list", "SQL that each drill asks of the restored copy", default=[], items=ASSERTION),
    "slipway_drills_beside_database": Field(
        "boolean", "where group drill has no host: run drills on the database host, with the key that opens backups sealed there",
        default=True,
    ),
    "slipway_drill_interval": Field("string", "how often the newest backup is restored to prove it: weekly for tier startup, else daily",
                                    choices=("daily", "weekly")),
    "slipway_pitr_store": PITR_STORE,
    "slipway_pitr_keep_days": Field(
        "integer", "days of which any second can be gone back to (tiers growth and enterprise)", default=14, minimum=7, maximum=30
    ),
    "slipway_pitr_archive_seconds": Field(
        "integer", "seconds after which changes leave the server at the latest (tiers growth and enterprise)", default=300, minimum=30, maximum=1800
    ),
}  # fmt: skip

KEYS = (
    "vault_backup_writer", "vault_backup_reader", "vault_backup_pruner", "vault_backup_evidence", "vault_backup_owner",
    "vault_pitr_key",
)  # fmt: skip
VAULT = (*KEYS, "vault_backup_identity", "vault_backup_alarms", "vault_pitr_passphrase")
_PASSPHRASE = 20
_KEY = Field(
    "mapping",
    "a storage key",
    fields={"key_id": Field("string", "its id", required=True), "secret": Field("string", "its secret", required=True)},
)


def check_backups(variables: Mapping[str, Any]) -> Iterator[Problem]:
    """What the settings of backups say about each other. Values of the vault are never quoted."""
    if variables.get("slipway_backups", True) is False:
        return
    recipients = variables.get("slipway_backup_recipients")
    if not recipients:
        yield Problem(
            "slipway_backup_recipients is not set, so nobody could read the backups",
            "make a key with 'age-keygen -o recovery-key.txt', keep that file off the servers, and list its public key here "
            "(bin/fab init does it for a new inventory); slipway_backups: false goes without backups",
        )
    store = variables.get("slipway_backup_store")
    if isinstance(store, Mapping):
        yield from _check_store(store, variables)
    hours = variables.get("slipway_backup_interval_hours")
    if isinstance(hours, int) and 1 <= hours <= max(HOURS) and hours not in HOURS:
        near = max(one for one in HOURS if one < hours)
        yield Problem(f"a day has no whole number of {hours} hours", f"set {near}", ("slipway_backup_interval_hours",))
    for index, one in enumerate(_listed(variables.get("slipway_backup_assertions"))):
        if isinstance(one, Mapping) and not set(EXPECTATIONS) & set(one):
            path: Path = ("slipway_backup_assertions", index)
            yield Problem("nothing is expected of the answer", f"add one of: {', '.join(EXPECTATIONS)}", path)
    for name in KEYS:
        if variables.get(name):
            yield from check(variables[name], _KEY, (name,), secret=True)
    yield from _check_pitr(variables)
    identity = variables.get("vault_backup_identity")
    if identity and (not isinstance(identity, str) or expected_form("age_identity", identity.strip())):
        yield Problem(
            "found something that is no secret key of age, expected one line that begins with AGE-SECRET-KEY-1",
            "", ("vault_backup_identity",),
        )  # fmt: skip


def _check_store(store: Mapping[str, Any], variables: Mapping[str, Any]) -> Iterator[Problem]:
    path: Path = ("slipway_backup_store",)
    bucket = [name for name in ("endpoint", "region", "bucket") if store.get(name)]
    if "path" in store and (bucket or store.get("lock")):
        other = bucket[0] if bucket else "lock"
        yield Problem(f"both path and {other} are set", "keep path for a folder, or the others for S3", path)
        return
    if "path" in store:
        return
    if len(bucket) < 3:
        missing = [name for name in ("endpoint", "region", "bucket") if name not in bucket]
        yield Problem(
            f"{', '.join(missing)} missing" if bucket else "neither a path nor a bucket is set",
            "set endpoint, region and bucket, or path alone", path,
        )  # fmt: skip
    needed = ["vault_backup_writer"] + (["vault_backup_reader"] if variables.get("vault_backup_identity") else [])
    for name in needed:
        if not variables.get(name):
            purpose = "backups are written" if name.endswith("writer") else "drills read"
            yield Problem(
                f"backups go to a bucket, and {name} is not set: the key that {purpose} with",
                f"add {name}: {{key_id: ..., secret: ...}} to vault.yml; docs/backups.md says how to make it", path,
            )  # fmt: skip


def _check_pitr(variables: Mapping[str, Any]) -> Iterator[Problem]:
    if variables.get("slipway_recovery_tier", "startup") not in ("growth", "enterprise"):
        return
    passphrase = variables.get("vault_pitr_passphrase")
    if not passphrase:
        yield Problem(
            f"tier {variables.get('slipway_recovery_tier')} archives WAL, and vault_pitr_passphrase is not set: what it is encrypted with",
            "add it to vault.yml (openssl rand -base64 36) and keep a copy off the servers: without it nothing can be restored",
            ("slipway_recovery_tier",),
        )
    elif not isinstance(passphrase, str) or len(passphrase) < _PASSPHRASE:
        yield Problem(
            f"vault_pitr_passphrase is no text of {_PASSPHRASE} letters or more",
            "make one with: openssl rand -base64 36",
            ("vault_pitr_passphrase",),
        )
    store = variables.get("slipway_pitr_store")
    if not isinstance(store, Mapping):
        return
    path: Path = ("slipway_pitr_store",)
    missing = [name for name in ("endpoint", "region", "bucket") if not store.get(name)]
    if "path" in store and len(missing) < 3:
        yield Problem("both path and a bucket are set", "keep path for a folder, or the others for S3", path)
    elif "path" not in store and missing:
        yield Problem(f"{', '.join(missing)} missing", "set endpoint, region and bucket, or path alone", path)
    elif "path" not in store and not variables.get("vault_pitr_key"):
        yield Problem(
            "WAL goes to a bucket, and vault_pitr_key is not set",
            "add vault_pitr_key: {key_id: ..., secret: ...} to vault.yml; docs/point_in_time.md says how to make it", path,
        )  # fmt: skip


def check_drills(groups: Mapping[str, Sequence[str]], variables: Mapping[str, Any]) -> Iterator[Problem]:
    """Hosts of group drill that could not reach the backups."""
    store = variables.get("slipway_backup_store")
    in_folder = not isinstance(store, Mapping) or "path" in store
    for host in sorted(set(groups.get("drill") or ()) - set(groups.get("db") or ())):
        if in_folder and groups.get("db") and variables.get("slipway_backups", True) is not False:
            yield Problem(
                f"the host '{host}' of group drill cannot read backups that lie in a folder of the database host",
                "keep backups in a bucket (slipway_backup_store), or take the host out of the group",
            )


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else ()
