# SPDX-License-Identifier: Apache-2.0
"""An app's background containers: started with a release, proved to run, and let finish what they have when they go.

They come up after the new web container is healthy and before the switch, so that one that cannot run stops the deploy while
the old release still serves with its own. The old ones are told to stop after the switch: from the first new container to the
last old one both take jobs, and at no time does nobody.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from . import compose
from .docker import Docker, JobContainer
from .spec import Colour, Spec
from .state import PhaseError

if TYPE_CHECKING:
    from .colours import Clock

PROOF_SECONDS = 5.0
"""A command that is misspelled, lacks a setting or cannot reach what it needs has mostly ended within this time."""
LOOK_SECONDS = 1.0
KILLED = 137
"""The exit code of what SIGKILL ended."""


class JobError(PhaseError):
    """A background container does not run; ``container`` is the one whose last lines say why."""

    def __init__(self, found: str, expected: str, remedy: str, container: str) -> None:
        super().__init__(found, expected, remedy)
        self.container = container


class Jobs:
    """The background containers of one app, of both colours."""

    def __init__(self, app: str, docker: Docker, clock: Clock) -> None:
        self.app, self.docker, self.clock = app, docker, clock

    def start(self, spec: Spec, release: str, colour: Colour, file: Path) -> str:
        """Start those of a release and see them run for a while; words on how it went. Raises JobError or CommandError.

        Docker keeps them from then on: a container that ends is started again.
        """
        wanted, began = compose.job_containers(spec, colour), self.clock.now()
        self.docker.up(compose.project(self.app, colour), file, list(wanted.values()))
        while self.clock.now() - began < PROOF_SECONDS:
            self.clock.sleep(LOOK_SECONDS)
            self._look(spec, release, colour)
        for name in wanted:
            self.docker.keep(name)
        return f"{_containers(len(wanted))} running after {PROOF_SECONDS:g} s"

    def _look(self, spec: Spec, release: str, colour: Colour) -> None:
        """Raises JobError when one of a release's containers does not run."""
        found = {one.name: one for one in self.docker.jobs(self.app)}
        for name in self.missing(spec, release, colour, found.values()):
            one = found.get(name)
            job = one.job if one else name.split("-")[1]
            why = " (out of memory)" if one and one.state.oom_killed else ""
            raise JobError(
                f"A container of the background job {job} ended with code {one.state.exit_code if one else 'unknown'}{why} "
                f"within {PROOF_SECONDS:g} s of its start",
                "a command that keeps running and waits for work",
                f"look at the log lines below, mend the command of job {job} (or its memory_mb) and deploy again",
                name,
            )

    def missing(
        self, spec: Spec, release: str, colour: Colour, found: Iterable[JobContainer] | None = None
    ) -> list[str]:
        """The containers that a release wants in a colour and that neither run nor are being started again by Docker."""
        wanted = compose.job_containers(spec, colour)
        if not wanted:
            return []
        there = {
            one.name
            for one in (self.docker.jobs(self.app) if found is None else found)
            if one.state.release == release and (one.state.running or one.state.restarting)
        }
        return [name for name in wanted if name not in there]

    def ensure(self, spec: Spec, release: str, colour: Colour, file: Path) -> bool:
        """Start what should run and does not, and have Docker keep it; whether all ran already. Raises CommandError."""
        wanted = compose.job_containers(spec, colour)
        if not wanted:
            return True
        found = self.docker.jobs(self.app)
        missing = self.missing(spec, release, colour, found)
        if missing:
            self.docker.up(compose.project(self.app, colour), file, [wanted[name] for name in missing])
        kept = {one.name for one in found if one.state.kept} - set(missing)  # a crash may have come between the two
        for name in wanted:
            if name not in kept:
                self.docker.keep(name)
        return not missing

    def clear(self, colour: Colour) -> str:
        """Have a colour's containers finish what they have in hand, then remove them; words on how it went, if any were there.

        Each gets SIGTERM at once, and SIGKILL after its own drain time. Raises CommandError while Docker does not answer.
        """
        there = [one for one in self.docker.jobs(self.app) if one.colour == colour]
        if not there:
            return ""
        began = self.clock.now()
        live = [one for one in there if one.state.running or one.state.restarting]
        if live:
            self.docker.stop_jobs([one.name for one in live], max(one.drain_seconds for one in live))
        names = {one.name for one in live}
        after = [one for one in self.docker.jobs(self.app) if one.name in names]
        killed = sorted({one.job for one in after if one.state.exit_code == KILLED})
        for one in there:
            self.docker.remove(one.name)
        cut = f", {', '.join(killed)} cut off by SIGKILL" if killed else ""
        return f"{_containers(len(live))} ended after {self.clock.now() - began:.1f} s{cut}"

    def restless(self, colour: Colour, most_restarts: int) -> JobContainer | None:
        """A container of a colour that ended and was started again more often than that."""
        there = (one for one in self.docker.jobs(self.app) if one.colour == colour)
        return next((one for one in there if one.state.restarts > most_restarts), None)


def _containers(count: int) -> str:
    return f"{count} background container{'s' if count != 1 else ''}"
