# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: ARG002 - fakes take what the real ones take
"""A host for the deploy engine's tests: everything outside the engine, in memory, with a fuse that kills it at any step."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slipway.commands import CommandError
from slipway.deploy import colours, compose, releases
from slipway.deploy import spec as appspec
from slipway.deploy.colours import World
from slipway.deploy.engine import Engine
from slipway.deploy.probe import Answer
from slipway.deploy.releases import Store
from slipway.deploy.state import Request
from slipway.deploy.switch import Route

from tests.unit.deploy_docker import FakeDocker, Fuse, Killed

IMAGE = {"source": "registry", "reference": "registry.example.com/notes:1"}


__all__ = ["FakeClock", "FakeDocker", "FakeHost", "FakeProbe", "FakeSwitch", "Fuse", "Killed", "serving", "watched"]
_WRITE = releases.write


@dataclass
class FakeSwitch:
    """The map, replaced as a whole."""

    fuse: Fuse
    routes: list[Route] = field(default_factory=list)
    refuse: bool = False
    history: list[list[Route]] = field(default_factory=list)

    def apply(self, routes: Iterable[Route]) -> None:
        wanted = list(routes)
        if self.refuse:
            self.refuse = False
            raise CommandError("nft: syntax error")
        self.fuse.step()
        self.routes = wanted
        self.history.append(wanted)
        self.fuse.step()

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        yield


@dataclass
class FakeProbe:
    """HTTP and connection tables, from the fake engine's containers."""

    docker: FakeDocker
    switch: FakeSwitch
    sick: set[str] = field(default_factory=set)
    open: dict[int, int] = field(default_factory=dict)

    def get(self, address: str, port: int, path: str, *, host: str, timeout: float) -> Answer:
        for one in self.docker.containers.values():
            if one.address == address and one.running:
                if any(one.release.endswith(tag) for tag in self.sick):
                    return Answer(503, "status 503 (database is away)")
                return Answer(200, "status 200", 1)
        return Answer(0, "connection refused on port 8000")

    def owner(self, address: str, port: int, pids: dict[str, tuple[int, int]], *, timeout: float) -> str:
        for route in self.switch.routes:
            if (route.gateway, route.stable_port) == (address, port):
                for name, one in self.docker.containers.items():
                    if one.address == route.address and one.running and name in pids:
                        return name
        return ""

    def busy(self, pid: int, port: int) -> int:
        left = self.open.get(pid, 0)
        if left:
            self.open[pid] = left - 1
        return left


@dataclass
class FakeClock:
    """Time passes only when somebody sleeps."""

    time: float = 1_800_000_000.0
    tick: Callable[[float], None] = lambda _now: None

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += max(seconds, 0.01)
        self.tick(self.time)


