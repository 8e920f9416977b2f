# SPDX-License-Identifier: Apache-2.0
"""A host with PostgreSQL and PgBouncer alone, shared by the tests of both roles."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from tests.integration.world import ROOT, VENV, Done, World

PLAYBOOK = Path(__file__).parent / "database.yml"
PASSWORDS = {"notes": "planted-db-4kq82nvx", "blog": "planted-db-w6t0c3zr"}


def databases(**passwords: str) -> list[dict[str, Any]]:
    """What the apps ask for."""
    chosen = {**PASSWORDS, **passwords}
    return [
        {
            "name": "notes",
            "password": chosen["notes"],
            "extensions": ["citext"],
            "pool_size": 3,
            "session_pool_size": 4,
        },
        {"name": "blog", "password": chosen["blog"], "pool_size": 3, "session_pool_size": 2},
    ]


@dataclass
class Database:
    """The host, a tunnel to its pooler, which roles to run, and their settings."""

    world: World
    pooler_port: int = 0
    roles: str = "postgres,pgbouncer"
    settings: dict[str, Any] = field(default_factory=dict)

    def converge(self, *args: str, **changes: Any) -> Done:
        """Run the roles with ``changes`` laid over the settings; the vault's part goes by file, as it does for users."""
        wished = {"postgres_databases": databases(), **self.settings, **changes}
        wished.setdefault("pgbouncer_databases", wished["postgres_databases"])
        extra = self.world.lab.folder / "extra.json"
        extra.write_text(json.dumps(wished))
        return subprocess.run(
            [str(VENV / "ansible-playbook"), "-i", str(self.world.inventory / "hosts.yml"), str(PLAYBOOK), "-e", f"@{extra}", "--tags", f"always,{self.roles}", *args],
            cwd=ROOT, capture_output=True, text=True, check=False, timeout=600, stdin=subprocess.DEVNULL,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"},
        )  # fmt: skip

    def ok(self, *args: str, **changes: Any) -> str:
        """The same, and it must succeed; what it said."""
        done = self.converge(*args, **changes)
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
        return done.stdout + done.stderr

    def pooled(self, database: str = "notes", *, user: str = "", password: str = "", **options: Any) -> Any:
        """A connection through PgBouncer, from the app's side."""
        user = user or database.removesuffix("_session")
        return psycopg.connect(
            host="127.0.0.1", port=self.pooler_port, dbname=database, user=user, password=password or PASSWORDS.get(user, ""),
            connect_timeout=15, **{"autocommit": True, **options},
        )  # fmt: skip

    def psql_as(self, user: str, database: str, query: str) -> Done:
        """A query as an app's role straight to PostgreSQL on the host; the password by environment."""
        command = f"PGPASSWORD='{PASSWORDS[user]}' psql -X -At -v ON_ERROR_STOP=1 -h 127.0.0.1 -U {user} -d {database} -c \"{query}\""
        done = self.world.driver.exec(self.world.host, ["sh", "-c", command], check=False, timeout=60)
        return subprocess.CompletedProcess(command, done.code, done.stdout, done.stderr)

    def postmaster(self) -> str:
        """When the server was started: another value after a restart."""
        return self.world.sql("SELECT pg_postmaster_start_time()", "postgres")

    def unit(self, name: str, key: str) -> str:
        """One property of a systemd unit."""
        return self.world.root(["systemctl", "show", "--value", f"--property={key}", name]).strip()


def free_port() -> int:
    """A TCP port of this machine that nobody uses."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def tunnel(world: World, port: int) -> Iterator[int]:
    """A local port that leads to ``port`` on the host's loopback, by SSH."""
    local = free_port()
    argv = ["ssh", "-F", str(world.lab.ssh_config), "-o", "BatchMode=yes", "-o", "ExitOnForwardFailure=yes", "-N"]
    argv += ["-l", "root", "-L", f"127.0.0.1:{local}:127.0.0.1:{port}", world.host.name]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL) as process:
        try:
            until = time.monotonic() + 15
            while True:
                try:
                    socket.create_connection(("127.0.0.1", local), timeout=1).close()
                    break
                except OSError:
                    assert time.monotonic() < until, "the tunnel did not come up"
                    time.sleep(0.1)
            yield local
        finally:
            process.terminate()
