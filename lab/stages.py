# SPDX-License-Identifier: Apache-2.0
"""Stages of a longer work, shown while they run: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from lab.model import LabError
from lab.ui import colourful, paint

_TASK = re.compile(r"^(?:TASK|RUNNING HANDLER) \[(.+?)\] \**$")
_RECAP = re.compile(r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)")
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


def clock(seconds: float) -> str:
    """``4.2 s`` below a minute, ``1 min 23 s`` above."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


@dataclass
class Stage:
    """One stage: what it does and, once over, its seconds and a word on the outcome."""

    title: str
    seconds: float = 0.0
    outcome: str = ""


class Stages:
    """Runs stages one after the other and remembers what each took."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.done: list[Stage] = []
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._colour = colourful(self._stream)
        self._detail = self._step = ""
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def stage(self, title: str) -> Iterator[Stage]:
        """Show ``title`` while the block runs, then how long it took (or that it failed)."""
        stage = Stage(title)
        started = time.monotonic()
        over = threading.Event()
        self._detail = self._step = ""
        spinner = threading.Thread(target=self._spin, args=(stage, started, over), daemon=True)
        if self._live:
            spinner.start()
        else:
            self._print(f"... {title}")
        good = False
        try:
            yield stage
            good = True
        finally:
            over.set()
            if self._live:
                spinner.join()
            stage.seconds = time.monotonic() - started
            self.done.append(stage)
            mark = paint("✓", "green", on=self._colour) if good else paint("✗", "red", on=self._colour)
            outcome = paint(f"  {stage.outcome}", "dim", on=self._colour) if stage.outcome else ""
            self._print(f" {mark} {title:<44} {clock(stage.seconds):>12}{outcome}")

    def detail(self, text: str, step: str = "") -> None:
        """What the running stage is at: part of the live line, else a line whenever another ``step`` begins."""
        step = step or text
        with self._lock:
            again, self._detail, self._step = step == self._step, text, step
        if not self._live and not again:
            self._print(f"      {step}")

    def _spin(self, stage: Stage, started: float, over: threading.Event) -> None:
        turn = 0
        while not over.wait(0.2):
            turn += 1
            with self._lock:
                detail = self._detail
            width = os.get_terminal_size(self._stream.fileno()).columns or 80
            line = f" {_SPINNER[turn % len(_SPINNER)]} {stage.title}  {clock(time.monotonic() - started)}  {detail}"
            self._stream.write("\r\033[K" + line[: max(width - 1, 20)])
            self._stream.flush()
        self._stream.write("\r\033[K")

    def _print(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


@dataclass
class PlaybookRun:
    """How a playbook ended: exit code and the counts of its recap, summed over hosts."""

    code: int
    ok: int = 0
    changed: int = 0
    failed: int = 0
    errors: list[str] = field(default_factory=list)


def read_line(run: PlaybookRun, line: str) -> str | None:
    """Take one line of ansible-playbook's output into ``run``; returns ``role: task`` where a task begins (short, for people)."""
    if match := _TASK.match(line):
        role, _, task = match[1].removeprefix("slipway.vps.").partition(" : ")
        if task.startswith("Validating arguments against arg spec"):
            task = "Check its arguments"
        return f"{role}: {task}" if task else role
    if match := _RECAP.match(line):
        run.ok += int(match[2])
        run.changed += int(match[3])
        run.failed += int(match[4]) + int(match[5])
    elif line.startswith(("[ERROR]", "fatal:", "ERROR!")):
        run.errors.append(line.strip())
    return None


def play(argv: Sequence[str], *, cwd: Path, log: Path, env: Mapping[str, str], stages: Stages) -> PlaybookRun:
    """Run a playbook, its tasks shown as details, its whole output in ``log``.

    A Ctrl-C reaches it as well, and it gets ten seconds to end. Raises :class:`LabError` where it cannot start.
    """
    run = PlaybookRun(code=0)
    with log.open("w", encoding="utf-8") as record:
        try:
            process = subprocess.Popen(
                list(argv),
                cwd=cwd,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
            )
        except (FileNotFoundError, PermissionError):
            raise LabError(f"The program {argv[0]} is not installed", remedy="run bin/setup") from None
        assert process.stdout  # noqa: S101 - for the type checker: it is a pipe
        try:
            for line in process.stdout:
                record.write(line)
                record.flush()
                if task := read_line(run, line):
                    role, colon, _ = task.partition(": ")
                    stages.detail(task, role if colon else "playbook")
        except KeyboardInterrupt:
            process.send_signal(signal.SIGTERM)
            raise
        finally:
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
    run.code = process.returncode
    return run
