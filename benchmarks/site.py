# SPDX-License-Identifier: Apache-2.0
"""``python -m benchmarks.site``: site.yml on a bare host and again, against plain apt-get of the same packages.

The first run goes from root SSH to the application answering over HTTPS; somebody outside asks every second, and the
clock stops at the first good answer (what site.yml does after it, such as backups, is told beside). A second bare host
then installs the very packages that the first one got, with nothing but apt-get: it comes second, so downloads that a proxy or mirror has
kept by then favour apt-get, never us. The second run must change nothing; its time is the median of several.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from typing import Any

from benchmarks.common import Figure, Result, busy, median, progress
from benchmarks.trips import Trips
from lab import cli
from lab.model import HostSpec
from tests.integration.world import Done, World, quiet, raise_lab, recap, remove_lab

LAB = "bench"
RATIO, SECOND_RUN_SECONDS = 1.5, 25.0
WAIT = "Wait until the packages are installed"


class BenchmarkError(Exception):
    """The benchmark could not be run; the message says what happened and shows the end of the output."""


class Outside(threading.Thread):
    """Somebody who asks for the page every second, from now on. ``at``: when the first good answer came (monotonic)."""

    def __init__(self, world: World) -> None:
        super().__init__(daemon=True)
        self._world, self._over = world, threading.Event()
        self.at: float | None = None
        self.start()

    def run(self) -> None:
        """Ask until it is answered, or until nobody wants to know any more."""
        while self.at is None and not self._over.wait(1):
            if self._world.status() == 200:
                self.at = time.monotonic()

    def stop(self) -> None:
        """Ask no more."""
        self._over.set()
        self.join()


def installed(world: World, host: Any) -> set[str]:
    """Names of the packages installed on a host."""
    lines = world.root(["dpkg-query", "-W", "-f", "${db:Status-Abbrev}${Package}\n"], host=host).splitlines()
    return {line[3:].strip() for line in lines if line.startswith("ii")}


def run_site(world: World, label: str) -> tuple[float, Trips, Done]:
    """One timed run; raises `BenchmarkError` when it fails."""
    progress(f"{label}: site.yml ...")
    with Trips() as trips:
        started = time.monotonic()
        done = world.playbook("site", env=trips.environment, timeout=1800)
        seconds = time.monotonic() - started
    if done.returncode != 0:
        raise BenchmarkError(f"{label} of site.yml failed:\n{done.stdout[-4000:]}\n{done.stderr[-1000:]}")
    progress(f"{label}: {seconds:.1f} s, {trips.total} round trips, {recap(done).get('changed', 0)} changed")
    return seconds, trips, done


def install_plainly(world: World, host: Any, packages: list[str]) -> float:
    """Seconds that apt-get alone takes for these packages on a bare host, its lists included."""
    progress(f"apt-get install of the same {len(packages)} packages ...")
    started = time.monotonic()
    world.root(["apt-get", "-qq", "update"], host=host, timeout=300)
    world.root(
        ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "install", "--yes", "--no-install-recommends", *packages],
        host=host,
        timeout=1800,
    )  # fmt: skip
    return time.monotonic() - started


def waited(trips: Trips) -> float:
    """Seconds that the run spent on nothing but the packages."""
    return sum(task.seconds for task in trips.tasks if task.task == WAIT)


def first_run(result: Result, world: World) -> None:
    """Bare to serving, and the same packages by apt-get on a second bare host."""
    before = installed(world, world.host)
    outside, began = Outside(world), time.monotonic()
    try:
        whole, trips, done = run_site(world, "first run")
    finally:
        outside.stop()
    world.wait_until_serving(30)
    seconds = (outside.at or time.monotonic()) - began
    packages = sorted(installed(world, world.host) - before)
    plain = next(
        host
        for host in cli.up(world.driver, world.lab, [HostSpec(name="plain", image="bare")], quiet)
        if host.name == "plain"
    )
    floor = install_plainly(world, plain, packages)
    missing = set(packages) - installed(world, plain)
    if missing:
        raise BenchmarkError(f"apt-get did not install the same: {', '.join(sorted(missing))} are missing")
    result.figures += [
        Figure("first run of site.yml, bare to serving", seconds, "s"),
        Figure("apt-get install of the same packages", floor, "s"),
        Figure("first run, bare to serving / apt-get", seconds / floor, "", RATIO),
        Figure("first run to its end", whole, "s"),
        Figure("first run to its end / apt-get", whole / floor, ""),
        Figure("round trips of the first run", trips.total, ""),
        Figure("of the first run, waiting for apt-get while nothing else was to do", waited(trips), "s"),
    ]
    result.detail["first"] = {
        "changed": recap(done).get("changed", 0),
        "packages": packages,
        "trips": trips.count,
        "slowest": [vars(one) for one in trips.tasks[:15]],
    }


def second_runs(result: Result, world: World, runs: int) -> None:
    """Runs on a converged host."""
    timed = [run_site(world, f"run {number + 2}") for number in range(runs)]
    seconds = [one[0] for one in timed]
    trips = timed[-1][1]
    result.figures += [
        Figure("second run of site.yml", median(seconds), "s", SECOND_RUN_SECONDS),
        Figure("tasks changed by the second run", recap(timed[0][2]).get("changed", 0), "", 0),
        Figure("remote round trips of the second run", trips.total, ""),
        Figure("tasks of the second run", len(trips.tasks), ""),
    ]
    result.detail["second"] = {
        "seconds": [round(one, 2) for one in seconds],
        "trips": trips.count,
        "slowest": [vars(one) for one in trips.tasks[:15]],
    }


def main(argv: list[str] | None = None) -> int:
    """Run; 0 when every bound is met, 1 when one is missed, 2 when it could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.site", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="how many second runs to take the median of")
    parser.add_argument(
        "--second-only", action="store_true", help="start from an image with the packages, skip apt-get"
    )
    options = parser.parse_args(argv)
    result = Result("site")
    noise = busy()
    world = raise_lab(LAB, image="rung0" if options.second_only else "bare")
    try:
        if options.second_only:
            run_site(world, "converge")
        else:
            first_run(result, world)
        second_runs(result, world, max(1, options.runs))
    except BenchmarkError as error:
        progress(str(error))
        return 2
    finally:
        remove_lab(world)
    result.notes += [
        *filter(None, [noise or busy()]),
        f"Second run: median of {options.runs}; a round trip is a start of ssh, scp or sftp.",
        "apt-get ran after site.yml, so it had whatever a proxy had kept; the first run includes building, shipping"
        " and deploying the example application, and its certificate.",
    ]
    return result.finish()


if __name__ == "__main__":
    sys.exit(main())
