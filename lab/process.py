# SPDX-License-Identifier: Apache-2.0
"""Running other programs: argv lists, no shell, every exit code looked at."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence

from lab.model import LabError

Completed = subprocess.CompletedProcess[bytes]


def run(
    argv: Sequence[str],
    *,
    stdin: bytes | None = None,
    check: bool = True,
    timeout: float | None = None,
    env: Mapping[str, str] | None = None,
) -> Completed:
    """Run ``argv`` and capture its output.

    Raises :class:`LabError` where the program is missing, takes longer than ``timeout`` seconds,
    or (with ``check``) ends with another code than 0; the message carries its last lines.
    """
    try:
        done = subprocess.run(
            list(argv),
            input=stdin if stdin is not None else b"",
            capture_output=True,
            timeout=timeout,
            env=env,
            check=False,
        )
    except FileNotFoundError:
        raise LabError(f"The program {argv[0]} is not installed", remedy="run bin/setup") from None
    except subprocess.TimeoutExpired:
        raise LabError(f"'{brief(argv)}' did not end within {timeout:.0f} s") from None
    if check and done.returncode:
        raise LabError(f"'{brief(argv)}' ended with code {done.returncode}: {tail(done.stderr or done.stdout)}")
    return done


def output(argv: Sequence[str], *, timeout: float | None = None) -> str:
    """What ``argv`` prints, trimmed."""
    return run(argv, timeout=timeout).stdout.decode(errors="replace").strip()


def brief(argv: Sequence[str], width: int = 100) -> str:
    """A command as one short line for messages."""
    text = " ".join(argv)
    return text if len(text) <= width else text[: width - 3] + "..."


def tail(text: bytes, lines: int = 5) -> str:
    """The last lines of a program's output, joined into one."""
    kept = [line.strip() for line in text.decode(errors="replace").splitlines() if line.strip()]
    return " | ".join(kept[-lines:]) or "(it printed nothing)"


def installed(program: str) -> bool:
    """Whether ``program`` is on the PATH."""
    return shutil.which(program) is not None
