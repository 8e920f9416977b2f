# SPDX-License-Identifier: Apache-2.0
"""The playbook that sets the bucket up and tries the keys, against a real S3 server."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from slipway.backup.stores import keycheck, setupcheck
from slipway.backup.stores.setupcheck import REFUSED

from lab.fault_proxy import Fault, FaultProxy
from tests.integration.s3_fixture import Bay
from tests.integration.world import ROOT, VENV, Done, recap

pytest_plugins = ["tests.integration.s3_fixture"]
pytestmark = pytest.mark.lab
PURPOSES = ("writer", "reader", "pruner", "evidence", "owner")


def run(bay: Bay, folder: Path, *args: str, **changes: Any) -> Done:
    """set_up_bucket.yml as a user would; no host is connected to, so there is none."""
    about = bay.access
    settings = {
        "slipway_environment": "lab",
        "slipway_admin_keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ6c8Y6wJxYt3DqO0pQmZl9cWl4o8w1t8Jk5vWm7xX0Q x"],
        "slipway_admin_email": "ops@lab.test",
        "slipway_backup_recipients": ["age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"],
        "slipway_backup_store": {
            "endpoint": about.address, "region": about.region, "bucket": about.bucket, "ca_file": str(about.ca),
            "lock": {"mode": "governance", "days": 1},
        },
        **{f"vault_backup_{purpose}": dict(about.keys[purpose]) for purpose in PURPOSES},
        **changes,
    }  # fmt: skip
    (folder / "group_vars/all").mkdir(parents=True, exist_ok=True)
    (folder / "hosts.yml").write_text(
        yaml.safe_dump({"all": {"children": {group: {"hosts": {"db1": None}} for group in ("edge", "app", "db")}}})
    )
    (folder / "group_vars/all/main.yml").write_text(yaml.safe_dump(settings))
    argv = [str(VENV / "ansible-playbook"), "-i", str(folder), "playbooks/set_up_bucket.yml", *args]
    return subprocess.run(
        argv, cwd=ROOT, capture_output=True, text=True, check=False, timeout=200, stdin=subprocess.DEVNULL,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
    )  # fmt: skip


def test_it_sets_the_bucket_up_tries_every_key_and_changes_nothing_the_second_time(bay: Bay, tmp_path: Path) -> None:
    owner = bay.client()
    owner.delete_bucket_lifecycle(Bucket=bay.access.bucket)
    dry = run(bay, tmp_path, "--check", "--diff")
    assert dry.returncode == 0, dry.stdout + dry.stderr
    assert recap(dry)["changed"] == 1
    assert "abort_uploads_after_days" in dry.stdout
    assert "Keys were not tried: check mode writes nothing" in dry.stdout
    first = run(bay, tmp_path)
    assert (first.returncode, recap(first)["changed"]) == (0, 1), first.stdout + first.stderr
    assert "destroy what it wrote" in first.stdout
    second = run(bay, tmp_path, "--diff")
    assert (second.returncode, recap(second)["changed"]) == (0, 0), second.stdout + second.stderr
    said = dry.stdout + first.stdout + second.stdout + first.stderr
    assert not [purpose for purpose in PURPOSES if bay.access.keys[purpose]["secret"] in said]
    left = [each.key for each in bay.store("owner").versions("db1/setup-check/")]
    assert {key.rpartition(".")[2] for key in left} == {"locked", "locked-parts"}, "only locked probes may stay"
    assert "the store forgets the lock" in first.stdout


def test_a_key_with_too_many_rights_is_named_with_the_right(bay: Bay, tmp_path: Path) -> None:
    done = run(bay, tmp_path, vault_backup_writer=dict(bay.access.keys["owner"]))
    assert done.returncode != 0
    said = " ".join((done.stdout + done.stderr).split())
    assert "writer: to read what it wrote should be refused, and is allowed" in said
    assert "make those keys anew" in said
    assert "Traceback" not in said
    assert bay.access.keys["owner"]["secret"] not in said


def test_a_reader_in_the_writers_place_is_noticed_too(bay: Bay) -> None:
    keys = {"writer": bay.store("reader"), "reader": bay.store("writer")}
    tried = keycheck.verify(bay.store("owner"), keys, "db2", "x")
    assert [text for text in tried.wrong if text.startswith("writer: to write an object should be allowed")]
    assert [text for text in tried.wrong if text.startswith("reader: to read an object should be allowed")]


@pytest.mark.parametrize("mode", ["", "GOVERNANCE", "COMPLIANCE"])
def test_the_keys_of_the_lab_are_as_they_should_be(bay: Bay, mode: str) -> None:
    keys = {purpose: bay.store(purpose) for purpose in ("writer", "reader", "pruner", "evidence")}
    host = f"db3{mode.lower()}"
    tried = keycheck.verify(bay.store("owner"), keys, host, "x", mode=mode)
    assert tried.wrong == []
    probes = [f"{host}/setup-check/x.locked", f"{host}/setup-check/x.locked-parts"]
    assert tried.stays == (probes if mode else [])
    assert (setupcheck.FORGETS in tried.notes) == bool(mode)
    broken = [each for _purpose, each in tried.tries if each.what.startswith(("destroy what is locked", "shorten"))]
    assert len(broken) == (26 if mode else 0)  # two probes, three ways, four keys; and the writer's own two
    assert {each.found for each in broken} <= {REFUSED}


def test_a_writer_that_may_set_no_lock_afterwards_is_told_since_this_store_forgets(bay: Bay, proxy: FaultProxy) -> None:
    proxy.add(Fault("status", "put_object_retention", times=99, status=403, code="AccessDenied"))
    keys = {"writer": bay.store("writer", at=proxy.url), "reader": bay.store("reader")}
    tried = keycheck.verify(bay.store("owner"), keys, "db4", "x", mode="GOVERNANCE")
    assert setupcheck.UNABLE in tried.notes
    said = "\n".join(tried.wrong)
    assert "writer: to set a lock afterwards should be allowed, and is refused" in said
    assert "writer: to have a lock on what it sends in parts should be allowed, and is forgotten by the store" in said
    assert "have a lock on what it sends in one go" not in said


def test_an_old_key_is_proved_dead_or_named_as_alive(bay: Bay) -> None:
    bucket, revoke = bay.stranger()
    from slipway.backup.stores.s3 import S3Store

    assert [each.found for each in keycheck.revoked(S3Store(bucket), "db1", "x")] == ["allowed"] * 4
    revoke()
    assert {each.found for each in keycheck.revoked(S3Store(bucket), "db1", "x")} == {REFUSED}
