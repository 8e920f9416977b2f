# SPDX-License-Identifier: Apache-2.0
"""The fixtures ``bay`` and ``proxy``, for test files that name this module in ``pytest_plugins``: a real S3 server."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from slipway.backup.stores.retry import Retry
from slipway.backup.stores.s3 import Bucket, S3Store, client_for

from lab import cli, s3
from lab.driver import Driver, get_driver
from lab.fault_proxy import FaultProxy
from lab.model import Host, Lab
from tests.integration.world import quiet


@dataclass
class Bay:
    """The S3 server as tests use it; every test works below a prefix of its own."""

    access: s3.Access
    driver: Driver
    host: Host

    def bucket(self, purpose: str, *, at: str = "", name: str = "") -> Bucket:
        """The bucket with the key of a purpose, straight or through a proxy (``at``)."""
        key, about = self.access.keys[purpose], self.access
        return Bucket(
            name or about.bucket, at or about.address, about.region, key["key_id"], key["secret"], ca=str(about.ca)
        )

    def store(self, purpose: str, *, at: str = "", attempts: int = 5, name: str = "") -> S3Store:
        """A store with short waits."""
        return S3Store(self.bucket(purpose, at=at, name=name), retry=Retry(attempts, base=0.02, cap=1.5))

    def client(self, purpose: str = "owner", *, at: str = "") -> Any:
        """boto3 itself, for what the store has no word for."""
        return client_for(self.bucket(purpose, at=at))

    def content(self, key: str) -> bytes:
        """An object as the owner reads it."""
        with closing(self.client().get_object(Bucket=self.access.bucket, Key=key)["Body"]) as body:
            return bytes(body.read())

    def new_bucket(self, *, locked: bool = False) -> str:
        """An empty bucket of the owner's own."""
        name = f"test-{secrets.token_hex(4)}"
        self.client().create_bucket(Bucket=name, ObjectLockEnabledForBucket=locked)
        return name

    def admin(self, *words: str) -> str:
        """radosgw-admin on the S3 host; its stdout."""
        argv = ["env", "CEPH_CONF=/etc/slipway-lab/ceph.conf", "radosgw-admin", "-n", "client.rgw", *words]
        return str(self.driver.exec(self.host, argv, timeout=60).stdout)

    def stranger(self) -> tuple[Bucket, Callable[[], object]]:
        """A bucket of a user made for this test alone, and what takes that user's key away."""
        name = f"u{secrets.token_hex(4)}"
        made = json.loads(self.admin("user", "create", "--uid", name, "--display-name", name))["keys"][0]
        about = self.access
        bucket = Bucket(name, about.address, about.region, made["access_key"], made["secret_key"], ca=str(about.ca))
        client_for(bucket).create_bucket(Bucket=name)
        return bucket, lambda: self.admin("key", "rm", "--uid", name, "--access-key", made["access_key"])


@pytest.fixture(scope="session")
def bay() -> Iterator[Bay]:
    """The S3 host alone: a store needs no other."""
    lab, driver = Lab("s3"), get_driver()
    (host,) = cli.up(driver, lab, [s3.spec()], quiet)
    yield Bay(s3.access(lab), driver, host)
    if not os.environ.get("SLIPWAY_KEEP"):
        cli.down(driver, lab, quiet)


@pytest.fixture
def proxy(bay: Bay) -> Iterator[FaultProxy]:
    """A proxy on this machine that misbehaves as told, and refuses what B2 refuses."""
    about = bay.access
    with FaultProxy(about.address, about.ca, about.certificate, about.private_key, b2=True) as made:
        yield made


@pytest.fixture
def prefix() -> str:
    """A place in the bucket that no other test uses."""
    return f"t{datetime.now(UTC):%H%M%S}{secrets.token_hex(4)}"
