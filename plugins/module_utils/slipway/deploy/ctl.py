# SPDX-License-Identifier: Apache-2.0
"""Asking for a deploy, following it, and looking at an app: the side of the engine that modules and the command see."""

from __future__ import annotations

import os
import pwd
import shutil
import time
import uuid
from contextlib import suppress
from typing import Any

from .. import lock
from ..commands import run
from ..errors import SlipwayError
from ..journal import JOURNAL, append, stamp
from . import compose
from .colours import Clock, Colours, World
from .docker import Docker
from .jobs import Jobs
from .probe import Probe
from .releases import StateError, Store
from .spec import COLOURS, Spec
from .state import Kind, PhaseError, Record, Request, Serving, State
from .switch import Switch

SUPERSEDE_SECONDS = 60
KEEPER, KEEPER_SECONDS = "the keeper", 120
LOST_SECONDS = 20


def unit(app: str) -> str:
    """The systemd unit that runs the engine for an app."""
    return f"slipway-deploy@{app}.service"


def start_unit(app: str) -> None:
    """Start the engine; it goes on when this process or its connection ends."""
    done = run(["systemctl", "start", "--no-block", unit(app)], check=False)
    if not done.ok:
        raise PhaseError(
            f"The deploy of {app} cannot be started: {done.said}", "the agent on this host", "run site.yml first"
        )


def unit_active(app: str) -> bool:
    """Whether the engine's unit runs or is about to."""
    said = run(["systemctl", "is-active", unit(app)], check=False).stdout.strip()
    return said in ("active", "activating", "reloading", "deactivating")


def login() -> str:
    """Who is behind this process: the name before sudo, else the user's own."""
    return os.environ.get("SUDO_USER") or pwd.getpwuid(os.getuid()).pw_name


def unfinished(store: Store) -> bool:
    """Whether a crash left a deploy open, or a request that nobody took up."""
    state = store.load()
    return (state.deploy is not None and not state.deploy.over) or store.request_file.exists()


def ask(
    store: Store, kind: Kind, operator: str, *, release: str = "", revision: str = "", force: bool = False,
    watch: bool = True, run_release_command: bool = True, wish: str = "",
) -> tuple[str, str]:  # fmt: skip
    """Ask for a deploy or rollback and start the engine; the request's id, and who is joined (empty when it is ours).

    A running deploy of the same ``wish`` is joined. A watched window is ended early, because a mended release must not
    wait for it. Raises BusyError when another deploy is at work.
    """
    _, _, found = store.desired()
    busy = lock.holder(store.lock)
    deadline = time.monotonic() + KEEPER_SECONDS
    while busy is not None and busy.get("who") == KEEPER and time.monotonic() < deadline:
        time.sleep(0.2)
        busy = lock.holder(store.lock)
    if busy is not None:
        record = store.load().deploy
        if record is not None and not record.over:
            if kind == "deploy" and record.kind == "deploy" and record.spec_hash == (wish or found):
                return record.id, f"{record.operator}, running since {stamp(record.started)}"
            if record.phase is not None and record.phase.name == "watch" and record.phase.status == "running":
                _supersede(store)
                busy = lock.holder(store.lock)
        if busy is not None:
            raise lock.BusyError(store.app, busy)
    elif (waiting := store.request()) is not None and unit_active(store.app):
        note = {"who": waiting.operator, "what": f"a {waiting.kind}", "since": "this moment"}
        raise lock.BusyError(store.app, note)
    request = Request(
        uuid.uuid4().hex, kind, operator, release, revision, run_release_command, watch, force,
    )  # fmt: skip
    store.ask(request)
    start_unit(store.app)
    return request.id, ""


def _supersede(store: Store) -> None:
    """End a watched window early and wait until its engine is gone."""
    store.supersede_file.touch(mode=0o600)
    deadline = time.monotonic() + SUPERSEDE_SECONDS
    while lock.holder(store.lock) is not None and time.monotonic() < deadline:
        time.sleep(0.2)


