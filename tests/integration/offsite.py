# SPDX-License-Identifier: Apache-2.0
"""A server whose backups go to a bucket, a host that drills them, and somebody who hears the alarms: shared by tests.

``db1`` holds the writer's key alone; ``drill1`` the reader's, the evidence key and the identity. The lab's S3 host also
receives pings, webhooks and mail (:mod:`tests.integration.alarm_sink`). All is set up by ``playbooks/site.yml``.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from slipway.backup.stores.s3 import Bucket, S3Store

from lab import inventory, s3
from lab.model import Host
from tests.integration.world import Done, World

PING, HOOK = "planted-ping-5t2w9z", "planted-hook-1m7b4c"
"""Parts of URLs: whoever has those can speak in our name."""
SINK, WEB_PORT, MAIL_PORT = "/run/alarm-sink.jsonl", 8080, 2525
GROUPS = {**{group: ["db1"] for group in inventory.RUNG0_GROUPS}, "drill": ["drill1"]}
PURPOSES = ("writer", "reader", "pruner", "evidence", "owner")


@dataclass
class Offsite:
    """The hosts, and the few ways a test reaches into them. ``keys``: the storage keys that the vault has now."""

    world: World
    drill: Host
    store: Host
    access: s3.Access
    keys: dict[str, dict[str, str]] = field(default_factory=dict)
    first: Done | None = None
    seen: list[str] = field(default_factory=list)

    @property
    def inventory(self) -> Path:
        """Folder to give to ``ansible-playbook -i``."""
        return self.world.inventory

    def secrets(self) -> list[str]:
        """Everything that must be seen nowhere."""
        lab = self.world.lab.folder
        known = [path.read_text().strip() for path in sorted(lab.glob("*.age"))]
        known += [held[name]["secret"] for held in (self.access.keys, self.keys) for name in PURPOSES]
        return [*known, PING, HOOK]

    def write_inventory(self, **changes: Any) -> None:
        """The inventory with the keys as they are now, and ``changes``."""
        world, about = self.world, self.access
        web = f"http://{self.store.ip}:{WEB_PORT}"
        settings = {
            **world.settings,
            "slipway_apps": [],
            "vault_apps": {},
            "slipway_backup_store": {
                "endpoint": about.address, "region": about.region, "bucket": about.bucket, "ca_file": str(about.ca),
            },
            "slipway_backup_keeps": {
                "recent_hours": 0, "daily": 1, "weekly": 0, "monthly": 0, "yearly": 0, "minimum": 1,
            },
            "vault_backup_alarms": {
                "ping": {"backup": f"{web}/{PING}/backup", "drill": f"{web}/{PING}/drill"},
                "webhook": f"{web}/{HOOK}",
                "mail": {"to": ["ops@lab.test"], "sender": "slipway@lab.test", "host": self.store.ip, "port": MAIL_PORT,
                         "security": "none"},
            },
            **{f"vault_backup_{purpose}": self.keys[purpose] for purpose in PURPOSES},
            **changes,
        }  # fmt: skip
        folder = self.inventory / "group_vars" / "all"
        folder.mkdir(parents=True, exist_ok=True)
        tree = inventory.build(world.lab, [world.host, self.drill], GROUPS)
        (self.inventory / "hosts.yml").write_text(yaml.safe_dump(inventory.as_yaml_tree(tree)))
        (folder / "main.yml").write_text(yaml.safe_dump(settings))

    def play(self, name: str, *args: str) -> Done:
        """A playbook as a user would run it."""
        return self.world.playbook(name, *args)

    def ok(self, name: str, *args: str) -> Done:
        """The same, and it must not fail."""
        done = self.play(name, *args)
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        return done

    def root(self, command: str | list[str], *, on: Host | None = None, check: bool = True) -> str:
        """A command as root, on the drill host unless told otherwise."""
        return self.world.root(command, host=on or self.drill, check=check, timeout=300)

    def data(self, *words: str, on: Host | None = None) -> Any:
        """What ``slipway`` says with --json."""
        return json.loads(self.root(["slipway", *words, "--json"], on=on))

    def bucket(self, purpose: str = "owner") -> S3Store:
        """The bucket, from this machine."""
        about, key = self.access, self.keys[purpose]
        return S3Store(
            Bucket(about.bucket, about.address, about.region, key["key_id"], key["secret"], ca=str(about.ca))
        )

    @property
    def identity(self) -> Path:
        """The drills' secret key of age that the vault has now."""
        changed = self.world.lab.folder / "drill-2.age"
        return changed if changed.exists() else self.world.lab.folder / "drill.age"

    def change_identity(self) -> None:
        """A new identity for the drills and its public half among the recipients, for the next `write_inventory`."""
        made = self.root(["age-keygen"]).splitlines()
        secret = next(line for line in made if line.startswith("AGE-SECRET-KEY"))
        public = next(line.split()[-1] for line in made if line.startswith("# public key"))
        (self.world.lab.folder / "drill-2.age").write_text(f"{secret}\n")
        self.world.settings["vault_backup_identity"] = secret
        self.world.settings["slipway_backup_recipients"][0] = public

    def admin(self, *words: str) -> str:
        """radosgw-admin on the S3 host."""
        return self.root(
            ["env", "CEPH_CONF=/etc/slipway-lab/ceph.conf", "radosgw-admin", "-n", "client.rgw", *words], on=self.store
        )

    def new_key(self, purpose: str) -> dict[str, str]:
        """A further key with the same rights, as one makes at the provider; the old one still works."""
        key = {"key_id": f"new{purpose}{secrets.token_hex(4)}", "secret": secrets.token_urlsafe(30)}
        words = ("--uid", purpose, "--key-type", "s3", "--access-key", key["key_id"], "--secret-key", key["secret"])
        self.admin("key", "create", *words)
        return key

    def wait_idle(self, unit: str, on: Host, seconds: float = 60) -> None:
        """Until a unit is at rest."""
        until = time.monotonic() + seconds
        while self.root(["systemctl", "is-active", unit], on=on, check=False).strip() in ("active", "activating"):
            assert time.monotonic() < until, f"{unit} goes on and on"
            time.sleep(0.3)

    @contextmanager
    def heard(self, unit: str, on: Host) -> Iterator[list[dict[str, str]]]:
        """What alarms came while the block ran, filled in at its end, when the alarm of ``unit`` has had its time too."""
        self.root(f": > {SINK}", on=self.store)
        found: list[dict[str, str]] = []
        yield found
        self.wait_idle(f"{unit}.service", on)
        time.sleep(1)  # systemd starts the alarm after the unit's end
        self.wait_idle(f"slipway-alarm@{unit}.service", on)
        found += [json.loads(line) for line in self.root(["cat", SINK], on=self.store).splitlines()]

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Collect every command line and environment of both hosts while the block runs."""
        stop = threading.Event()

        def watch(host: Host) -> None:
            look = "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' ' '"
            while not stop.wait(1):
                self.seen.append(self.root(look, on=host, check=False))

        threads = [threading.Thread(target=watch, args=(host,)) for host in (self.world.host, self.drill)]
        for each in threads:
            each.start()
        try:
            yield
        finally:
            stop.set()
            for each in threads:
                each.join()

    def fab(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A fab command on this inventory."""
        from tests.integration.world import ROOT

        return subprocess.run(
            [str(ROOT / "bin/fab"), *words, "-i", str(self.inventory)], check=False, capture_output=True, text=True,
            stdin=subprocess.DEVNULL, timeout=120,
        )  # fmt: skip
