# SPDX-License-Identifier: Apache-2.0
"""Counts remote round trips: every start of ssh, scp or sftp, whoever starts it.

Wrappers stand first on PATH for the one run; so what Ansible sends and what an action plugin sends by itself are
counted alike. Not counted: looking for a feature of ssh, and asking its control socket, neither of which leaves the
machine. A round trip over a connection that is already open still starts an ssh process, so none is missed.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

TOOLS = ("ssh", "scp", "sftp")
WRAPPER = """#!/bin/sh
case " $* " in
  " -o ControlPersist "|*" -O check "*|*" -O stop "*|*" -O exit "*|*" -V "*) ;;
  *) echo {tool} >> "{log}" ;;
esac
exec "{real}" "$@"
"""


@dataclass
class Task:
    """One task's result on one host, as the callback plugin writes it."""

    task: str
    host: str
    status: str
    seconds: float


class Trips:
    """Context manager; give ``environment`` to ansible-playbook inside it, read ``count`` and ``tasks`` after it.

    ``count`` has the round trips by tool, ``tasks`` every task that ran, slowest first.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="trips-")
        self._log, self._times = Path(self._folder.name, "log"), Path(self._folder.name, "tasks")
        self.count: dict[str, int] = {}
        self.tasks: list[Task] = []

    @property
    def total(self) -> int:
        """All round trips."""
        return sum(self.count.values())

    def __enter__(self) -> Trips:
        for tool in TOOLS:
            real = shutil.which(tool)
            if real is None:
                continue
            wrapper = Path(self._folder.name, tool)
            wrapper.write_text(WRAPPER.format(tool=tool, log=self._log, real=real))
            wrapper.chmod(0o755)
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.count = dict(Counter(self._log.read_text().split())) if self._log.exists() else {}
        lines = self._times.read_text().splitlines() if self._times.exists() else []
        self.tasks = sorted((Task(**json.loads(line)) for line in lines), key=lambda one: -one.seconds)
        self._folder.cleanup()

    @property
    def environment(self) -> dict[str, str]:
        """Variables that put the wrappers and the callback plugin to work."""
        return {
            "PATH": f"{self._folder.name}{os.pathsep}{os.environ['PATH']}",
            "ANSIBLE_CALLBACK_PLUGINS": str(Path(__file__).parent / "callback_plugins"),
            "ANSIBLE_CALLBACKS_ENABLED": "task_times",
            "SLIPWAY_TASK_TIMES": str(self._times),
        }
