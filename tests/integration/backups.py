# SPDX-License-Identifier: Apache-2.0
"""A host with PostgreSQL, backups and drills, shared by the tests of both."""

from __future__ import annotations

import json
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.integration.world import ROOT, VENV, Done, World

PLAYBOOK = Path(__file__).parent / "backups.yml"
# Planted in the vault: tests look for it where it must never be.
PASSWORD = "planted-backup-x7q2m9kd"
APP = {
    "name": "notes",
    "domains": ["notes.lab.test"],
    "image": {"source": "registry", "name": "registry.lab.test/notes", "tag": "1"},
}


@dataclass
class Backups:
    """The host, and the few ways a test reaches into it."""

    world: World

    def converge(self, *args: str, **changes: Any) -> Done:
        """Run the roles with ``changes`` laid over the settings."""
        vault = {"notes": {"database_password": PASSWORD}}
        # Nobody has made the admin here, and sshd shuts out who asks for an unknown user again and again.
        self.world.write_inventory(slipway_apps=[APP], vault_apps=vault, slipway_admin_user="root", **changes)
        return subprocess.run(
            [str(VENV / "ansible-playbook"), "-i", str(self.world.inventory), str(PLAYBOOK), *args],
            cwd=ROOT, capture_output=True, text=True, check=False, timeout=600, stdin=subprocess.DEVNULL,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"},
        )  # fmt: skip

    def ok(self, *args: str, **changes: Any) -> Done:
        """The same, and it must not fail."""
        done = self.converge(*args, **changes)
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        return done

    def slipway(self, *words: str, check: bool = True) -> str:
        """The command on the host, as root."""
        return self.world.root(["slipway", *words], check=check, timeout=600)

    def data(self, *words: str) -> Any:
        """What the command says with --json."""
        return json.loads(self.slipway(*words, "--json"))

    def unit(self, name: str, *keys: str) -> dict[str, str]:
        """Properties of a systemd unit."""
        text = self.world.root(["systemctl", "show", f"--property={','.join(keys)}", name])
        return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)

    def sql(self, query: str, database: str = "notes") -> str:
        """A query as the superuser."""
        return self.world.sql(query, database)

    def wait_idle(self, unit: str, seconds: float = 120) -> str:
        """How the unit's last run ended; raises where it goes on."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            found = self.unit(unit, "ActiveState", "Result")
            if found["ActiveState"] in ("inactive", "failed"):
                return found["Result"]
            time.sleep(0.5)
        raise AssertionError(f"{unit} did not end within {seconds} s")
