# SPDX-License-Identifier: Apache-2.0
"""Whose hands a climb is in: one run of ``ansible-playbook`` on one machine, told apart from every other, alive or dead.

A climb goes on from where a dead run left it. Two that are alive would both believe that they are the one to go on.
Runs on the operator's machine: Linux or macOS, standard library and ``ps``.
"""

from __future__ import annotations

import hashlib
import socket
import uuid
from dataclasses import dataclass
from pathlib import Path

from ..commands import run

MACHINE_ID = Path("/etc/machine-id")


@dataclass(frozen=True)
class Operator:
    """One run. ``machine``: eight digits that stay with the machine; ``pid`` and ``began``: its process and when that started.

    As text ``<name>/<machine>/<pid>/<began>``: what the host's record keeps.
    """

    name: str
    machine: str
    pid: int
    began: str

    def __str__(self) -> str:
        return f"{self.name}/{self.machine}/{self.pid}/{self.began}"

    @classmethod
    def parse(cls, text: str) -> Operator | None:
        """None for a text that is none, as in records from before there were any."""
        parts = text.split("/")
        if len(parts) != 4 or not parts[2].isdigit():
            return None
        return cls(parts[0], parts[1], int(parts[2]), parts[3])


def this(pid: int) -> Operator:
    """The run whose main process is ``pid``."""
    return Operator(socket.gethostname().partition(".")[0].replace("/", "-"), _machine(), pid, _began(pid))


def alive(text: str) -> bool | None:
    """Whether the run of a record is still at work: None where another machine would have to be asked."""
    found = Operator.parse(text)
    if found is None:
        return False
    if found.machine != _machine():
        return None
    return bool(found.began) and _began(found.pid) == found.began


def _machine() -> str:
    """Hashed, since machine ids are not meant to be told to others (man machine-id)."""
    own = MACHINE_ID.read_text().strip() if MACHINE_ID.exists() else ""
    return hashlib.sha256(f"slipway {own or uuid.getnode()}".encode()).hexdigest()[:8]


def _began(pid: int) -> str:
    """When a process began, in words that no other process of the same number shares; empty for one that is gone."""
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        try:
            # The name, in brackets, can hold anything. Field 22, in clock ticks since boot; 3 is the state.
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            return ""
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
        return "" if fields[0] in "ZX" else f"{boot}.{fields[19]}"
    done = run(["ps", "-o", "lstart=", "-p", str(pid)], check=False)
    return "-".join(done.stdout.split())