class FakeHost:
    """A host with app ``notes``; :meth:`want` is what Ansible does, :meth:`engine` what systemd does."""

    def __init__(self, root: Path, monkeypatch: Any) -> None:
        self.root = root
        self.fuse = Fuse()
        self.docker = FakeDocker(self.fuse)
        self.switch = FakeSwitch(self.fuse)
        self.probe = FakeProbe(self.docker, self.switch)
        self.clock = FakeClock()
        self.journal = root / "journal.jsonl"
        self.access_log = root / "access.log"
        self.store = Store("notes", root / "wishes", root / "states")
        self.said: list[str] = []
        self.requests = 0
        self.plant(monkeypatch)

    def plant(self, monkeypatch: Any) -> None:
        """Have this host's fuse in what the engine writes."""
        plain = _WRITE

        def write(path: Path, text: str, mode: int = 0o600) -> None:
            self.fuse.step()
            plain(path, text, mode)
            self.fuse.step()

        monkeypatch.setattr(os, "fsync", lambda _descriptor: None)  # thousands of them, and no power cut here
        monkeypatch.setattr(releases, "write", write)
        monkeypatch.setattr(colours, "write", write)

    def copies(self) -> Callable[[Any], FakeHost]:
        """A maker of hosts that stand where this one stands now, files included; each undoes what came after."""
        files = {path: path.read_bytes() for path in self.root.rglob("*") if path.is_file()}
        standing = copy.deepcopy(self)

        def make(monkeypatch: Any) -> FakeHost:
            shutil.rmtree(self.root)
            for path, content in files.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            host = copy.deepcopy(standing)
            host.plant(monkeypatch)
            return host

        return make

    def want(self, tag: str = "1", **changes: Any) -> None:
        """Lay down a wish: image ``tag``, and any other key of a spec; ``env`` is the environment."""
        env = changes.pop("env", {"SECRET_KEY": "planted-secret", "DATABASE_URL": "postgresql://now"})
        reference = f"registry.example.com/notes:{tag}"
        self.docker.remote.setdefault(reference, f"sha256:{tag}")
        raw = {"name": "notes", "image": {"source": "registry", "reference": reference, "label": tag}, **changes}
        raw.setdefault("watch", {"seconds": 0, "access_log": str(self.access_log)})
        self.store.wish.mkdir(parents=True, exist_ok=True)
        (self.store.wish / "app.json").write_text(appspec.parse(raw).to_json())
        (self.store.wish / "app.env").write_text(appspec.environment_text(env))

    def ask(self, kind: Any = "deploy", **more: Any) -> None:
        """Lay a request down."""
        self.requests += 1
        self.store.ask(Request(f"request-{self.requests}", kind, "alice", **more))

    def engine(self) -> Engine:
        """A new process."""
        world: Any = World(self.docker, self.switch, self.probe, self.clock, self.journal)  # type: ignore[arg-type]
        return Engine(self.store, world, self.said.append)

    def deploy(self, tag: str = "1", **changes: Any) -> Any:
        """Want, ask and run; the record."""
        more = {key: changes.pop(key) for key in ("force", "watch_it") if key in changes}
        self.want(tag, **changes)
        self.clock.time += 60
        self.ask(force=more.get("force", False))
        return self.engine().run()

    def rollback(self, **more: Any) -> Any:
        """Ask for a rollback and run; the record."""
        self.clock.time += 60
        self.ask("rollback", **more)
        return self.engine().run()

    def check(self) -> None:
        """What must hold whenever the engine is at rest: one colour serves, and state, switch and containers agree."""
        state = self.store.load()
        assert state.deploy is not None
        assert state.deploy.over
        assert self.store.request() is None
        if state.current is None:
            assert self.docker.containers == {}
            assert self.switch.routes == []
            return
        name = f"slipway_notes_{state.current.colour}"
        assert self.docker.serving() == [name]
        spec, _ = self.store.content(state.current.release)
        jobs = sorted(compose.job_containers(spec, state.current.colour))
        assert sorted(self.docker.containers) == sorted([name, *jobs])
        assert self.docker.working() == ({state.current.release: jobs} if jobs else {})
        assert all(one.kept for one in self.docker.containers.values()), "Docker would not start it again"
        assert self.docker.containers[name].release == state.current.release
        assert [route.address for route in self.switch.routes] == [self.docker.containers[name].address]
        kept = self.store.get(state.current.release)
        assert self.docker.images[f"slipway/notes:{kept.id}"] == kept.image
        for release in self.store.all():
            assert f"slipway/notes:{release.id}" in self.docker.images


def serving(host: FakeHost) -> str:
    """The tag of what serves."""
    current = host.store.load().current
    return current.release.rsplit("-", 1)[1] if current else ""


def watched(host: FakeHost, status: int, seconds: float = 0.01, per_tick: int = 30) -> None:
    """From now on the proxy logs ``per_tick`` answers each time the clock moves: good ones, in a watched window ``status``."""

    def tick(now: float) -> None:
        watching = (state := host.store.load()).deploy is not None and state.deploy.find("watch") is not None
        answer = {"status": status, "duration": seconds} if watching else {"status": 200, "duration": 0.01}
        line = json.dumps({"ts": now, **answer})
        with host.access_log.open("a") as log:
            log.write((line + "\n") * per_tick)

    host.clock.tick = tick
