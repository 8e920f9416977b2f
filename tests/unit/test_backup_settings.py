# SPDX-License-Identifier: Apache-2.0
"""Settings of backups: each mistake is one message that names the way out, and no secret is ever quoted."""

from __future__ import annotations

from typing import Any

import pytest
from slipway.inventory.backup_settings import KEYS, VAULT, check_drills

from tests.unit.test_inventory_rules import RECIPIENT, problems

KEY = {"key_id": "id", "secret": "planted-storage-key"}
BUCKET = {"endpoint": "https://s3.example.com", "region": "eu", "bucket": "my-backups"}


def with_bucket(**changes: Any) -> list[str]:
    store = {**BUCKET, **changes}
    return problems(slipway_backup_store=store, vault_backup_writer=KEY, vault_backup_reader=KEY)


def test_a_folder_and_a_bucket_pass() -> None:
    assert problems(slipway_backup_store={"path": "/srv/backups"}) == []
    assert with_bucket(lock={"mode": "governance", "days": 14}) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"slipway_backup_recipients": []}, "nobody could read the backups"),
        ({"slipway_backup_recipients": ["AGE-SECRET-KEY-1QQQ"]}, "public key of age"),
        ({"slipway_backup_store": {"path": "backups"}}, "absolute path"),
        ({"slipway_backup_store": {"path": "/b", "bucket": "mine"}}, "both path and bucket"),
        ({"slipway_backup_store": {"path": "/b", "lock": {"mode": "governance", "days": 1}}}, "both path and lock"),
        ({"slipway_backup_store": {}}, "neither a path nor a bucket"),
        ({"slipway_backup_store": {"buckit": "x"}}, "Did you mean 'bucket'"),
        ({"slipway_backup_interval_hours": 24}, "at most 12"),
        ({"slipway_backup_interval_hours": 5}, "Set 4"),
        ({"slipway_recovery_targets": {"rto": 60}}, "unknown key"),
        ({"slipway_drill_interval": "hourly"}, "none of daily, weekly"),
        ({"slipway_backup_keeps": {"dayly": 3}}, "Did you mean 'daily'"),
        ({"slipway_backup_assertions": [{"query": "SELECT 1"}]}, "nothing is expected"),
        ({"vault_backup_identity": RECIPIENT}, "no secret key of age"),
        ({"vault_backup_writer": {"key_id": "x"}}, "'secret' is missing"),
    ],
)
def test_a_mistake_is_found(changes: dict[str, Any], said: str) -> None:
    found = problems(**changes)
    assert any(said in one for one in found), found


def test_a_half_set_bucket_is_one_message() -> None:
    (found,) = problems(slipway_backup_store={"bucket": "mine"}, vault_backup_writer=KEY)
    assert "endpoint, region missing" in found


def test_a_bucket_wants_its_keys() -> None:
    (found,) = problems(slipway_backup_store=BUCKET)
    assert "vault_backup_writer is not set" in found
    identity = f"AGE-SECRET-KEY-1{'Q' * 58}"
    (found,) = problems(slipway_backup_store=BUCKET, vault_backup_writer=KEY, vault_backup_identity=identity)
    assert "vault_backup_reader is not set" in found


@pytest.mark.parametrize("name", VAULT)
def test_no_value_of_the_vault_is_quoted(name: str) -> None:
    for value in ("planted-text", ["planted-text"], {"key_id": 7, "sekret": "planted-text"}):
        assert "planted" not in "".join(problems(**{name: value}))


def test_without_backups_nothing_is_asked() -> None:
    assert problems(slipway_backups=False, slipway_backup_recipients=[]) == []


def test_a_drill_host_must_reach_the_backups() -> None:
    groups = {"db": ["web1"], "drill": ["home"]}
    (found,) = check_drills(groups, {})
    assert "'home'" in str(found)
    assert list(check_drills(groups, {"slipway_backup_store": BUCKET})) == []
    assert list(check_drills({"db": ["web1"], "drill": ["web1"]}, {})) == []


def test_keys_are_part_of_what_the_check_reads() -> None:
    assert set(KEYS) < set(VAULT)
