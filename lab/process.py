# SPDX-License-Identifier: Apache-2.0
"""Running other programs: argv lists, no shell, every exit code looked at."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lab.model import LabError


@dataclass(frozen=True)
class Completed:
    """How a program ended: its exit code, and what it printed as bytes (``out``, ``err``) or text."""

    code: int
    out: bytes = b""
    err: bytes = b""

    @property
    def stdout(self) -> str:
        """Standard output as text."""
        return self.out.decode(errors="replace")

    @property
    def stderr(self) -> str:
        """Standard error as text."""
        return self.err.decode(errors="replace")

    @property
    def why(self) -> str:
        """The last lines it printed, on standard error if any, as one line for a message."""
        return tail(self.stderr) or tail(self.stdout) or "it printed nothing"


def run(
    argv: Sequence[str],
    *,
    stdin: bytes = b"",
    check: bool = True,
    timeout: float | None = None,
    env: Mapping[str, str] | None = None,
) -> Completed:
    """Run ``argv`` and capture its output.

    Raises :class:`LabError` where the program is missing, takes longer than ``timeout`` seconds,
    or (with ``check``) ends with another code than 0; the message carries its last lines.
    """
    try:
        raw = subprocess.run(list(argv), input=stdin, capture_output=True, timeout=timeout, env=env, check=False)
    except (FileNotFoundError, PermissionError):
        raise LabError(f"The program {argv[0]} is not installed", remedy="run bin/setup") from None
    except subprocess.TimeoutExpired:
        raise LabError(f"'{brief(argv)}' did not end within {timeout:.0f} s") from None
    done = Completed(raw.returncode, raw.stdout, raw.stderr)
    if check and done.code:
        raise LabError(f"'{brief(argv)}' ended with code {done.code}: {done.why}")
    return done


def output(argv: Sequence[str], *, timeout: float | None = None) -> str:
    """What ``argv`` prints, trimmed."""
    return run(argv, timeout=timeout).stdout.strip()


def brief(argv: Sequence[str], width: int = 100) -> str:
    """A command as one short line for messages."""
    text = " ".join(argv)
    return text if len(text) <= width else text[: width - 3] + "..."


def tail(text: str, lines: int = 5) -> str:
    """The last lines of a program's output, joined into one."""
    return " | ".join([line.strip() for line in text.splitlines() if line.strip()][-lines:])


def installed(program: str) -> bool:
    """Whether ``program`` is on the PATH."""
    return shutil.which(program) is not None


def as_root() -> list[str]:
    """What to put before a command that needs root: nothing for root, sudo where it asks for no password now.

    Otherwise nothing as well: mmdebstrap can do without, and what cannot says so itself.
    """
    if os.geteuid() == 0 or not installed("sudo"):
        return []
    return ["sudo", "-n"] if run(["sudo", "-n", "true"], check=False).code == 0 else []
