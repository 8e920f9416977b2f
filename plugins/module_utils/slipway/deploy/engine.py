# SPDX-License-Identifier: Apache-2.0
"""The deploy engine: takes one request to its end, and after a crash at any point finishes it or returns.

It runs on the host in a systemd unit of its own, so that no closed laptop or cut connection leaves anything half-done.
The rule of recovery: once the state names the new release (the commit, just before the switch), go forward; before
that, go back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace

from .. import journal, lock
from ..errors import InputError, SlipwayError
from . import compose, images
from .colours import Colours, Interrupted, World
from .releases import Release, Store, release_id
from .spec import Colour, Spec, for_rollback, other
from .state import PhaseError, Record, Request, Result
from .watch import Figures, LogTail, Window, container_verdict, figures

WATCH_STEP_SECONDS = 2.0


class Engine:
    """Deploys, rolls back and recovers one app. Hold its lock (:meth:`run` does) while calling anything."""

    def __init__(self, store: Store, world: World | None = None, say: Callable[[str], None] = print) -> None:
        self.store, self.world, self.say = store, world or World(), say
        self.colours = Colours(store, self.world, say)

    @property
    def _now(self) -> float:
        return self.world.clock.now()

    def run(self) -> Record | None:
        """Recover what was cut off, then take up the request if there is one. The last record, None if there was nothing.

        Raises BusyError when another engine is at work on this app. A deploy that fails raises nothing: its record says so.
        """
        request = self.store.request()
        note = {"since": journal.stamp(self._now), "who": "the recovery", "what": "a recovery"}
        if request:
            note.update(who=request.operator, what=f"a {request.kind}")
        with lock.held(self.store.lock, self.store.app, note):
            self.colours.state = self.store.load()
            last = self.recover()
            while request := self.store.request():
                done = self.colours.state.deploy
                if done and done.id == request.id:  # taken up before a crash, and recovered just now
                    self.store.answered()
                    break
                last = self.perform(request)
            return last

    def perform(self, request: Request) -> Record:
        """Take one request to its end."""
        try:
            spec, env, wish = self.store.desired()
            self._begin(request, spec, wish)
        except SlipwayError as error:
            self._refuse(request, error)
            return self.colours.record
        record = self.colours.record
        try:
            if request.kind == "deploy":
                self._deploy(request, spec, env, wish)
            else:
                self._rollback(request, spec, env)
        except SlipwayError as error:
            self._fail(error, env)
        except Interrupted:
            if self._committed():
                raise  # the record stays open: recovery goes on from here, at boot or before the next deploy
            self._fail(PhaseError("The deploy was told to stop", "", "start it again"), env)
        except Exception as error:  # a mistake of ours must not leave two colours running
            if self._committed():
                raise
            self._fail(PhaseError(f"The deploy engine stumbled: {type(error).__name__}: {error}"), env)
        return record

    def _committed(self) -> bool:
        """Whether the release of the deploy in hand serves."""
        record, current = self.colours.record, self.colours.state.current
        return current is not None and (current.release, current.colour) == (record.release, record.colour)

    # -- the two kinds ------------------------------------------------------------------------------------------

    def _begin(self, request: Request, spec: Spec, wish: str) -> None:
        """Write down that the request is taken up. Raises StateError when there is nothing to go back to."""
        state = self.colours.state
        release = request.release
        if request.kind == "deploy":
            release = release_id(self._now, spec.image.label)
            while self.store.folder(release).exists():
                self.world.clock.sleep(1)  # two deploys of the same thing within a second
                release = release_id(self._now, spec.image.label)
        elif not release:
            release = self.previous_good()
        else:
            self.store.get(release)
            if state.current and state.current.release == release:
                raise InputError(f"{self.store.app} already serves release {release}", "another release to go back to")
        state.deploy = Record(
            id=request.id, kind=request.kind, operator=request.operator, release=release, colour=self.colours.target(),
            started=self._now, spec_hash=wish if request.kind == "deploy" else "", why=request.why,
            from_release=state.current.release if state.current else None,
            from_colour=state.current.colour if state.current else None,
        )  # fmt: skip
        self.colours.save()
        self.store.answered()
        self._note("started")

    def previous_good(self) -> str:
        """The newest release before the one that serves that was found good. Raises InputError when there is none."""
        serving = self.colours.state.current.release if self.colours.state.current else ""
        older = [item.id for item in self.store.all() if item.good and item.id < serving]
        if not older:
            kept = ", ".join(item.id for item in self.store.all() if item.id != serving) or "none"
            raise InputError(
                f"{self.store.app} has no good release before {serving or 'its first'} to go back to",
                "", f"name one with -e release=ID (kept: {kept}), or deploy a mended one",
            )  # fmt: skip
        return older[0]

    def _deploy(self, request: Request, spec: Spec, env: Mapping[str, str], wish: str) -> None:
        record, colours, docker = self.colours.record, self.colours, self.world.docker
        with colours.phase("image", f"{spec.image.source} {spec.image.reference}") as phase:
            image = images.bring(self.store, docker, spec.image)
            same = self._serving_is(image, wish)
            if same and not request.force:
                phase.detail = f"{same} serves exactly this already"
                record.release, record.colour = same, other(record.colour)
            else:
                colours.reserve(spec)
                docker.tag(image, compose.image_tag(spec.name, record.release))
                text = (self.store.wish / "app.env").read_text(encoding="utf-8")
                release = Release(
                    record.release, image, spec.image.reference, docker.digest(spec.image.reference), wish, self._now,
                    request.operator, request.revision,
                )  # fmt: skip
                self.store.add(release, spec, text)
        if same and not request.force:
            self._finish("succeeded")
            return
        colours.bring_up(spec, env, record.release, record.colour, command=request.run_release_command)
        if record.from_release and request.watch and spec.watch.seconds > 0:
            before = [
                hit for hit in LogTail(spec.watch.access_log).recent() if hit.at >= self._now - spec.watch.seconds
            ]
            record.watched = {"before": figures(before).to_dict()}
            record.watch_until = self._now + spec.watch.seconds
        colours.switch_to(spec, record.release, record.colour)
        colours.state.held = {}
        self._settle(spec, env)

    def _serving_is(self, image: str, wish: str) -> str:
        """The release that serves, if it is made of exactly this and runs; else an empty string."""
        current = self.colours.state.current
        if current is None:
            return ""
        with contextlib.suppress(SlipwayError):
            release = self.store.get(current.release)
            state = self.world.docker.inspect(compose.container(self.store.app, current.colour))
            if release.image == image and release.spec_hash == wish and state is not None and state.running:
                spec, _ = self.store.content(current.release)
                missing = self.colours.jobs.missing(spec, current.release, current.colour)
                return "" if missing else current.release
        return ""

    def _rollback(self, request: Request, spec: Spec, env: Mapping[str, str]) -> None:
        record, colours = self.colours.record, self.colours
        colours.skip("image", "kept on the host")
        colours.reserve(spec)
        old_spec, old_env = for_rollback(*self.store.content(record.release), spec, env)
        colours.bring_up(old_spec, old_env, record.release, record.colour, command=False)
        colours.switch_to(old_spec, record.release, record.colour)
        if record.from_release:
            self._condemn(record.from_release, request.why or f"rolled back by {request.operator}")
        self._settle(old_spec, old_env)

    def _condemn(self, release: str, why: str) -> None:
        """A release that was rolled back is no longer good, and its wish is not tried again by itself."""
        with contextlib.suppress(SlipwayError):
            found = self.store.get(release)
            self.store.note(replace(found, good=False))
            self.colours.state.held = {"spec_hash": found.spec_hash, "release": release, "why": why}
            self.colours.save()

    # -- after the commit ---------------------------------------------------------------------------------------

    def _settle(self, spec: Spec, env: Mapping[str, str]) -> None:
        """What follows a switch: the old colour goes, the new one is watched, the record is closed."""
        record = self.colours.record
        self.colours.retire(spec, other(record.colour))
        if record.watch_until > self._now:
            why = self._watch(spec)
            if why:
                self._go_back(why, spec, env)
                return
        elif not record.find("watch"):
            self.colours.skip("watch", "the first release" if not record.from_release else "not asked for")
        self._good(record.release)
        self._finish("superseded" if self.store.supersede_file.exists() else "succeeded")

    def _good(self, release: str) -> None:
        with contextlib.suppress(SlipwayError):
            self.store.note(replace(self.store.get(release), good=True))

    def _watch(self, spec: Spec) -> str:
        """Watch the new release until its time is over; why it must go, or an empty string."""
        record, clock = self.colours.record, self.world.clock
        minutes = (record.watch_until - self._now) / 60
        known = record.watched.get("before", {})
        before = Figures(known.get("requests", 0), known.get("errors", 0), known.get("p95_ms", 0.0))
        tail, window = LogTail(spec.watch.access_log), Window(spec.watch, before, self._now)
        down_since = 0.0
        with self.colours.phase("watch", f"for {minutes:.0f} min") as phase:
            while self._now < record.watch_until:
                clock.sleep(WATCH_STEP_SECONDS)
                if self.store.supersede_file.exists():
                    phase.detail = "ended early by the next deploy"
                    break
                window.add(tail.fresh(), self._now)
                why = window.verdict()
                with contextlib.suppress(SlipwayError):  # Docker restarting is not the app's fault
                    found = self.world.docker.inspect(compose.container(self.store.app, record.colour))
                    running = found is not None and found.running
                    down_since = 0.0 if running else down_since or self._now
                    down = self._now - down_since if down_since else 0.0
                    why = why or container_verdict(spec.watch, running, found.restarts if found else 0, down)
                    bad = self.colours.jobs.restless(record.colour, spec.watch.restarts) if spec.jobs else None
                    if bad:
                        why = why or f"its background job {bad.job} was restarted {bad.state.restarts} times"
                if why:
                    phase.status, phase.detail = "failed", why
                    break
            else:
                phase.detail = f"{window.figures().requests} requests, nothing wrong"
            record.watched["after"] = window.figures().to_dict()
            return phase.detail if phase.status == "failed" else ""

    def _go_back(self, why: str, spec: Spec, env: Mapping[str, str]) -> None:
        """The automatic rollback. Leaves the new release serving only when the old one does not come up again."""
        record, colours = self.colours.record, self.colours
        bad, target = colours.state.current, record.from_release
        if bad is None or not target:
            self._finish("succeeded")
            return
        record.undoing = target
        if not record.log:
            restless = colours.jobs.restless(bad.colour, spec.watch.restarts) if spec.jobs else None
            name = restless.name if restless else compose.container(self.store.app, bad.colour)
            lines = self.world.docker.logs(name, 15)
            record.log = compose.redact(lines, env)
        colours.save()
        self._note("rolling back", why=why)
        colour = colours.target()
        old_spec, old_env = for_rollback(*self.store.content(target), spec, env)
        try:
            colours.bring_up(old_spec, old_env, target, colour, command=False)
            colours.switch_to(old_spec, target, colour)
        except SlipwayError as error:
            colours.clear(colour)
            self._finish("failed", PhaseError(
                f"Release {record.release} turned bad: {why}. Going back to {target} failed too: {error.found}. "
                f"{record.release} still serves", "", "deploy a mended release",
            ))  # fmt: skip
            return
        self._undone(why, old_spec, bad.colour)

    def _undone(self, why: str, spec: Spec, bad: Colour) -> None:
        """Close the record of a deploy that was rolled back by itself."""
        record = self.colours.record
        self._condemn(record.release, why)
        self.colours.retire(spec, bad)
        self._finish("rolled_back", PhaseError(
            f"Release {record.release} was rolled back by itself: {why}. {record.undoing} serves again",
            "", "look at the log lines below, mend it and deploy again",
        ))  # fmt: skip

    # -- the ends -----------------------------------------------------------------------------------------------

    def _fail(self, error: SlipwayError, env: Mapping[str, str]) -> None:
        """Take the new colour away; the old one serves on."""
        record = self.colours.record
        # Docker itself may be what failed: the message must get out all the same, the next run clears away.
        with contextlib.suppress(SlipwayError):
            self.colours.discard(record.release, record.colour, env)
        self._finish("failed", error)

    def _refuse(self, request: Request, error: SlipwayError) -> None:
        """A request that could not even begin: recorded, so that whoever asked is answered."""
        now = self._now
        self.colours.state.deploy = Record(
            request.id, request.kind, request.operator, request.release, self.colours.target(), now
        )
        self.store.answered()
        self._finish("failed", error)

    def _finish(self, result: Result, error: SlipwayError | None = None) -> None:
        record = self.colours.record
        record.result, record.ended = result, self._now
        record.error = error.to_dict() if error else None
        self.colours.save()
        self._note(result, seconds=round(record.ended - record.started, 1), **({"error": error.found} if error else {}))
        self.say(f"{record.kind} of {self.store.app}: {result}" + (f". {error}" if error else ""))

    def _note(self, result: str, **more: object) -> None:
        """One line in the journal. A full disk must not stop a deploy half-way."""
        record = self.colours.record
        phases = {phase.name: round(phase.ended - phase.started, 1) for phase in record.phases if phase.ended}
        with contextlib.suppress(OSError):
            journal.append(
                self.world.journal, at=self._now, who=record.operator, what=record.kind, app=self.store.app,
                release=record.release, before=record.from_release, result=result, deploy=record.id,
                **({"phases": phases} if phases else {}), **more,
            )  # fmt: skip

    # -- after a crash ------------------------------------------------------------------------------------------

    def recover(self) -> Record | None:
        """Finish or undo what a crash cut off, and make the switch what the state says. The record, None if all was well."""
        colours, state = self.colours, self.colours.state
        record = state.deploy
        if record is None or record.over:
            return None
        self.say(
            f"recover: {record.kind} {record.release} was cut off in phase {record.phase.name if record.phase else '-'}"
        )
        for phase in record.phases:
            if phase.status == "running":
                phase.status, phase.ended, phase.detail = "failed", self._now, "cut off"
        spec, env, _ = self.store.desired()
        current = state.current
        if record.undoing and current and current.release == record.undoing:
            colours.project()
            self._undone("found bad in its watched window", spec, other(current.colour))
        elif self._committed():
            self._go_forward(spec, env)
        else:
            self._return(env)
        return record

    def _go_forward(self, spec: Spec, env: Mapping[str, str]) -> None:
        record, colours = self.colours.record, self.colours
        own_spec, own_env = for_rollback(*self.store.content(record.release), spec, env)
        if record.undoing:
            self._go_back("found bad in its watched window", own_spec, own_env)
            return
        try:
            colours.serving_runs()
            colours.project()
            colours.gate(own_spec, record.colour)
        except SlipwayError as error:
            if record.from_release:
                self._go_back(f"after a crash it did not come up again ({error.found})", own_spec, own_env)
                return
        self._settle(own_spec, own_env)

    def _return(self, env: Mapping[str, str]) -> None:
        record, colours = self.colours.record, self.colours
        at = record.phase.name if record.phase else "its beginning"
        colours.discard(record.release, record.colour, env)
        colours.serving_runs()
        colours.project()
        still = f"{record.from_release} still serves" if record.from_release else "nothing serves yet"
        self._finish("interrupted", PhaseError(
            f"The {record.kind} of {self.store.app} was cut off in phase {at}; {still}", "", "start it again"
        ))  # fmt: skip
