# SPDX-License-Identifier: Apache-2.0
"""Docker as the deploy engine needs it: a dozen verbs over the command line. Effects only, no decisions."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..commands import CommandError, Outcome, run
from ..errors import SlipwayError
from . import compose

KEPT = "unless-stopped"
PULL_SECONDS, BUILD_SECONDS, START_SECONDS = 900, 1800, 120


class ImageError(SlipwayError):
    """An image could not be pulled, loaded or built."""


@dataclass(frozen=True)
class Running:
    """What Docker says of a container. ``pid`` is 0 while it does not run; ``exit_code`` counts only then.

    ``kept``: Docker starts it again whenever it ends, and at boot.
    """

    running: bool
    pid: int
    exit_code: int
    restarts: int
    image: str
    release: str = ""
    restarting: bool = False
    oom_killed: bool = False
    kept: bool = True


@dataclass(frozen=True)
class JobContainer:
    """One background container: its name, its job, its colour, its state, what it gets between SIGTERM and SIGKILL, its limit."""

    name: str
    job: str
    colour: str
    state: Running
    drain_seconds: int = 10
    memory_mb: int = 0


class Docker:
    """The Docker engine of this host. Every method raises CommandError when Docker refuses."""

    def image_id(self, reference: str) -> str | None:
        """The id of an image that is on the host, or None."""
        done = run(["docker", "image", "inspect", "--format", "{{.Id}}", reference], check=False)
        return done.stdout.strip() if done.ok else None

    def digest(self, reference: str) -> str:
        """The registry's digest of a pulled image, or an empty string."""
        form = "{{range .RepoDigests}}{{println .}}{{end}}"
        done = run(["docker", "image", "inspect", "--format", form, reference], check=False)
        return done.stdout.split("\n", 1)[0].strip() if done.ok else ""

    def pull(self, reference: str) -> None:
        """Fetch an image from its registry."""
        run(["docker", "pull", "--quiet", reference], timeout=PULL_SECONDS)

    def load(self, archive: Path) -> None:
        """Load an image archive (plain, gzip or zstd)."""
        with archive.open("rb") as stream:
            _feed(["docker", "load", "--quiet"], stream, PULL_SECONDS)

    def build(self, context: Path, reference: str, dockerfile: str, args: dict[str, str], target: str) -> None:
        """Build from the archive of a folder."""
        with context.open("rb") as stream:
            _feed(compose.build_argv(reference, dockerfile, args, target), stream, BUILD_SECONDS)

    def tag(self, image: str, reference: str) -> None:
        """Give an image one more name."""
        run(["docker", "image", "tag", image, reference])

    def untag(self, reference: str) -> None:
        """Take a name from an image; with its last name it goes. A name that is not there is no error."""
        run(["docker", "image", "rm", reference], check=False)

    def tags(self, app: str) -> dict[str, str]:
        """Every tag under ``slipway/<app>`` and its image id."""
        form = "{{.Tag}} {{.ID}}"
        done = run(["docker", "image", "ls", "--no-trunc", "--format", form, f"slipway/{app}"])
        return dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)

    def network(self, name: str) -> str | None:
        """The first subnet of a network, or None where there is no such network."""
        form = "{{range .IPAM.Config}}{{println .Subnet}}{{end}}"
        done = run(["docker", "network", "inspect", "--format", form, name], check=False)
        return done.stdout.strip().split("\n")[0] if done.ok else None

    def up(self, project: str, file: Path, services: Sequence[str] = (compose.SERVICE,)) -> None:
        """Start services of a colour: its serving container, unless told."""
        done = run(compose.up_argv(project, str(file), services), check=False, timeout=START_SECONDS)
        if not done.ok:
            # Compose tells its whole progress first; what went wrong comes last.
            words = [line for line in done.said.splitlines() if not line.lstrip().startswith("Container ")]
            raise CommandError(f"The container does not start: {' '.join(words) or done.said}")

    def keep(self, container: str) -> None:
        """From now on Docker starts the container again whenever it ends, and at boot."""
        run(["docker", "update", "--restart", KEPT, container])

    def run_release(self, project: str, file: Path, container: str, timeout: float) -> Outcome:
        """Run the release command to its end; the outcome, whatever its code. Raises CommandError on the timeout."""
        self.remove(container)  # what a crash left
        try:
            return run(compose.run_release_argv(project, str(file), container), check=False, timeout=timeout)
        finally:
            self.remove(container)

    def stop(self, container: str, grace_seconds: int) -> None:
        """SIGTERM, then SIGKILL after the grace period; one that is not there is no error."""
        run(compose.stop_argv(container, grace_seconds), check=False, timeout=grace_seconds + 60)

    def jobs(self, app: str) -> list[JobContainer]:
        """Every background container of an app, by name. Raises CommandError while Docker itself does not answer."""
        ids = run(compose.jobs_argv(app)).stdout.split()
        if not ids:
            return []
        done = run(["docker", "container", "inspect", *ids], check=False)
        if not done.ok and "no such container" not in done.stderr.lower():  # one that goes meanwhile is gone
            raise CommandError(f"Docker does not answer: {done.said}")
        found = []
        for data in json.loads(done.stdout or "[]"):
            labels = data["Config"].get("Labels") or {}
            name, drain = data["Name"].lstrip("/"), data["Config"].get("StopTimeout")
            memory = int(data["HostConfig"].get("Memory") or 0) // 2**20
            found.append(
                JobContainer(
                    name, labels.get("slipway.job", ""), labels.get("slipway.colour", ""), _running(data),
                    10 if drain is None else int(drain), memory,
                )
            )  # fmt: skip
        return sorted(found, key=lambda one: one.name)

    def stop_jobs(self, names: Sequence[str], longest_seconds: float) -> None:
        """SIGTERM to all, then SIGKILL to each after its own grace period, of which the longest is given."""
        run(compose.stop_jobs_argv(names), check=False, timeout=longest_seconds + 60)

    def remove(self, container: str) -> None:
        """Remove a container; one that is not there is no error, one that stays is."""
        done = run(compose.remove_argv(container), check=False)
        if not done.ok and self.inspect(container) is not None:
            raise CommandError(f"Docker does not remove the container {container}: {done.said}")

    def inspect(self, container: str) -> Running | None:
        """A container's state, or None where there is none. Raises CommandError while Docker itself does not answer."""
        done = run(["docker", "container", "inspect", container], check=False)
        if not done.ok:
            if "no such container" in done.stderr.lower():
                return None
            raise CommandError(f"Docker does not answer: {done.said}")
        return _running(json.loads(done.stdout)[0])

    def logs(self, container: str, lines: int) -> list[str]:
        """The last lines a container wrote."""
        done = run(compose.logs_argv(container, lines), check=False)
        text = done.stdout + done.stderr if done.ok else ""
        return text.rstrip().splitlines()[-lines:]


def _running(data: Mapping[str, Any]) -> Running:
    """A container's state from what ``docker inspect`` says."""
    state = data["State"]
    return Running(
        running=bool(state["Running"]) and not state.get("Restarting", False),
        pid=int(state["Pid"]),
        exit_code=int(state["ExitCode"]),
        restarts=int(data.get("RestartCount", 0)),
        image=data["Image"],
        release=(data["Config"].get("Labels") or {}).get("slipway.release", ""),
        restarting=bool(state.get("Restarting", False)),
        oom_killed=bool(state.get("OOMKilled", False)),
        kept=data["HostConfig"]["RestartPolicy"]["Name"] == KEPT,
    )


def _feed(argv: list[str], stream: object, timeout: float) -> None:
    """Run ``argv`` with an open file as its input; CommandError with its last words when it fails."""
    try:
        done = subprocess.run(
            argv, stdin=stream, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            timeout=timeout, check=False,
        )  # type: ignore[call-overload]  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"{' '.join(argv[:2])} did not end within {timeout:.0f} s") from error
    if done.returncode:
        words = "\n".join(done.stdout.strip().splitlines()[-15:])
        raise CommandError(f"{' '.join(argv[:2])} ended with code {done.returncode}:\n{words}")
