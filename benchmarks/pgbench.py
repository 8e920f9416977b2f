# SPDX-License-Identifier: Apache-2.0
"""What an app feels of something that runs beside it: transactions a second of pgbench, before, during and after."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common import ROOT, progress

CLIENTS = 8
# As the unit has it. Its CPUWeight is more than that: this holds on a machine without systemd, too.
GENTLY = ["nice", "-n", "10", "ionice", "-c", "2", "-n", "7"]


def felt(socket: str, command: Sequence[str], seconds: int = 25) -> dict[str, float]:
    """Transactions a second of an app that asks for all it can get, without and during ``command``.

    The backup's programs run at the nice value of their unit; its server processes cannot.
    """
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'plugins/module_utils'}"}
    tool = [program("pgbench"), "-h", socket, "-U", "postgres"]
    psql = ["psql", "-h", socket, "-U", "postgres", "-qc"]
    for statement in ("DROP DATABASE IF EXISTS app", "CREATE DATABASE app"):
        subprocess.run([*psql, statement, "postgres"], check=True, capture_output=True)
    subprocess.run([*tool, "-i", "-q", "-s", "10", "app"], check=True, capture_output=True)

    def rate(how_long: int = seconds) -> float:
        done = subprocess.run(
            [*tool, "-c", str(CLIENTS), "-j", "2", "-T", str(how_long), "app"],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        return float(re.search(r"tps = ([0-9.]+)", done.stdout)[1])  # type: ignore[index]

    rate(10)
    before = rate()
    over, took = threading.Event(), list[float]()

    def again_and_again() -> None:
        while not over.is_set():
            begun = time.monotonic()
            subprocess.run([*GENTLY, *command], check=True, capture_output=True, env=environment)
            took.append(time.monotonic() - begun)

    worker = threading.Thread(target=again_and_again)
    worker.start()
    try:
        time.sleep(2)
        during = rate()
    finally:
        over.set()
        worker.join()
    after = rate()
    progress(f"pgbench: {before:.0f} before, {during:.0f} during, {after:.0f} after; a backup took {took} s")
    return {
        "before": before, "during": during, "after": after, "alone": (before + after) / 2, "backup_s": max(took, default=0.0),
    }  # fmt: skip


def program(name: str) -> str:
    """One of PostgreSQL's programs, which Debian keeps off the PATH in part."""
    found = shutil.which(name)
    return found or str(max(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3])))
