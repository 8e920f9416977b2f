# SPDX-License-Identifier: Apache-2.0
"""What a command costs beside a PostgreSQL: wall time, CPU time of its programs and of the server's processes, memory."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT

_TICK = os.sysconf("SC_CLK_TCK")


@dataclass
class Cost:
    """What one command took: seconds of wall and CPU time, and the most memory of its programs together, in MB.

    ``cpu`` counts ``server``, the CPU time of PostgreSQL's own processes. ``shares``: CPU seconds by program, as sampled,
    so that each is up to a fifth of a second short. ``load``: processes that wanted to run when it began, ours aside.
    """

    wall: float
    cpu: float
    memory: float
    told: dict[str, Any] = field(default_factory=dict)
    server: float = 0.0
    shares: dict[str, float] = field(default_factory=dict)
    load: float = 0.0

    @property
    def programs(self) -> float:
        """CPU time without the server's processes."""
        return self.cpu - self.server


class Meter:
    """Measures commands against one server. ``postmaster``: its pid."""

    def __init__(self, postmaster: int) -> None:
        self._postmaster = postmaster

    def server(self) -> float:
        """Seconds so far of the server's processes that have ended."""
        fields = Path(f"/proc/{self._postmaster}/stat").read_text().rsplit(") ", 1)[1].split()
        return (int(fields[13]) + int(fields[14])) / _TICK

    def cpu(self) -> float:
        """Seconds so far of our ended children and of the server's ended processes."""
        ours = os.times()
        return ours.children_user + ours.children_system + self.server()

    def run(self, argv: Sequence[str], environment: Mapping[str, str] | None = None) -> Cost:
        """Run it; what it says, if it is a JSON object, is ``told``. Raises CalledProcessError."""
        before, server, begun, peak = self.cpu(), self.server(), time.monotonic(), 0.0
        load, over, seen = others(), threading.Event(), dict[int, tuple[str, float]]()
        path = f"{ROOT}:{ROOT / 'plugins/module_utils'}"
        process = subprocess.Popen(
            list(argv), stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path, **(environment or {})}
        )

        def sample() -> None:
            nonlocal peak
            while not over.wait(0.2):
                pids = tree(process.pid)
                peak = max(peak, sum(memory(pid) for pid in pids) / 1024)
                seen.update({pid: used for pid in pids if (used := spent(pid))[0]})

        sampler = threading.Thread(target=sample)
        sampler.start()
        out, _ = process.communicate()
        wall = time.monotonic() - begun
        over.set()
        sampler.join()
        if process.returncode != 0:
            raise subprocess.CalledProcessError(process.returncode, argv)
        time.sleep(0.5)  # the server's processes end a moment later
        shares: dict[str, float] = {}
        for name, seconds in seen.values():
            shares[name] = round(shares.get(name, 0.0) + seconds, 2)
        told = json.loads(out) if out.startswith(b"{") else {}
        return Cost(wall, self.cpu() - before, peak, told, self.server() - server, shares, load)


def others() -> float:
    """How many processes of this machine want to run just now, this one aside: the mean of ten looks in a second."""
    looks = []
    for _ in range(10):
        looks.append(int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0]) - 1)
        time.sleep(0.1)
    return sum(looks) / len(looks)


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            children.setdefault(int(stat.read_text().rsplit(") ", 1)[1].split()[1]), []).append(int(stat.parent.name))
        except (OSError, IndexError):
            continue
    found, todo = [], [pid]
    while todo:
        found.append(todo.pop())
        todo += children.get(found[-1], [])
    return found


def spent(pid: int) -> tuple[str, float]:
    """A process' name and CPU seconds so far; an empty name once it is gone."""
    try:
        name, rest = Path(f"/proc/{pid}/stat").read_text().split("(", 1)[1].rsplit(") ", 1)
        fields = rest.split()
    except (OSError, IndexError):
        return "", 0.0
    return name, (int(fields[11]) + int(fields[12])) / _TICK


def memory(pid: int) -> int:
    """A process' share of memory in kB (shared pages counted in part); 0 once it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
