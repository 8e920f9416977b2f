# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: ARG002 - fakes take what the real ones take
"""A Docker engine in memory for the deploy engine's tests, with a fuse that kills at any step."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slipway.commands import CommandError, Outcome
from slipway.deploy.docker import JobContainer, Running


class Killed(BaseException):
    """SIGKILL, a power cut: nothing runs any more, no handler either."""


@dataclass
class Fuse:
    """Counts steps and kills at one of them; what is dead stays dead until :meth:`renew`."""

    at: int | None = None
    steps: int = 0
    dead: bool = False

    def step(self) -> None:
        """One step further, or the end."""
        if self.dead:
            raise Killed
        self.steps += 1
        if self.steps == self.at:
            self.dead = True
            raise Killed

    def renew(self) -> None:
        """The machine is back, and nothing kills it any more."""
        self.at, self.dead = None, False


@dataclass
class Container:
    """One container: the labels and address of its Compose file."""

    release: str
    address: str
    image: str
    pid: int
    running: bool = True
    restarts: int = 0
    exit_code: int = 0
    kept: bool = False
    job: str = ""
    colour: str = ""
    drain: int = 10


@dataclass
class FakeDocker:
    """An engine in memory. ``sick`` holds releases' tags that never get healthy, ``dying`` those whose container stops,
    ``idle`` those whose background containers do; ``stubborn`` jobs that do not end in time, ``told`` what was told to stop, in order."""

    fuse: Fuse
    images: dict[str, str] = field(default_factory=dict)
    remote: dict[str, str] = field(default_factory=dict)
    containers: dict[str, Container] = field(default_factory=dict)
    release_code: int = 0
    dying: set[str] = field(default_factory=set)
    idle: set[str] = field(default_factory=set)
    stubborn: set[str] = field(default_factory=set)
    told: list[list[str]] = field(default_factory=list)
    ran: list[str] = field(default_factory=list)
    pids: int = 100

    @contextlib.contextmanager
    def _effect(self) -> Iterator[None]:
        """Killed before it, or after it."""
        self.fuse.step()
        yield
        self.fuse.step()

    def image_id(self, reference: str) -> str | None:
        return self.images.get(reference)

    def digest(self, reference: str) -> str:
        return ""

    def pull(self, reference: str) -> None:
        if reference not in self.remote:
            raise CommandError(f"docker pull: manifest for {reference} not found")
        with self._effect():
            self.images[reference] = self.remote[reference]

    def load(self, archive: Path) -> None:
        with self._effect():
            self.images[archive.read_text()] = f"sha256:{archive.read_text()}"

    def build(self, context: Path, reference: str, dockerfile: str, args: dict[str, str], target: str) -> None:
        with self._effect():
            self.images[reference] = f"sha256:{context.read_text()}"

    def tag(self, image: str, reference: str) -> None:
        with self._effect():
            self.images[reference] = image

    def untag(self, reference: str) -> None:
        with self._effect():
            self.images.pop(reference, None)

    def tags(self, app: str) -> dict[str, str]:
        prefix = f"slipway/{app}:"
        return {name.removeprefix(prefix): one for name, one in self.images.items() if name.startswith(prefix)}

    def network(self, name: str) -> str | None:
        return "10.213.87.0/24"

    def up(self, project: str, file: Path, services: Iterable[str] = ("web",)) -> None:
        known = json.loads(file.read_text())["services"]
        for service in services:
            self._up(known[service])

    def _up(self, service: dict[str, Any]) -> None:
        name, address = service["container_name"], service["networks"]["apps"].get("ipv4_address", "")
        if service["image"] not in self.images:
            raise CommandError(f"No such image: {service['image']}")
        if address and any(other != name and one.address == address for other, one in self.containers.items()):
            raise CommandError("Address already in use")
        with self._effect():
            self.pids += 1
            labels = service["labels"]
            release, job = labels["slipway.release"], labels.get("slipway.job", "")
            container = Container(release, address, self.images[service["image"]], self.pids, job=job)
            container.colour = labels["slipway.colour"]
            container.drain = int(service["stop_grace_period"].removesuffix("s"))
            if any(release.endswith(one) for one in (self.idle if job else self.dying)):
                container.running, container.exit_code = False, 3
            self.containers[name] = container

    def jobs(self, app: str) -> list[JobContainer]:
        self.fuse.step()
        return [
            JobContainer(name, one.job, one.colour, self._state(one), one.drain)
            for name, one in sorted(self.containers.items())
            if one.job
        ]

    def stop_jobs(self, names: list[str], longest_seconds: float) -> None:
        with self._effect():
            self.told.append(names)
            assert longest_seconds == max(self.containers[name].drain for name in names)
            for name in names:
                one = self.containers[name]
                one.running, one.exit_code = False, 137 if one.job in self.stubborn else 0

    def keep(self, container: str) -> None:
        with self._effect():
            self.containers[container].kept = True

    def run_release(self, project: str, file: Path, container: str, timeout: float) -> Outcome:
        with self._effect():
            self.ran.append(container)
            return Outcome(("migrate",), self.release_code, "migrating with planted-secret", "")

    def stop(self, container: str, grace_seconds: int) -> None:
        with self._effect():
            if container in self.containers:
                self.containers[container].running = False

    def remove(self, container: str) -> None:
        with self._effect():
            self.containers.pop(container, None)

    def inspect(self, container: str) -> Running | None:
        self.fuse.step()
        one = self.containers.get(container)
        return one and self._state(one)

    def _state(self, one: Container) -> Running:
        return Running(
            one.running,
            one.pid if one.running else 0,
            one.exit_code,
            one.restarts,
            one.image,
            one.release,
            kept=one.kept,
        )

    def logs(self, container: str, lines: int) -> list[str]:
        return ["no configuration", "the key is planted-secret"] if container in self.containers else []

    def serving(self) -> list[str]:
        """Names of the web containers that run."""
        return sorted(name for name, one in self.containers.items() if one.running and not one.job)

    def working(self) -> dict[str, list[str]]:
        """The background containers that run, by the release that they are of."""
        found: dict[str, list[str]] = {}
        for name, one in sorted(self.containers.items()):
            if one.job and one.running:
                found.setdefault(one.release, []).append(name)
        return found
