# SPDX-License-Identifier: Apache-2.0
"""A host with PostgreSQL and point-in-time recovery alone, and the few things its tests do to it."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab import s3
from tests.integration.world import ROOT, VENV, Done, World, raise_lab, remove_lab

PLAYBOOK = Path(__file__).parent / "pitr.yml"
PASSPHRASE = "planted-passphrase-9x2kq7vm4t"
DATABASES = [{"name": "notes", "password": "planted-db-5hq81zkc"}]


@dataclass
class PitrHost:
    """The host and its settings."""

    world: World
    settings: dict[str, Any] = field(default_factory=dict)

    def converge(self, *args: str, **changes: Any) -> Done:
        """Run the roles, with ``changes`` laid over the settings."""
        wished = {
            "postgres_databases": DATABASES, "postgres_pooler_user": "", "postgres_archive_command": "pgbackrest --stanza=main archive-push %p",
            "postgres_archive_timeout": 60, "pitr_archive_timeout": 60, "pitr_passphrase": PASSPHRASE, "pitr_queue_mb": 256,
            "pitr_first": False, "pitr_host": "db1", **self.settings, **changes,
        }  # fmt: skip
        extra = self.world.lab.folder / "extra.json"
        extra.write_text(json.dumps(wished))
        return subprocess.run(
            [str(VENV / "ansible-playbook"), "-i", str(self.world.inventory / "hosts.yml"), str(PLAYBOOK), "-e", f"@{extra}", *args],
            cwd=ROOT, capture_output=True, text=True, check=False, timeout=600, stdin=subprocess.DEVNULL,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"},
        )  # fmt: skip

    def ok(self, *args: str, **changes: Any) -> str:
        """The same, and it must succeed."""
        done = self.converge(*args, **changes)
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
        return done.stdout + done.stderr

    def pitr(self, *words: str, timeout: float = 300) -> Done:
        """``slipway pitr ...`` as root on the host."""
        argv = ["slipway", "pitr", *words]
        done = self.world.driver.exec(self.world.host, argv, check=False, timeout=timeout)
        return subprocess.CompletedProcess(argv, done.code, done.stdout, done.stderr)

    def good(self, *words: str, timeout: float = 300) -> str:
        """The same, and it must end with 0."""
        done = self.pitr(*words, timeout=timeout)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def now(self) -> str:
        """The server's clock, for ``--to-time``, taken between two commits that are a second apart from it."""
        time.sleep(1.1)
        found = self.world.sql(
            "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')", "postgres"
        )
        time.sleep(1.1)
        return found

    def switch(self) -> None:
        """Finish the WAL segment."""
        self.world.sql("SELECT pg_switch_wal()", "postgres")

    def until(self, holds: Callable[[], bool], seconds: float = 60) -> None:
        """Wait for something."""
        limit = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < limit, "it did not come to pass"
            time.sleep(0.5)

    def archiver(self, column: str) -> str:
        """One column of pg_stat_archiver."""
        return self.world.sql(f"SELECT {column} FROM pg_stat_archiver", "postgres")  # noqa: S608 - a test's own

    @contextmanager
    def repository_away(self) -> Iterator[None]:
        """The store cannot be reached: to pgBackRest, which has its own user, a folder it may not enter."""
        self.world.root("chown root:root /var/lib/pgbackrest && chmod 700 /var/lib/pgbackrest")
        try:
            yield
        finally:
            self.world.root("chown postgres:postgres /var/lib/pgbackrest && chmod 750 /var/lib/pgbackrest")


def bucket_settings(access: s3.Access) -> dict[str, Any]:
    """The role's settings for a repository in the lab's S3 server, as a user would give them."""
    place = {
        "kind": "s3", "endpoint": access.endpoint, "region": access.region, "bucket": s3.PITR_BUCKET, "path": "/pitr/db1",
        "ca_file": "/etc/slipway/pitr/store-ca.pem",
    }  # fmt: skip
    return {
        "pitr_repository": place, "pitr_repository_ca": access.ca.read_text(), "pitr_key": dict(access.keys["pitr"]),
    }  # fmt: skip


@contextmanager
def pitr_host(lab: str = "pitrit", *, in_a_bucket: bool = False) -> Iterator[PitrHost]:
    """A host that was converged once and holds one full backup, in a folder or in the bucket of an S3 host beside it."""
    world = raise_lab(lab, image="rung0", acme=False, host="db1", beside=[s3.spec()] if in_a_bucket else [])
    try:
        made = PitrHost(world, bucket_settings(s3.access(world.lab)) if in_a_bucket else {})
        made.ok()
        made.good("backup", "--type", "full")
        yield made
    finally:
        remove_lab(world)