def wait(store: Store, request: str, *, phase: str = "", phases: int = 0, seconds: float = 7200) -> Record | None:
    """The record of a request, once ``phase`` (or the given number of phases) has ended or the whole is over.

    None after ``seconds``. Raises PhaseError when the engine is gone and does not come back.
    """
    deadline, idle_since, starts = time.monotonic() + seconds, 0.0, 0
    while True:
        record = store.load().deploy
        if record is not None and record.id == request:
            ended = [item for item in record.phases if item.status != "running"]
            if record.over or (phase and any(item.name == phase for item in ended)) or 0 < phases <= len(ended):
                return record
        now = time.monotonic()
        if unit_active(store.app):
            idle_since = 0.0
        elif not idle_since:
            idle_since = now
        elif now - idle_since > LOST_SECONDS:
            raise _lost(store, request)
        elif now - idle_since > 1 and starts < 3:
            # The request came while the engine was on its way out, or it was killed: one more look by it.
            starts += 1
            start_unit(store.app)
        if now > deadline:
            return None
        time.sleep(0.2)


def keep(store: Store, world: World | None = None) -> str:
    """See that an app is as its state says: container there, nothing left unfinished. What was mended, or an empty string.

    Docker does not start again what was killed or stopped by its own commands. An app whose deploy is at work is left alone.
    """
    world = world or World()
    if lock.holder(store.lock) is not None:
        return ""
    if unfinished(store):
        start_unit(store.app)
        return f"{store.app}: a deploy was cut off, its engine is started again"
    note = {"who": KEEPER, "what": "a look", "since": stamp(time.time())}
    with suppress(lock.BusyError), lock.held(store.lock, store.app, note):
        try:
            runs = Colours(store, world).serving_runs()
        except SlipwayError as error:
            return f"{store.app}: a container of it does not run: {error}"
        if not runs:
            release = store.load().current
            append(
                world.journal, at=time.time(), who=KEEPER, what="start", app=store.app,
                release=release.release if release else None, result="succeeded",
            )  # fmt: skip
            return f"{store.app}: a container of it did not run and was started"
    return ""


def remove(store: Store, operator: str) -> None:
    """Take an app off this host: containers, route, images, releases, settings. Raises BusyError during a deploy."""
    docker, switch = Docker(), Switch()
    note = {"who": operator, "what": "its removal", "since": stamp(time.time())}
    with lock.held(store.lock, store.app, note):
        for colour in COLOURS:
            docker.remove(compose.container(store.app, colour))
            Jobs(store.app, docker, Clock()).clear(colour)
        docker.remove(compose.release_container(store.app))
        for tag in docker.tags(store.app):
            docker.untag(f"slipway/{store.app}:{tag}")
        with switch.guarded():
            (store.home / "state.json").unlink(missing_ok=True)
            switch.apply(store.routes())
        shutil.rmtree(store.wish, ignore_errors=True)
        shutil.rmtree(store.home, ignore_errors=True)
    append(JOURNAL, at=time.time(), who=operator, what="remove", app=store.app, result="succeeded")


def _lost(store: Store, request: str) -> PhaseError:
    record = store.load().deploy
    known = record is not None and record.id == request and record.phase is not None
    at = f" in phase {record.phase.name}" if known and record and record.phase else " before it began"
    return PhaseError(
        f"The deploy of {store.app} stopped{at} and its engine is gone",
        "", f"read 'journalctl -u {unit(store.app)} -n 50' on the host and deploy again",
    )  # fmt: skip


def failure(record: Record) -> PhaseError:
    """The error of a record that ended badly, with the container's last words."""
    error = record.error or {"found": f"The {record.kind} ended as {record.result}", "expected": "", "remedy": ""}
    still = ""
    if record.result == "failed" and record.from_release and record.from_release not in error["found"]:
        still = f" {record.from_release} still serves."
    words = "\n  ".join(record.log)
    found = error["found"].rstrip(".") + "." + still
    if words:
        found += f"\nLast lines of its log:\n  {words}\n"
    return PhaseError(found, error["expected"], error["remedy"])


