# SPDX-License-Identifier: Apache-2.0
"""What an app feels of something that runs beside it: transactions a second of pgbench, before, during and after."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.common import ROOT, progress

CLIENTS = 8
# As the unit has it. Its CPUWeight is more than that: this holds on a machine without systemd, too.
GENTLY = ["nice", "-n", "10", "ionice", "-c", "2", "-n", "7"]


def felt(socket: str, command: Sequence[str], seconds: int = 15) -> dict[str, float]:
    """Transactions a second of an app that asks for all it can get: before ``command``, from its begin to its end, after.

    The backup's programs run at the nice value of their unit; its server processes cannot.
    """
    tool = [program("pgbench"), "-h", socket, "-U", "postgres"]
    psql = ["psql", "-h", socket, "-U", "postgres", "-qc"]

    def sql(*statements: str) -> None:
        for statement in statements:
            subprocess.run([*psql, statement, "postgres"], check=True, capture_output=True)

    sql("DROP DATABASE IF EXISTS app", "CREATE DATABASE app")
    subprocess.run([*tool, "-i", "-q", "-s", "10", "app"], check=True, capture_output=True)
    load = [*tool, "-c", str(CLIENTS), "-j", "2", "-P", "1", "app"]
    rates(load, lambda: time.sleep(seconds))
    before = rates(load, lambda: time.sleep(seconds))
    told = during(load, command)
    after = rates(load, lambda: time.sleep(seconds))
    sql("DROP DATABASE app WITH (FORCE)")  # its sessions end a moment later
    told |= {"before": mean(before), "after": mean(after), "alone": (mean(before) + mean(after)) / 2}
    progress(f"pgbench: {told}")
    return told


def during(load: Sequence[str], command: Sequence[str]) -> dict[str, float]:
    """The rate while ``command`` runs, that of its worst five seconds, and how long it took."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'plugins/module_utils'}"}
    begun = time.monotonic()
    seen = rates(
        load, lambda: subprocess.run([*GENTLY, *command], check=True, stdout=subprocess.DEVNULL, env=environment)
    )
    worst = min(mean(seen[place : place + 5]) for place in range(max(1, len(seen) - 4)))
    return {"during": mean(seen), "worst": worst, "backup_s": time.monotonic() - begun}


def rates(load: Sequence[str], work: Callable[[], object]) -> list[float]:
    """Transactions in each second of pgbench while ``work`` is done; the first second aside, in which it connects."""
    with subprocess.Popen(
        [*load, "-T", "3600"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as running:
        lines: list[str] = []
        assert running.stderr is not None  # noqa: S101 - asked for as a pipe
        reader = threading.Thread(target=lines.extend, args=(running.stderr,))
        reader.start()
        try:
            time.sleep(1)
            work()
        finally:
            running.terminate()
            reader.join()
    return parse("".join(lines))


def parse(said: str) -> list[float]:
    """The rates that pgbench told as its progress. Raises RuntimeError when there is none after the first."""
    found = [float(each) for each in re.findall(r"^progress: [0-9.]+ s, ([0-9.]+) tps", said, re.MULTILINE)][1:]
    if not found:
        raise RuntimeError(f"pgbench told no rate: {said[-500:]}")
    return found


def mean(values: Sequence[float]) -> float:
    """The arithmetic one."""
    return sum(values) / len(values)


def program(name: str) -> str:
    """One of PostgreSQL's programs, which Debian keeps off the PATH in part."""
    found = shutil.which(name)
    return found or str(max(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3])))
