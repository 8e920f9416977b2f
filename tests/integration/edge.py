# SPDX-License-Identifier: Apache-2.0
"""A host with Docker and Caddy alone, shared by the tests of both roles; a small program plays the application."""

from __future__ import annotations

import json
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import services
from tests.integration.world import ROOT, VENV, Done, World

HERE = Path(__file__).parent
DOMAIN = "edge.lab.test"
WWW = "www.edge.lab.test"
PORT = 18000
ALLOWED = "https://app.example.com"
SITE: dict[str, Any] = {
    "name": "edge",
    "domains": [DOMAIN],
    "redirects": [WWW],
    "upstream_port": PORT,
    "try_seconds": 8,
    "body_limit": "1MB",
    "csp": "default-src 'self'",
    "headers": {"X-Extra": 'say "hi"'},
    "cors_origins": [ALLOWED, "https://b.example.com"],
    "cors_credentials": True,
}


@dataclass
class Edge:
    """The host and the roles' settings."""

    world: World

    def converge(self, *args: str, site: dict[str, Any] | None = None, **changes: Any) -> Done:
        """Run both roles; ``site`` is laid over the site's settings, ``changes`` over the roles' variables."""
        acme = services.inventory_settings(self.world.lab, self.world.acme) if self.world.acme else {}
        wished = {
            "caddy_email": "ops@lab.test",
            "caddy_acme_ca": acme.get("slipway_acme_ca", ""),
            "caddy_acme_ca_root": self.world.ca.read_text(),
            "caddy_sites": [{**SITE, **(site or {})}],
            **changes,
        }
        extra = self.world.lab.folder / "extra.json"
        extra.write_text(json.dumps(wished))
        return subprocess.run(
            [str(VENV / "ansible-playbook"), "-i", str(self.world.inventory / "hosts.yml"), str(HERE / "edge.yml"),
             "-e", f"@{extra}", *args],
            cwd=ROOT, capture_output=True, text=True, check=False, timeout=600, stdin=subprocess.DEVNULL,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"},
        )  # fmt: skip

    def ok(self, *args: str, **changes: Any) -> Done:
        """The same, and it must succeed."""
        done = self.converge(*args, **changes)
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
        return done

    def start_app(self) -> None:
        """Start the application on the host, where it does not run."""
        unit = ["systemd-run", "--quiet", "--collect", "--unit=edge-app", "python3", "/root/edge_app.py", str(PORT)]
        if self.world.root("systemctl is-active edge-app.service", check=False).strip() != "active":
            self.world.driver.put_file(self.world.host, "/root/edge_app.py", (HERE / "edge_app.py").read_bytes())
            self.world.root(unit)
            self.world.root(f"for i in $(seq 50); do ss -Hltn | grep -q :{PORT} && exit 0; sleep 0.1; done; exit 1")

    def stop_app(self) -> None:
        """Stop it."""
        self.world.root("systemctl stop edge-app.service", check=False)  # it may not run

    def inside(self, *options: str, path: str = "/", domain: str = DOMAIN) -> str:
        """Debian 13's curl (which speaks HTTP/3) on the host itself; its stdout."""
        resolve = ["--resolve", f"{domain}:443:127.0.0.1"]
        return self.world.root(
            ["curl", "-sk", "--max-time", "20", *resolve, *options, f"https://{domain}{path}"], check=False
        )

    def head(self, *options: str, path: str = "/", domain: str = DOMAIN, scheme: str = "https") -> dict[str, str]:
        """Status (key ``status``) and headers (in lower case) of an answer, asked from outside; repeats joined by a comma."""
        done = self.world.curl(path, "-D", "-", "-o", "/dev/null", *options, domain=domain, scheme=scheme)
        assert done.returncode == 0, done.stderr
        first, *lines = done.stdout.strip().splitlines()
        found = {"status": first.split()[1]}
        for line in lines:
            name, _, value = line.partition(":")
            key = name.strip().lower()
            found[key] = f"{found[key]}, {value.strip()}" if key in found else value.strip()
        return found

    def started(self) -> dict[str, str]:
        """When the proxy was started and last reloaded, as systemd says."""
        text = self.world.root("systemctl show -p MainPID -p ExecReload -p NRestarts caddy.service")
        return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)

    def wait_for_docker(self, seconds: float = 30) -> None:
        """Until the engine answers."""
        limit = time.monotonic() + seconds
        while not self.world.root("docker version --format '{{.Server.Version}}'", check=False).strip():
            assert time.monotonic() < limit, "Docker does not answer"
            time.sleep(0.5)