def status(store: Store, docker: Docker | None = None, probe: Probe | None = None) -> dict[str, Any]:
    """What there is to know of an app, as plain data without secrets (docs/deploy.md names every key)."""
    docker, probe = docker or Docker(), probe or Probe()
    state = store.load()
    result: dict[str, Any] = {
        "app": store.app, "release": None, "colour": None, "since": None, "image": None, "reference": None,
        "health": "not deployed", "previous": state.previous, "restarts": 0, "memory_mb": None, "memory_limit_mb": None,
        "connections": None, "domains": [], "deploy": None, "held": state.held or None, "releases": _releases(store, state),
        "jobs": [],
    }  # fmt: skip
    if state.deploy is not None:
        result["deploy"] = _deploy(state.deploy)
    with suppress(SlipwayError):
        spec, _, wish = store.desired()
        result.update(domains=list(spec.domains), wish=wish)
    if state.current is None:
        return result
    result.update(release=state.current.release, colour=state.current.colour, since=stamp(state.current.since))
    with suppress(StateError):
        release = store.get(state.current.release)
        result.update(image=release.image, reference=release.reference, spec_hash=release.spec_hash)
    try:
        spec, _ = store.content(state.current.release)
        found = docker.inspect(compose.container(store.app, state.current.colour))
        result["jobs"] = _jobs(store.app, spec, state.current, docker)
    except SlipwayError as error:
        result["health"] = f"unknown: {error.found}"
        return result
    if found is None or not found.running:
        result["health"] = "not running"
        return result
    host = spec.domains[0] if spec.domains else ""
    answer = probe.get(spec.network.gateway, spec.stable_port, spec.health.path, host=host, timeout=3)
    result.update(
        health="healthy" if answer.good else f"unhealthy: {answer.said}", restarts=found.restarts,
        connections=probe.busy(found.pid, spec.port), memory_mb=_memory_mb(found.pid), memory_limit_mb=spec.memory_mb,
    )  # fmt: skip
    return result


def _jobs(app: str, spec: Spec, current: Serving, docker: Docker) -> list[dict[str, Any]]:
    """For each background job how many containers it should have, how many run, and how often they were started again."""
    if not spec.jobs:
        return []
    there = [one for one in docker.jobs(app) if one.colour == current.colour and one.state.release == current.release]
    return [
        {"name": job.name, "count": job.count, "memory_limit_mb": job.memory_mb,
         "running": sum(one.job == job.name and one.state.running for one in there),
         "restarts": sum(one.state.restarts for one in there if one.job == job.name)}
        for job in spec.jobs
    ]  # fmt: skip


def _releases(store: Store, state: State) -> list[dict[str, Any]]:
    serving = state.current.release if state.current else ""
    return [
        {"id": item.id, "image": item.reference, "image_id": item.image, "created": stamp(item.created), "good": item.good,
         "operator": item.operator, "revision": item.revision, "serving": item.id == serving}
        for item in store.all()
    ]  # fmt: skip


def _deploy(record: Record) -> dict[str, Any]:
    return {
        "id": record.id, "kind": record.kind, "operator": record.operator, "release": record.release,
        "started": stamp(record.started), "ended": stamp(record.ended) if record.ended else None, "result": record.result,
        "phase": record.phase.name if record.phase else None, "error": record.error["found"] if record.error else None,
        "watch_until": stamp(record.watch_until) if record.watch_until else None, "watched": record.watched or None,
    }  # fmt: skip


def _memory_mb(pid: int) -> int | None:
    """Memory of the container that ``pid`` is in, in MB, from its control group (either version)."""
    with suppress(OSError, ValueError), open(f"/proc/{pid}/cgroup", encoding="ascii") as stream:
        for entry in stream:
            _, controllers, path = entry.strip().split(":", 2)
            if controllers == "memory":
                name = f"/sys/fs/cgroup/memory{path}/memory.usage_in_bytes"
            elif not controllers:
                name = f"/sys/fs/cgroup{path}/memory.current"
            else:
                continue
            with suppress(OSError, ValueError), open(name, encoding="ascii") as usage:
                return int(usage.read()) // (1 << 20)
    return None


def line(found: dict[str, Any]) -> str:
    """An app's status on one line."""
    if not found["release"]:
        return f"{found['app']}: not deployed"
    text = f"{found['app']}: {found['release']} in {found['colour']} since {found['since']}, {found['health']}"
    if found["jobs"]:
        text += "; jobs: " + ", ".join(f"{job['running']} of {job['count']} {job['name']}" for job in found["jobs"])
    deploy = found["deploy"]
    if deploy and not deploy["result"]:
        text += f"; {deploy['kind']} of {deploy['release']} by {deploy['operator']} in phase {deploy['phase']}"
    return text
