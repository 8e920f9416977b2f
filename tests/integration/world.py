# SPDX-License-Identifier: Apache-2.0
"""A lab with a host to converge, its inventory, and the few ways a test reaches into it.

Differences from a VPS, and only these: the host is a systemd container on this machine's kernel, the
certificate authority is pebble with a root of its own, and names resolve because a test says where they are.
"""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lab import cli, inventory
from lab.driver import Driver, get_driver
from lab.model import Host, HostSpec, Lab

ROOT = Path(__file__).resolve().parent.parent.parent
VENV = ROOT / ".venv" / "bin"
DOMAIN = "notes.lab.test"
ADMIN = "ops"
# Planted in the vault of the test inventory: tests look for them where they must never be.
PLANTED = {"database_password": "planted-db-7f3k9q2m", "secret_key": "planted-key-x81vw04z"}

Done = subprocess.CompletedProcess[str]


def quiet(_text: str) -> None:
    """The lab's progress is of no interest to a test."""


@dataclass
class World:
    """One lab as a test sees it. ``host`` is the machine under test, ``acme`` (may be None) the services host."""

    lab: Lab
    driver: Driver
    host: Host
    acme: Host | None
    settings: dict[str, Any] = field(default_factory=dict)
    groups: tuple[str, ...] = ()  # that the host is in besides those of rung 0

    @property
    def ip(self) -> str:
        """IPv4 address of the machine under test."""
        return self.host.ip

    @property
    def ca(self) -> Path:
        """Root certificate that browsers of this lab trust."""
        return self.lab.ca

    @property
    def domain(self) -> str:
        """Where the example application answers."""
        return DOMAIN

    @property
    def inventory(self) -> Path:
        """Folder to give to ``ansible-playbook -i``."""
        return self.lab.folder / "inventory"

    # -- the inventory ------------------------------------------------------------------------------------------

    def write_inventory(self, **changes: Any) -> Path:
        """Write the inventory with ``changes`` laid over the settings (top level), and return its folder."""
        settings = {**copy.deepcopy(self.settings), **changes}
        folder = self.inventory / "group_vars" / "all"
        folder.mkdir(parents=True, exist_ok=True)
        named = {name: [self.host.name] for name in (*inventory.RUNG0_GROUPS, *self.groups)}
        tree = inventory.as_yaml_tree(inventory.build(self.lab, [self.host], named))
        (self.inventory / "hosts.yml").write_text(yaml.safe_dump(tree))
        (folder / "main.yml").write_text(yaml.safe_dump(settings))
        return self.inventory

    # -- ways in ------------------------------------------------------------------------------------------------

    def playbook(
        self,
        name: str,
        *args: str,
        inventory_path: Path | None = None,
        timeout: float = 900,
        env: dict[str, str] | None = None,
    ) -> Done:
        """Run ``playbooks/<name>`` as a user would; never raises, the exit code and output are the test's to judge."""
        path = name if name.endswith(".yml") else f"{name}.yml"
        argv = [str(VENV / "ansible-playbook"), "-i", str(inventory_path or self.inventory), f"playbooks/{path}", *args]
        return subprocess.run(
            argv, cwd=ROOT, capture_output=True, text=True, check=False, timeout=timeout, stdin=subprocess.DEVNULL,
            env={**os.environ, "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1", **(env or {})},
        )  # fmt: skip

    def ssh(
        self, argv: Sequence[str] | str, *, user: str = ADMIN, host: Host | None = None, timeout: float = 60
    ) -> Done:
        """A command over real SSH as the admin user, or as ``user``; a list is quoted, a string goes as it is."""
        import shlex

        command = argv if isinstance(argv, str) else shlex.join(argv)
        return subprocess.run(
            ["ssh", "-F", str(self.lab.ssh_config), "-o", "BatchMode=yes", "-l", user, (host or self.host).name, command],
            capture_output=True, text=True, check=False, timeout=timeout, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def root(
        self, argv: Sequence[str] | str, *, host: Host | None = None, check: bool = True, timeout: float = 120
    ) -> str:
        """A command as root past sshd and firewall (from the machine that runs the lab); its stdout."""
        words = ["sh", "-c", argv] if isinstance(argv, str) else list(argv)
        done = self.driver.exec(host or self.host, words, check=False, timeout=timeout)
        if check and done.code != 0:
            raise AssertionError(f"{argv} ended with {done.code}: {done.stdout}{done.stderr}")
        return str(done.stdout)

    def curl(
        self, path: str = "/", *options: str, domain: str = DOMAIN, scheme: str = "https", timeout: float = 60
    ) -> Done:
        """curl from outside, as a browser would resolve and trust."""
        port = 443 if scheme == "https" else 80
        return subprocess.run(
            ["curl", "-sS", "--max-time", "30", "--cacert", str(self.ca), "--resolve", f"{domain}:{port}:{self.ip}",
             *options, f"{scheme}://{domain}{path}"],
            capture_output=True, text=True, check=False, timeout=timeout,
        )  # fmt: skip

    def fab(self, *words: str) -> Done:
        """A fab command on this inventory, without a terminal."""
        return subprocess.run(
            [str(ROOT / "bin/fab"), *words, "-i", str(self.inventory)], check=False, capture_output=True, text=True,
            stdin=subprocess.DEVNULL, cwd="/", timeout=120, env={**os.environ, "NO_COLOR": "1"},
        )  # fmt: skip

    def row(self, label: str) -> dict[str, str]:
        """The line of ``fab status`` that begins with ``label``."""
        hosts = json.loads(self.fab("status", "--json").stdout)["hosts"]
        return next(row for host in hosts for row in host["rows"] if row["label"] == label)

    def status(self, path: str = "/readyz") -> int:
        """HTTP status of the example application from outside; 0 when there was no answer."""
        done = self.curl(path, "-o", "/dev/null", "-w", "%{http_code}")
        return int(done.stdout or 0) if done.returncode == 0 else 0

    def wait_until_serving(self, seconds: float = 60) -> float:
        """Seconds until /readyz answers 200; raises AssertionError when it does not in time."""
        started = time.monotonic()
        status = 0
        while time.monotonic() - started < seconds:
            status = self.status()
            if status == 200:
                return time.monotonic() - started
            time.sleep(0.5)
        raise AssertionError(f"https://{self.domain}/readyz still answers {status} after {seconds} s")

    def sql(self, query: str, database: str = "notes") -> str:
        """A query as the superuser; tuples only, unaligned."""
        return self.root(["runuser", "-u", "postgres", "--", "psql", "-XAtq", "-d", database, "-c", query]).strip()

    def refresh(self) -> None:
        """Read the host's addresses again (after a restart)."""
        names = {host.name: host for host in self.driver.hosts(self.lab)}
        self.host = names[self.host.name]


def recap(done: Done) -> dict[str, int]:
    """The counts of the PLAY RECAP, summed over hosts: ok, changed, failed, unreachable ..."""
    totals: dict[str, int] = {}
    for line in done.stdout.partition("PLAY RECAP")[2].splitlines():
        for key, value in re.findall(r"(\w+)=(\d+)", line):
            totals[key] = totals.get(key, 0) + int(value)
    return totals


def example_settings(lab: Lab, acme: Host | None) -> dict[str, Any]:
    """What a user would have typed for the example application; without a services host it gets no certificate."""
    public_key = (lab.folder / "id_ed25519.pub").read_text().strip()
    settings: dict[str, Any] = {
        "slipway_environment": "lab",
        "slipway_admin_user": ADMIN,
        "slipway_admin_keys": [public_key],
        "slipway_admin_email": "ops@lab.test",
        "slipway_recovery_tier": "startup",
        "slipway_backup_recipients": [
            (lab.folder / f"{name}.age.pub").read_text().strip() for name in ("drill", "recovery")
        ],
        "vault_backup_identity": (lab.folder / "drill.age").read_text().strip(),
        "vault_apps": {"notes": dict(PLANTED)},
        "slipway_apps": [
            {
                "name": "notes",
                "domains": [DOMAIN],
                "image": {
                    "source": "ship",
                    "path": str(ROOT / "examples/notes"),
                    "build_args": {"BASE_IMAGE": python_image()},
                },
                "port": 8000,
                "database": True,
                "health": {"path": "/readyz", "timeout": 60, "successes": 2},
                "release_command": ["python", "-m", "notes.migrate"],
                "env": {"LOG_LEVEL": "info"},
                "secrets": {"SECRET_KEY": "{{ vault_apps.notes.secret_key }}"},
                "drain_seconds": 30,
                "watch_seconds": 0,
            }
        ],
    }
    if acme is not None:
        settings |= lab_certificates(lab, acme)
    return settings


def lab_certificates(lab: Lab, acme: Host) -> dict[str, Any]:
    """The settings that make Caddy ask the lab's certificate authority."""
    from lab import services

    return dict(services.inventory_settings(lab, acme))


def python_image() -> str:
    """The lab's image that the example application is built from; made when missing."""
    from lab import images

    return images.ensure("python", quiet)


def raise_lab(
    name: str, *, image: str = "bare", acme: bool = True, ram_mb: int = 2048, host: str = "web1",
    beside: Sequence[HostSpec] = (),
) -> World:  # fmt: skip
    """Make (or find) the lab ``name`` with one host of ``image``, with ``acme`` the services host, and ``beside`` others."""
    from lab import services

    lab, driver = Lab(name), get_driver()
    specs = [HostSpec(name=host, image=image, ram_mb=ram_mb, cores=2, aliases=(DOMAIN,)), *beside]
    if acme:
        specs.append(services.spec())
    made = {one.name: one for one in cli.up(driver, lab, specs, quiet)}
    if acme:
        services.name_hosts(driver, made[services.spec().name], {DOMAIN: made[host]})
    world = World(lab, driver, made[host], made.get(services.spec().name))
    world.settings = example_settings(lab, world.acme)
    world.write_inventory()
    return world


def remove_lab(world: World) -> None:
    """Remove every trace of the lab, unless SLIPWAY_KEEP is set."""
    if not os.environ.get("SLIPWAY_KEEP"):
        cli.down(world.driver, world.lab, quiet)


def docker_missing() -> str:
    """Why no lab can be had on this machine, or an empty string."""
    if not shutil.which("docker"):
        return "no Docker engine is installed (bin/setup installs one)"
    done = subprocess.run(
        ["docker", "info", "--format", "{{json .ServerVersion}}"], capture_output=True, text=True, check=False
    )
    if done.returncode != 0 or not json.loads(done.stdout or '""'):
        return "the Docker engine is not running (bin/setup starts it)"
    return ""
