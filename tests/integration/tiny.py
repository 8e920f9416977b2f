# SPDX-License-Identifier: Apache-2.0
"""The tiny app on a lab host: its inventory, its deploys, and what it says of itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from typing import Any

from tests.integration.world import ROOT, VENV, Done, World, python_image

TINY = ROOT / "tests/fixtures/tinyapp"
# A release command that takes until it is told: `docker kill --signal=TERM slipway_tiny_release`.
PATIENT = ["sh", "-c", "trap 'exit 0' TERM; sleep 300 & wait"]
SECRET = "planted-tiny-4h2k8s0d"
PLACE = "http://10.213.87.1:18000"


class Tiny:
    """A host for the tiny app, its inventory, and what it serves."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.app: dict[str, Any] = {}
        self.known = ""
        self.reset()

    def reset(self) -> None:
        """The app as it is before a test changes something."""
        self.app = {
            "name": "tiny",
            "domains": ["tiny.lab.test"],
            "image": {"source": "build", "path": str(TINY), "build_args": {"BASE_IMAGE": "slipway-lab/base:1"}},
            "database": False,
            "memory_mb": 128,
            "health": {"path": "/healthz", "timeout": 20, "successes": 2},
            "env": {"GREETING": "hello $HOME 'quoted'"},
            "secrets": {"SECRET_KEY": SECRET},
            "drain_seconds": 5,
            "watch_seconds": 0,
        }

    def remember(self) -> None:
        """What serves now is the app as :meth:`reset` says."""
        self.known = self.status()["spec_hash"]

    def serves_as_reset(self) -> bool:
        """Whether what serves is the app as it was remembered, healthy, with nothing in hand, and what is asked for."""
        now = self.status() if self.known else {}
        return (
            bool(now)
            and now["spec_hash"] == now["wish"] == self.known
            and now["health"] == "healthy"
            and bool(now["deploy"]["result"])
            and len(self.containers()) == 1
        )

    def write(self, **changes: Any) -> None:
        """Write the inventory with the app as it shall be; ``env`` is laid over."""
        env = {**self.app["env"], **changes.pop("env", {})}
        self.world.settings["slipway_apps"] = [{**self.app, **changes, "env": env}]
        self.world.write_inventory()

    def deploy(self, *args: str, operator: str = "alice", **changes: Any) -> Done:
        """deploy.yml with the app changed so."""
        self.write(**changes)
        return self.world.playbook("deploy", "-e", f"app_operator={operator}", *args)

    def ok(self, *args: str, **changes: Any) -> Done:
        """The same, and it must succeed."""
        done = self.deploy(*args, **changes)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
        return done

    def who(self) -> dict[str, str]:
        """What serves now says who it is."""
        answer: dict[str, str] = json.loads(self.world.root(["curl", "-sSm", "5", f"{PLACE}/who"]))
        return answer

    def status(self) -> dict[str, Any]:
        """What ``slipway app status --json`` says of the app."""
        found: dict[str, Any] = json.loads(self.world.root(["slipway", "app", "status", "tiny", "--json"]))["apps"][0]
        return found

    def containers(self) -> list[str]:
        """The app's containers that run."""
        return self.world.root("docker ps --format '{{.Names}}' --filter label=slipway.app=tiny").split()

    def wait_for(self, phase: str, seconds: float = 120) -> None:
        """Wait until a deploy is in ``phase``."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            deploy = self.status()["deploy"]
            if deploy and not deploy["result"] and deploy["phase"] == phase:
                return
            time.sleep(0.1)
        raise AssertionError(f"no deploy came to phase {phase}: {self.status()['deploy']}")

    def wait_until_over(self, seconds: float = 180) -> dict[str, Any]:
        """Wait until nothing is in hand; the last deploy."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            deploy: dict[str, Any] = self.status()["deploy"]
            if deploy["result"]:
                return deploy
            time.sleep(0.3)
        raise AssertionError(f"the deploy does not end: {self.status()['deploy']}")


def flat(text: str) -> str:
    """``text`` with its lines joined: Ansible folds long messages."""
    return " ".join(text.split())


def message(done: Done) -> str:
    """What a failed playbook told its user; asserts that it failed, and without a traceback."""
    text = flat(done.stdout + done.stderr)
    assert done.returncode != 0, text[-3000:]
    assert "Traceback" not in text
    return text


def send_base(world: World) -> None:
    """Give the host the image that the tiny app is built from, as slipway-lab/base:1."""
    image = python_image()
    subprocess.run(["docker", "image", "tag", image, "slipway-lab/base:1"], check=True)
    with (
        subprocess.Popen(["docker", "image", "save", "slipway-lab/base:1"], stdout=subprocess.PIPE) as save,
        subprocess.Popen(
            ["docker", "exec", "-i", world.host.id, "docker", "load"], stdin=save.stdout, stdout=subprocess.DEVNULL
        ),
    ):
        pass


class playing:
    """deploy.yml in the background, as a user's process that can be killed."""

    def __init__(self, tiny: Tiny) -> None:
        argv = [
            str(VENV / "ansible-playbook"),
            "-i",
            str(tiny.world.inventory),
            "playbooks/deploy.yml",
            "-e",
            "app_operator=alice",
        ]
        self.process = subprocess.Popen(
            argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, stdin=subprocess.DEVNULL,
            start_new_session=True, env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
        )  # fmt: skip

    def __enter__(self) -> subprocess.Popen[str]:
        return self.process

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
