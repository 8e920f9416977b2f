# SPDX-License-Identifier: Apache-2.0
"""A deploy, a rollback and a deploy that fails its gate, all under one load: what the test asserts and the benchmark reports."""

from __future__ import annotations

import copy
import json
import subprocess
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from .background import BackgroundLoad
from .model import Reconciliation, Report, SlowRequest, Socket, Switch, ledger_query, parse_ledger, reconcile
from .runner import Plan
from .target import Target

LEAST_SECONDS = 60.0
SETTLE_SECONDS = 5.0
GATE_SECONDS = 20
STALLED_MS = 20_000
"""A connection whose way back was lost waited 16 s (a TCP keep-alive) or 26 to 28 s (that and a retransmission). Two
cores that start an app beside 200 requests/s, with other work on them, let a queue of up to 15 s grow: that is not it."""

Done = subprocess.CompletedProcess[str]


class World(Protocol):
    """What the scenario needs of a lab (tests.integration.world.World has it)."""

    settings: dict[str, Any]

    @property
    def ip(self) -> str: ...

    @property
    def ca(self) -> Path: ...

    @property
    def domain(self) -> str: ...

    def write_inventory(self, **changes: Any) -> Path: ...

    def playbook(self, name: str, *args: str) -> Done: ...

    def curl(self, path: str) -> Done: ...

    def sql(self, query: str) -> str: ...


@dataclass(frozen=True)
class Phase:
    """One playbook run under load; epoch seconds. ``before`` and ``after`` are the releases that served."""

    name: str
    started: float
    ended: float
    code: int
    output: str
    before: str
    after: str


@dataclass
class Run:
    """All that was seen. ``found`` compares the client's ledger with the database."""

    drain_seconds: float
    report: Report
    found: Reconciliation
    phases: dict[str, Phase] = field(default_factory=dict)

    @property
    def switches(self) -> list[Switch]:
        """Changes of the serving release, as the client saw them."""
        return self.report.switches[1:]

    def slow_across(self, switch: Switch) -> list[SlowRequest]:
        """Slow requests that the old release had in hand at a switch (those that failed name no release)."""
        return [
            one
            for one in self.report.slow
            if one.started < switch.at < one.started + one.seconds and one.release != switch.release
        ]

    def sockets_across(self, switch: Switch) -> list[Socket]:
        """WebSockets to the release that a switch took out of service."""
        return [
            one
            for one in self.report.sockets
            if one.opened < switch.at < one.closed and one.release not in {switch.release, ""}
        ]

    def socket_seconds(self, switch: Switch) -> list[float]:
        """How long those WebSockets lived on after the switch."""
        return [one.closed - switch.at for one in self.sockets_across(switch)]


def deploys_under_load(world: World, plan: Plan | None = None, say: Callable[[str], None] = lambda _: None) -> Run:
    """Run the scenario on a converged host that serves the example application, and leave it serving what it did.

    The new releases differ from the old in their environment alone, which is a release like any other.
    """
    plan = plan or Plan(seconds=None, slow_every=4.0, websockets=2)
    target = Target(f"https://{world.domain}", world.ip, str(world.ca))
    phases: dict[str, Phase] = {}
    world.write_inventory()

    def phase(name: str, playbook: str, *arguments: str) -> None:
        say(f"{name} ...")
        before, started = _release(world), time.time()
        done = world.playbook(playbook, *arguments)
        ended = time.time()
        time.sleep(SETTLE_SECONDS)
        phases[name] = Phase(name, started, ended, done.returncode, done.stdout + done.stderr, before, _release(world))
        say(f"{name}: {ended - started:.1f} s, exit code {done.returncode}")

    try:
        with BackgroundLoad(target, plan) as load:
            begun = time.monotonic()
            time.sleep(SETTLE_SECONDS)
            world.write_inventory(slipway_apps=_changed(world, env={"ROUND": uuid.uuid4().hex[:8]}))
            phase("deploy", "deploy")
            world.write_inventory()
            phase("rollback", "rollback", "-e", "app=notes")
            gate = {"path": "/readyz", "timeout": GATE_SECONDS, "successes": 2}
            world.write_inventory(slipway_apps=_changed(world, env={"FAIL_READY": "1"}, health=gate))
            phase("failing deploy", "deploy")
            time.sleep(max(0.0, LEAST_SECONDS - (time.monotonic() - begun)))
            report = load.stop()
    finally:
        # The failing deploy's wish is still laid down on the host: the next test must not inherit it.
        world.write_inventory()
        restored = world.playbook("deploy")
    if restored.returncode != 0:
        raise RuntimeError(f"the host could not be put back: {(restored.stdout + restored.stderr)[-3000:]}")
    stored = parse_ledger(world.sql(ledger_query(report.ledger)))
    # The page should not show thousands of test notes to whoever looks next.
    world.sql(ledger_query(report.ledger).replace("SELECT id, deliveries FROM", "DELETE FROM", 1))
    drain = float(world.settings["slipway_apps"][0].get("drain_seconds", 30))
    return Run(drain, report, reconcile(report, stored), phases)


def _changed(world: World, env: dict[str, str], **more: Any) -> list[dict[str, Any]]:
    apps: list[dict[str, Any]] = copy.deepcopy(world.settings["slipway_apps"])
    apps[0]["env"] = {**apps[0].get("env", {}), **env}
    apps[0].update(more)
    return apps


def _release(world: World) -> str:
    """The release that answers now; empty when none does."""
    with suppress(ValueError, KeyError):
        return str(json.loads(world.curl("/healthz").stdout)["release"])
    return ""
