# SPDX-License-Identifier: Apache-2.0
"""Backups in a bucket, drilled on a host of their own, by the playbooks a user runs: keys where they belong, alarms once."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.integration.offsite import HOOK, PING, Offsite
from tests.integration.world import recap

pytest_plugins = ["tests.integration.offsite_fixture"]
pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

ETC = "/etc/slipway/backup/credentials"


def newest(offsite: Offsite) -> str:
    """The id of the newest backup, as the drill host sees the bucket."""
    return str(offsite.data("backup", "list")["backups"][0]["id"])


# -- what is where ------------------------------------------------------------------------------------------------


def test_each_key_is_where_it_belongs_and_root_s_alone(offsite: Offsite) -> None:
    database, drill = offsite.world.host, offsite.drill
    assert offsite.root(f"ls {ETC}", on=database).split() == ["alarms", "writer"]
    assert offsite.root(f"ls {ETC}", on=drill).split() == ["alarms", "evidence", "identity.cred", "reader"]
    for host in (database, drill):
        assert set(offsite.root(f"stat -c '%U %a' {ETC}/*", on=host).splitlines()) == {"root 600"}
        assert "denied" in offsite.root(f"runuser -u nobody -- ls {ETC} 2>&1; true", on=host)
    units = offsite.root("systemctl cat slipway-backup.service", on=database)
    assert f"LoadCredential=writer:{ETC}/writer" in units
    assert "identity" not in units
    assert "slipway-drill" not in offsite.root("systemctl list-unit-files 'slipway-*'", on=database)


def test_the_bucket_s_playbook_tries_every_key(offsite: Offsite) -> None:
    done = offsite.ok("set_up_bucket", "--diff")
    said = done.stdout
    for purpose, right in (
        ("writer", "read what it wrote"),
        ("reader", "write an object"),
        ("pruner", "write an object"),
    ):
        line = next(line for line in said.splitlines() if line.strip().startswith(purpose) and right in line)
        assert line.endswith("refused"), line
    assert not [secret for secret in offsite.secrets() if secret in said + done.stderr]


def test_the_database_host_writes_and_can_see_nothing(offsite: Offsite) -> None:
    tried = offsite.data("backup", "verify-setup", on=offsite.world.host)
    assert tried["good"], tried
    assert sum(each["found"] == "refused" for each in tried["tries"]) >= 5
    listed = offsite.data("backup", "list", on=offsite.world.host)
    assert "no key here may look into the store" in listed["source"]
    assert [each["id"] for each in listed["backups"]] == [
        each["id"] for each in offsite.data("backup", "list")["backups"]
    ]


# -- proved elsewhere ---------------------------------------------------------------------------------------------


def test_a_backup_is_taken_drilled_elsewhere_and_its_proof_is_in_the_bucket(offsite: Offsite) -> None:
    with offsite.heard("slipway-backup", offsite.world.host) as taken:
        offsite.ok("take_backup")
    assert [each["where"] for each in taken] == [f"/{PING}/backup/start", f"/{PING}/backup"]
    with offsite.heard("slipway-drill", offsite.drill) as drilled:
        done = offsite.ok("run_drill")
    assert "proved" in done.stdout
    assert [each["where"] for each in drilled] == [f"/{PING}/drill/start", f"/{PING}/drill"]
    (last,) = offsite.data("drill", "list", "--lines", "1")["drills"]
    assert (last["verdict"], last["host"], last["tried"][0]["backup_id"]) == ("proved", "drill1", newest(offsite))
    assert 0 < last["recovery"]["rto_ms"] < last["recovery"]["rto_target_ms"]
    assert offsite.data("backup", "list")["backups"][0]["proof"] == "proved"
    chain = offsite.data("drill", "verify-chain")
    assert (chain["whole"], chain["not_asked"]) == (True, [])
    copies = [each.key.split("/") for each in offsite.bucket().entries("db1/evidence/drill1-")]
    assert [each[3] for each in copies] == [f"{number:06}.json" for number in range(1, chain["records"] + 1)]
    assert offsite.root("ls /var/lib/slipway/drill/scratch") == ""
    print(f"RTO {last['recovery']['rto_ms']} ms, RPO at worst {last['recovery']['rpo_worst_ms']} ms")


def test_evidence_that_is_cut_off_on_the_drill_host_shows_by_the_bucket(offsite: Offsite) -> None:
    file = "/var/lib/slipway/drill/evidence.jsonl"
    offsite.root(f"cp -a {file} {file}.kept && : > {file}")
    try:
        found = offsite.root("slipway drill verify-chain 2>&1; true")
        assert "that is not here" in found or "is gone" in found, found
        assert "NOT whole" in found
    finally:
        offsite.root(f"mv {file}.kept {file}")
    assert offsite.data("drill", "verify-chain")["whole"] is True


def test_fab_shows_backups_of_the_one_and_drills_of_the_other(offsite: Offsite) -> None:
    backups, drills, status = offsite.fab("backups"), offsite.fab("drills"), offsite.fab("status")
    assert backups.returncode == 0, backups.stdout + backups.stderr
    assert newest(offsite) in backups.stdout
    assert drills.returncode == 0, drills.stdout + drills.stderr
    assert "drill1" in drills.stdout
    assert "proved" in drills.stdout
    assert "neither is the key that opens backups" in status.stdout, status.stdout


def test_pruning_with_a_lent_key_removes_what_is_old_and_leaves_no_key(offsite: Offsite) -> None:
    if offsite.data("backup", "list")["backups"][0]["proof"] != "proved":
        offsite.ok("run_drill")  # what is newer than the newest proved one stays
    before = [each["id"] for each in offsite.data("backup", "list")["backups"]]
    assert len(before) > 1
    plan = offsite.ok("prune_backups", "--check")
    assert f" {len(before) - 1} to remove" in plan.stdout, plan.stdout[-3000:]
    assert [each["id"] for each in offsite.data("backup", "list")["backups"]] == before, "a plan only looks"
    done = offsite.ok("prune_backups", "--diff")
    assert [each["id"] for each in offsite.data("backup", "list")["backups"]] == before[:1]
    assert {each.key.split("/")[1] for each in offsite.bucket().versions("db1/2")} == {before[0]}
    assert "pruner" not in offsite.root("ls /run/slipway")
    assert offsite.keys["pruner"]["secret"] not in plan.stdout + done.stdout + done.stderr


def test_a_database_comes_back_on_a_host_without_a_key_by_your_own(offsite: Offsite) -> None:
    key = offsite.world.lab.folder / "recovery.age"
    done = offsite.ok(
        "restore_database", "--diff", "-e", "database=notes", "-e", "into=notes_look", "-e", f"identity_file={key}"
    )
    assert offsite.world.sql("SELECT count(*) FROM notes", "notes_look") == "1000"
    offsite.world.sql("DROP DATABASE notes_look", "postgres")
    assert key.read_text().strip() not in done.stdout + done.stderr
    assert "lent" not in offsite.root("ls /run/slipway", on=offsite.world.host)
    assert "lent" not in offsite.root("systemctl cat slipway-restore.service", on=offsite.world.host)


# -- what goes wrong is heard once --------------------------------------------------------------------------------


def told_once(heard: list[dict[str, str]], subject: str, *words: str) -> None:
    """A start, and of the failure one ping, one post to the webhook and one mail, each with the reason."""
    ways = sorted(each["where"] for each in heard)
    assert ways == sorted([f"/{PING}/{subject}/start", f"/{PING}/{subject}/fail", f"/{HOOK}", "ops@lab.test"]), heard
    for each in heard:
        if not each["where"].endswith("/start"):
            assert not [word for word in words if word not in each["text"]], each


def test_a_backup_that_fails_is_told_once_with_its_reason(offsite: Offsite) -> None:
    offsite.world.sql("ALTER ROLE slipway_backup NOLOGIN", "postgres")
    try:
        with offsite.heard("slipway-backup", offsite.world.host) as heard:
            done = offsite.play("take_backup")
    finally:
        offsite.world.sql("ALTER ROLE slipway_backup LOGIN", "postgres")
    assert done.returncode != 0
    told_once(heard, "backup", "FAILED", "not permitted to log in")
    said = json.dumps(heard).replace(PING, "").replace(HOOK, "")
    assert not [secret for secret in offsite.secrets() if secret in said]


def test_a_drill_of_a_damaged_backup_is_told_once_with_its_reason(offsite: Offsite) -> None:
    offsite.ok("take_backup")
    damaged, owner = newest(offsite), offsite.bucket()
    (entry,) = [each for each in owner.versions(f"db1/{damaged}/") if each.key.endswith("-dump-notes")]
    body = bytearray(b"".join(owner.read(entry.key)))
    body[600] ^= 1
    owner.delete(entry.key, entry.version)
    owner.put(entry.key, bytes(body))
    with offsite.heard("slipway-drill", offsite.drill) as heard:
        done = offsite.play("run_drill", "-e", f"backup={damaged}")
    assert done.returncode != 0
    assert "The drill FAILED" in done.stdout
    told_once(heard, "drill", damaged, "FAILED")
    for each in owner.versions(f"db1/{damaged}/"):
        owner.delete(each.key, each.version)


def test_a_drill_that_is_killed_is_told_once(offsite: Offsite) -> None:
    with offsite.heard("slipway-drill", offsite.drill) as heard:
        offsite.root("systemctl start --no-block slipway-drill.service")
        until = time.monotonic() + 30
        while not offsite.root("ls /var/lib/slipway/drill/scratch", check=False).strip():
            assert time.monotonic() < until, "the drill never began"
            time.sleep(0.1)
        offsite.root("systemctl kill --signal=KILL slipway-drill.service")
    told_once(heard, "drill", "slipway-drill of db1 failed (it was killed)")
    offsite.root("systemctl reset-failed 'slipway-*'")


# -- keys change --------------------------------------------------------------------------------------------------


def test_new_keys_are_proved_before_they_are_used_and_old_ones_proved_dead(offsite: Offsite, tmp_path: Path) -> None:
    purposes = ("writer", "reader", "pruner", "evidence")
    old = {purpose: offsite.keys[purpose] for purpose in purposes}
    laid = offsite.root(f"sha256sum {ETC}/writer", on=offsite.world.host)
    before = len(offsite.data("backup", "list")["backups"])
    fresh = {purpose: offsite.new_key(purpose) for purpose in purposes}

    # One of them is wrong: it ends before anything changed.
    offsite.write_inventory(
        **{f"vault_backup_{name}": fresh[name] for name in purposes} | {"vault_backup_writer": fresh["reader"]}
    )
    wrong = offsite.play("rotate_backup_keys")
    assert wrong.returncode != 0
    assert "writer: to write" in " ".join(wrong.stdout.split())
    assert offsite.root(f"sha256sum {ETC}/writer", on=offsite.world.host) == laid

    # The key that opens backups changes in the same run.
    offsite.keys |= fresh
    taken_before = newest(offsite)
    offsite.change_identity()
    offsite.write_inventory()
    changed = offsite.ok("rotate_backup_keys", "--diff")
    assert offsite.root(f"sha256sum {ETC}/writer", on=offsite.world.host) != laid
    assert len(offsite.data("backup", "list")["backups"]) == before + 1, "taken with the new key, seen with the new one"

    # The old ones live on, which is told; then they are dead.
    gone = tmp_path / "old_keys.yml"
    gone.write_text(json.dumps({"backup_keys_revoked": list(old.values())}))
    alive = offsite.play("rotate_backup_keys", "-e", f"@{gone}")
    assert alive.returncode != 0
    told = " ".join(alive.stdout.split())
    assert not [purpose for purpose, key in old.items() if f"{key['key_id']} may still" not in told], told
    for purpose, key in old.items():
        offsite.admin("key", "rm", "--uid", purpose, "--access-key", key["key_id"])
    dead = offsite.ok("rotate_backup_keys", "--diff", "-e", f"@{gone}")
    assert recap(dead)["changed"] == 1, (
        "site.yml on hosts that are as they should be changes nothing; a backup is taken"
    )
    offsite.ok("run_drill")
    (drilled,) = offsite.data("drill", "list", "--lines", "1")["drills"]
    assert (drilled["verdict"], drilled["tried"][0]["backup_id"]) == ("proved", newest(offsite)), "by the new identity"
    # What was taken before keeps its recipients: the old identity opens it, the new one does not.
    old_identity = offsite.world.lab.folder / "drill.age"
    words = ["-e", "database=notes", "-e", f"backup={taken_before}", "-e", "into=notes_old"]
    refused = offsite.play("restore_database", *words, "-e", f"identity_file={offsite.identity}")
    assert refused.returncode != 0
    assert "AGE-SECRET-KEY" not in refused.stdout + refused.stderr
    assert "identity" in " ".join(refused.stdout.split()), refused.stdout[-3000:]
    assert offsite.world.sql("SELECT count(*) FROM pg_database WHERE datname ~ 'notes_old'", "postgres") == "0"
    offsite.ok("restore_database", *words, "-e", f"identity_file={old_identity}")
    assert offsite.world.sql("SELECT count(*) FROM notes", "notes_old") == "1000"
    offsite.world.sql("DROP DATABASE notes_old", "postgres")
    secrets = [*offsite.secrets(), *(key["secret"] for key in old.values())]
    said = "".join(done.stdout + done.stderr for done in (wrong, changed, alive, dead))
    assert not [secret for secret in secrets if secret in said]


# -- secrets ------------------------------------------------------------------------------------------------------


def test_no_secret_was_in_an_output_an_argument_or_a_log(offsite: Offsite) -> None:
    """Of the loudest run with its diff, of every process meanwhile, of both journals and everything that is written."""
    assert offsite.first
    said = offsite.first.stdout + offsite.first.stderr
    seen = "".join(offsite.seen)
    assert "python" in seen
    assert "store-ca.pem" in said
    for secret in offsite.secrets():
        assert secret not in said
        assert secret not in seen
    for host in (offsite.world.host, offsite.drill):
        logs = offsite.root(
            "journalctl --no-pager -o cat; cat /var/lib/slipway/*/*.jsonl /var/lib/slipway/metrics/* 2>/dev/null; true",
            on=host,
        )
        assert not [secret for secret in offsite.secrets() if secret in logs]
