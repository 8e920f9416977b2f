# SPDX-License-Identifier: Apache-2.0
"""The steps of a blue-green change, each a phase that is written down before it begins and after it ends."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import SlipwayError
from ..journal import JOURNAL
from . import compose
from .docker import Docker
from .jobs import JobError, Jobs
from .probe import Probe
from .releases import KEEP, Store, write
from .spec import Colour, Spec, other
from .state import Phase, PhaseError, Record, Serving, State
from .switch import FORGOTTEN_SECONDS, Switch

LOG_LINES = 15
SETTLED_SECONDS = 1.0
"""A connection that the proxy was opening at the moment of the switch shows up within this time."""
VERIFY_SECONDS = 5.0


class Interrupted(BaseException):
    """The engine was told to stop (SIGTERM)."""


class Clock:
    """The time of this host."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        time.sleep(seconds)


@dataclass
class World:
    """Everything outside the engine. Tests have a world of their own."""

    docker: Docker = field(default_factory=Docker)
    switch: Switch = field(default_factory=Switch)
    probe: Probe = field(default_factory=Probe)
    clock: Clock = field(default_factory=Clock)
    journal: Path = Path(JOURNAL)


class Colours:
    """The two colours of one app, and the state that says which of them serves."""

    def __init__(self, store: Store, world: World, say: Callable[[str], None] = print) -> None:
        self.store, self.world, self.say = store, world, say
        self.app = store.app
        self.jobs = Jobs(store.app, world.docker, world.clock)
        self.state: State = store.load()

    @property
    def record(self) -> Record:
        """The deploy in hand."""
        assert self.state.deploy is not None  # noqa: S101 - every phase runs within one
        return self.state.deploy

    def save(self) -> None:
        """Write the state down."""
        self.store.save(self.state)

    @contextlib.contextmanager
    def phase(self, name: str, detail: str = "") -> Iterator[Phase]:
        """Write down that a phase begins, and how it ended."""
        phase = Phase(name, "running", self.world.clock.now(), 0, detail)
        self.record.phases.append(phase)
        self.save()
        self.say(f"{name}: {detail}" if detail else name)
        try:
            yield phase
        except SlipwayError as error:
            phase.status, phase.ended, phase.detail = "failed", self.world.clock.now(), error.found
            raise
        phase.ended = self.world.clock.now()
        if phase.status == "running":
            phase.status = "done"
        self.save()

    def skip(self, name: str, why: str) -> None:
        """Write down that a phase is not needed."""
        now = self.world.clock.now()
        self.record.phases.append(Phase(name, "skipped", now, now, why))
        self.save()

    # -- a colour comes up --------------------------------------------------------------------------------------

    def reserve(self, spec: Spec) -> None:
        """Make sure of the network and of the app's two addresses."""
        subnet = self.world.docker.network(spec.network.name)
        if subnet != spec.network.subnet:
            raise PhaseError(
                f"The Docker network {spec.network.name} has the addresses {subnet}" if subnet
                else f"There is no Docker network {spec.network.name}",
                spec.network.subnet, "run site.yml",
            )  # fmt: skip
        if not self.state.addresses:
            with self.world.switch.guarded():
                self.state.addresses = {str(key): value for key, value in self.store.addresses(spec).items()}
                self.save()

    def bring_up(self, spec: Spec, env: Mapping[str, str], release: str, colour: Colour, *, command: bool) -> None:
        """Start a release in a colour and see it healthy. Raises PhaseError or CommandError; nothing is switched."""
        docker = self.world.docker
        project, file = compose.project(self.app, colour), self.compose_file(release, colour)
        self.clear(colour)  # what an earlier attempt left
        content = compose.compose(
            spec, env, image=compose.image_tag(self.app, release), release=release, colour=colour,
            address=self.state.addresses[colour],
        )  # fmt: skip
        write(file, compose.render(content))
        if command and spec.release_command:
            with self.phase("release_command", " ".join(spec.release_command)):
                self._release_command(spec, env, project, file)
        else:
            self.skip("release_command", "none" if not spec.release_command else "not for a rollback")
        with self.phase("start", f"{release} in {colour}"):
            docker.up(project, file)
        with self.phase("health", f"GET {spec.health.path}") as phase:
            phase.detail = self.gate(spec, colour)
        if spec.jobs:
            with self.phase("jobs", ", ".join(f"{job.count} x {job.name}" for job in spec.jobs)) as phase:
                phase.detail = self._start_jobs(spec, env, release, colour)

    def _start_jobs(self, spec: Spec, env: Mapping[str, str], release: str, colour: Colour) -> str:
        """Start the background containers, and keep the last words of one that does not run."""
        try:
            return self.jobs.start(spec, release, colour, self.compose_file(release, colour))
        except JobError as error:
            self.record.log = compose.redact(self.world.docker.logs(error.container, LOG_LINES), env)
            raise

    def clear(self, colour: Colour) -> None:
        """Remove every container of a colour; background ones may finish the job they have in hand."""
        self.world.docker.remove(compose.container(self.app, colour))
        self.jobs.clear(colour)

    def compose_file(self, release: str, colour: Colour) -> Path:
        """Where the Compose file of a release in a colour is."""
        return self.store.folder(release) / f"compose.{colour}.json"

    def _release_command(self, spec: Spec, env: Mapping[str, str], project: str, file: Path) -> None:
        done = self.world.docker.run_release(project, file, compose.release_container(self.app), spec.release_timeout)
        if not done.ok:
            lines = (done.stdout + "\n" + done.stderr).strip().splitlines()
            self.record.log = compose.redact(lines, env)[-LOG_LINES:]
            raise PhaseError(
                f"The release command ({' '.join(spec.release_command)}) ended with code {done.code}",
                "", "mend it and deploy again; it may run twice, so it must be safe to repeat",
            )  # fmt: skip

    def gate(self, spec: Spec, colour: Colour) -> str:
        """Wait until the colour is healthy, and have Docker keep it from then on; words on how it went.

        Raises PhaseError at the timeout or when it dies.
        """
        clock, name = self.world.clock, compose.container(self.app, colour)
        began, row, said = clock.now(), 0, "no answer yet"
        while True:
            state = self.world.docker.inspect(name)
            if state is None or (not state.running and not state.restarting) or state.restarts > 0:
                why = " (out of memory)" if state and state.oom_killed else ""
                code = f" with code {state.exit_code}" if state and state.exit_code else ""
                raise PhaseError(f"The new container stopped{code}{why} before it was healthy")
            answer = self.world.probe.get(
                self.state.addresses[colour], spec.port, spec.health.path,
                host=spec.domains[0] if spec.domains else "", timeout=spec.health.request_timeout,
            )  # fmt: skip
            row = row + 1 if answer.good else 0
            if row >= spec.health.successes:
                self.world.docker.keep(name)
                return f"healthy after {clock.now() - began:.1f} s"
            said = said if answer.good else answer.said
            if clock.now() - began > spec.health.timeout:
                raise PhaseError(
                    f"The new release was not healthy within {spec.health.timeout:g} s: "
                    f"GET {spec.health.path} gave {said}",
                    f"{spec.health.successes} answers with status 2xx in a row",
                    "look at the log lines below, mend it and deploy again",
                )
            clock.sleep(spec.health.interval)

    # -- the switch ---------------------------------------------------------------------------------------------

    def project(self) -> None:
        """Make the switch what the states of all apps of this host say."""
        with self.world.switch.guarded():
            self.world.switch.apply(self.store.routes())

    def switch_to(self, spec: Spec, release: str, colour: Colour) -> None:
        """Send every new connection to a colour. Raises SlipwayError after everything is back as it was."""
        before, previous = self.state.current, self.state.previous
        with self.phase("switch", f"port {spec.stable_port} to {colour}"):
            try:
                if before and before.release != release:
                    self.state.previous = before.release
                self.state.current = Serving(release, colour, self.world.clock.now())
                self.save()  # the commit: from here on a crash is finished, not undone
                self.project()
                self.verify(spec, colour)
            except SlipwayError:
                self.state.current, self.state.previous = before, previous
                self.save()
                self.project()
                self.world.clock.sleep(FORGOTTEN_SECONDS)  # connections may have reached it: see switch.py
                raise

    def verify(self, spec: Spec, colour: Colour) -> None:
        """Prove through the stable port that new connections arrive in the colour. Raises PhaseError."""
        clock, name = self.world.clock, compose.container(self.app, colour)
        began = clock.now()
        while True:
            state = self.world.docker.inspect(name)
            pids = {name: (state.pid, spec.port)} if state and state.running else {}
            if self.world.probe.owner(spec.network.gateway, spec.stable_port, pids, timeout=2) == name:
                return
            if clock.now() - began > VERIFY_SECONDS:
                raise PhaseError(
                    f"After the switch, connections to {spec.network.gateway}:{spec.stable_port} do not arrive in {name}",
                    "", f"look at 'nft list table ip slipway_switch' and 'docker inspect {name}' on the host",
                )  # fmt: skip
            clock.sleep(0.2)

    # -- the other colour goes ----------------------------------------------------------------------------------

    def retire(self, spec: Spec, colour: Colour) -> None:
        """Let a colour finish what it has, stop and remove it. What fails here is written down and left to the next run."""
        docker, name = self.world.docker, compose.container(self.app, colour)
        with contextlib.suppress(SlipwayError), self.phase("drain", f"at most {spec.drain_seconds:g} s") as phase:
            # Told to stop first, as they take jobs until then; the web container gets nothing new any more.
            ended = self.jobs.clear(colour)
            phase.detail = "; ".join(part for part in (ended, self._drain(spec, name)) if part)
            if docker.inspect(name) is not None:
                self.world.clock.sleep(
                    FORGOTTEN_SECONDS
                )  # or live connections to the other colour suffer: see switch.py
                docker.stop(name, spec.stop_grace_seconds)
        with contextlib.suppress(SlipwayError), self.phase("cleanup"):
            docker.remove(name)
            self._prune(spec)

    def _drain(self, spec: Spec, name: str) -> str:
        """Wait until no connection is left, or the drain time is over; words on how it went."""
        clock, began = self.world.clock, self.world.clock.now()
        state = self.world.docker.inspect(name)
        if state is None or not state.running:
            return "nothing to drain"
        while True:
            clock.sleep(0.25)
            waited = clock.now() - began
            busy = self.world.probe.busy(state.pid, spec.port)
            if busy == 0 and waited >= SETTLED_SECONDS:
                return f"quiet after {waited:.1f} s"
            if waited >= max(spec.drain_seconds, SETTLED_SECONDS):
                return f"{busy} connections left after {waited:.0f} s"

    def _prune(self, spec: Spec) -> None:
        """Keep five releases with their images: the one that serves, the one before it, the newest of the rest."""
        serving = self.state.current.release if self.state.current else ""
        others = [release.id for release in self.store.all() if release.id != serving]
        others.sort(key=lambda release: release != self.record.from_release)  # stable: the rest stays newest first
        keep = {serving, *others[: KEEP - 1]}
        for release in others[KEEP - 1 :]:
            self.store.drop(release)
        references = {spec.image.reference}
        with contextlib.suppress(SlipwayError):
            references.add(self.store.desired()[0].image.reference)
        for tag in self.world.docker.tags(self.app):
            reference = f"slipway/{self.app}:{tag}"
            if tag not in keep and reference not in references:
                self.world.docker.untag(reference)

    def discard(self, release: str, colour: Colour, env: Mapping[str, str]) -> None:
        """Take away a colour that must not serve, after its last words are written down."""
        docker, name = self.world.docker, compose.container(self.app, colour)
        if not self.record.log:
            self.record.log = compose.redact(docker.logs(name, LOG_LINES), env)
        self.clear(colour)
        docker.remove(compose.release_container(self.app))
        if release and (self.state.current is None or self.state.current.release != release):
            kept = {self.record.from_release, self.state.previous}
            if self.record.kind == "deploy" and release not in kept:
                self.store.drop(release)
                docker.untag(compose.image_tag(self.app, release))

    def serving_runs(self) -> bool:
        """Make sure that the containers of the release that serves run; whether they did already. Raises SlipwayError."""
        current = self.state.current
        if current is None:
            return True
        name, file = compose.container(self.app, current.colour), self.compose_file(current.release, current.colour)
        state = self.world.docker.inspect(name)
        served = state is not None and (state.running or state.restarting)
        if not served:
            self.world.docker.up(compose.project(self.app, current.colour), file)
        if not served or not (state and state.kept):  # a crash may have come between the two
            self.world.docker.keep(name)
        spec, _ = self.store.content(current.release)
        return self.jobs.ensure(spec, current.release, current.colour, file) and served

    def target(self) -> Colour:
        """The colour that a new release gets."""
        return other(self.state.current.colour) if self.state.current else "blue"
