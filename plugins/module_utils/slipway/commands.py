# SPDX-License-Identifier: Apache-2.0
"""Running a program: argv lists only, no shell, every exit code looked at."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from .errors import SlipwayError


@dataclass(frozen=True)
class Outcome:
    """What a finished program left: its argv, exit code, and both outputs as text."""

    argv: tuple[str, ...]
    code: int
    stdout: str
    stderr: str

    @property
    def ok(self) -> bool:
        """Whether the exit code was 0."""
        return self.code == 0

    @property
    def said(self) -> str:
        """The program's own words on what went wrong: stderr, else stdout, trimmed to the last 20 lines."""
        text = self.stderr.strip() or self.stdout.strip()
        return "\n".join(text.splitlines()[-20:])


class CommandError(SlipwayError):
    """A program ended with a non-zero exit code, could not be started, or took too long."""


def run(
    argv: Sequence[str],
    *,
    check: bool = True,
    timeout: float | None = 120,
    stdin: str | None = None,
    env: dict[str, str] | None = None,
) -> Outcome:
    """Run ``argv`` and return its :class:`Outcome`; C locale, so that messages can be read by us.

    ``timeout`` is in seconds. Raises CommandError when the program is missing, exceeds the timeout, or (with
    ``check``) ends with a non-zero code. Never pass a secret in ``argv``: it shows in the process list.
    """
    environment = {**os.environ, "LC_ALL": "C.UTF-8", **(env or {})}
    try:
        done = subprocess.run(
            list(argv), check=False, capture_output=True, text=True, errors="replace", timeout=timeout,
            input=stdin, env=environment,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise CommandError(f"The program {argv[0]} is not installed", "it on the PATH") from error
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"{' '.join(argv)} did not end within {timeout} s") from error
    outcome = Outcome(tuple(argv), done.returncode, done.stdout, done.stderr)
    if check and not outcome.ok:
        raise CommandError(f"{' '.join(argv)} ended with code {outcome.code}: {outcome.said or 'no output'}")
    return outcome
