# SPDX-License-Identifier: Apache-2.0
"""Point-in-time recovery with its repository in a bucket of a real S3 server, reached by a key that destroys nothing.

Differences from B2: Ceph's gateway, whose policies stand for B2's key capabilities; it is in the same network.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from botocore.exceptions import ClientError
from slipway.backup.stores.s3 import Bucket, client_for

from lab import s3
from tests.integration.pitr_host import PASSPHRASE, PitrHost, pitr_host
from tests.integration.world import recap

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def host() -> Iterator[PitrHost]:
    with pitr_host("pitrs", in_a_bucket=True) as made:
        yield made


def client(host: PitrHost, purpose: str) -> Any:
    """boto3 with one of the server's keys."""
    about = s3.access(host.world.lab)
    key = about.keys[purpose]
    return client_for(
        Bucket(s3.PITR_BUCKET, about.address, about.region, key["key_id"], key["secret"], ca=str(about.ca))
    )


def versions(host: PitrHost) -> list[dict[str, Any]]:
    """All versions of all objects, as the owner sees them."""
    pages = client(host, "owner").get_paginator("list_object_versions").paginate(Bucket=s3.PITR_BUCKET)
    return [each for page in pages for each in page.get("Versions", [])]


@contextmanager
def store_away(host: PitrHost) -> Iterator[None]:
    """The bucket cannot be reached: connections to any store are refused, over IPv4 and IPv6."""
    host.world.root(
        "nft add table inet away && nft 'add chain inet away out { type filter hook output priority -5; }' && "
        "nft add rule inet away out tcp dport 443 reject with tcp reset"
    )
    try:
        yield
    finally:
        host.world.root("nft delete table inet away")


def test_a_second_run_changes_nothing_and_the_key_is_seen_nowhere(host: PitrHost) -> None:
    again = host.converge("--diff")
    assert again.returncode == 0, again.stdout[-3000:]
    assert recap(again)["changed"] == 0
    key = s3.access(host.world.lab).keys["pitr"]["secret"]
    assert key not in again.stdout + again.stderr
    assert host.world.root(f"grep -rlF -e {key} -e {PASSPHRASE} /etc /var/lib/slipway /var/spool /run 2>/dev/null || true").split() == [
        "/etc/pgbackrest/conf.d/secrets.conf"
    ]  # fmt: skip
    assert key not in host.world.root("journalctl --no-pager --output=cat")


def test_what_lies_in_the_bucket_cannot_be_read_without_the_passphrase(host: PitrHost) -> None:
    host.world.sql("CREATE TABLE plain (t text); INSERT INTO plain VALUES ('planted-row-7wq2mzk5')")
    host.switch()
    host.good("backup", "--type", "diff")
    owner = client(host, "owner")
    found = versions(host)
    assert any("/archive/main/" in each["Key"] for each in found)
    assert any("/backup/main/" in each["Key"] for each in found)
    for each in found:
        body = owner.get_object(Bucket=s3.PITR_BUCKET, Key=each["Key"], VersionId=each["VersionId"])["Body"].read()
        assert b"planted-row" not in body
        assert not body.startswith(b"\x28\xb5\x2f\xfd"), f"{each['Key']} is compressed and not encrypted"


def test_a_drill_proves_a_chosen_second_from_the_bucket(host: PitrHost) -> None:
    done = host.pitr("drill", "--json")
    record = json.loads(done.stdout)
    assert done.returncode == 0, record
    assert record["verdict"] == "proved"
    assert record["recovery"]["misses"] == []
    assert host.world.root("ls -A /var/lib/slipway/pitr/scratch") == ""


def test_a_database_comes_back_from_the_bucket_as_it_was(host: PitrHost) -> None:
    host.world.sql("CREATE TABLE orders AS SELECT generate_series(1, 500) AS id")
    then = host.now()
    host.world.sql("DELETE FROM orders WHERE id > 100")
    host.good("restore", "--database", "notes", "--to-time", then, "--into", "notes_then")
    assert host.world.sql("SELECT count(*) FROM orders", "notes_then") == "500"
    assert host.world.sql("SELECT count(*) FROM orders", "notes") == "100"


def test_a_bucket_that_cannot_be_reached_is_told_and_archiving_heals_by_itself(host: PitrHost) -> None:
    failed = int(host.archiver("coalesce(failed_count, 0)"))
    with store_away(host):
        host.world.sql("INSERT INTO orders VALUES (1000)")
        host.switch()
        host.until(lambda: int(host.archiver("coalesce(failed_count, 0)")) > failed, 240)
        done = host.pitr("check", "--timer")
        assert done.returncode == 1
        assert "Archiving fails" in done.stdout
        assert host.world.sql("SELECT 1") == "1", "the database lives"

    def archived() -> bool:
        host.world.sql("INSERT INTO orders VALUES (1001)")  # life goes on, so segments fill
        host.switch()
        return host.world.sql("SELECT last_failed_time < last_archived_time FROM pg_stat_archiver", "postgres") == "t"

    host.until(archived, 180)
    host.good("check")


def test_a_key_that_was_taken_away_is_one_message_without_it(host: PitrHost) -> None:
    wrong = {"key_id": s3.access(host.world.lab).keys["pitr"]["key_id"], "secret": "planted-wrong-8zk4qwm2xv7p"}
    done = host.converge("--diff", pitr_key=wrong)
    assert done.returncode != 0
    assert wrong["secret"] not in done.stdout
    assert "Traceback" not in done.stdout
    assert re.search(r"key|403|SignatureDoesNotMatch", done.stdout)
    host.ok()
    host.good("check")


def test_the_key_hides_but_destroys_nothing_and_the_owner_goes_back_before_the_intruder(host: PitrHost) -> None:
    """docs/point_in_time.md: whoever has the host hides all of the repository; it is read as it was before."""
    host.good("check")
    before = host.now().replace("T", " ").replace("Z", "+00")
    kept = versions(host)
    intruder = client(host, "pitr")
    with pytest.raises(ClientError, match="AccessDenied"):
        intruder.delete_object(Bucket=s3.PITR_BUCKET, Key=kept[0]["Key"], VersionId=kept[0]["VersionId"])
    for name in sorted({each["Key"] for each in kept}):
        intruder.delete_object(Bucket=s3.PITR_BUCKET, Key=name)
    assert {each["VersionId"] for each in kept} <= {each["VersionId"] for each in versions(host)}
    ask = "runuser -u postgres -- pgbackrest --stanza=main --output=json"
    now = json.loads(host.world.root(f"{ask} info"))
    assert not now or not now[0]["backup"], "hidden"
    then = json.loads(host.world.root(f"{ask} --repo=1 --repo-target-time='{before}' info"))
    assert len(then[0]["backup"]) >= 2, then
    host.world.root(["install", "-d", "-o", "postgres", "-m", "0700", "/var/tmp/before"])
    host.world.root(
        f"runuser -u postgres -- pgbackrest --stanza=main --repo=1 --repo-target-time='{before}' --pg1-path=/var/tmp/before "
        "--type=immediate --archive-mode=off restore"
    )
    assert host.world.root("ls /var/tmp/before/PG_VERSION").strip().endswith("PG_VERSION")
