# SPDX-License-Identifier: Apache-2.0
"""Programs joined by pipes, under supervision: every exit code looked at, the output hashed and counted on its way.

A shell pipeline reports its last program only: with ``pg_dump | zstd | age`` a killed pg_dump gives a short, well-formed
archive and exit code 0. Here a run is good only when every program ended with 0 *and* something came out.

No data is held beyond one chunk; what takes the chunks (an upload) sets the rest of the memory.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO

from ..errors import SlipwayError

CHUNK = 1024 * 1024
_TAIL = 8192  # bytes of a program's stderr that are kept: the end, where the reason is
_PATIENCE = 5.0  # seconds from SIGTERM to SIGKILL


class PipelineError(SlipwayError):
    """A program of a pipeline failed, was killed, took too long or gave nothing. ``culprit``: its stage's name."""

    def __init__(self, found: str, expected: str = "", remedy: str = "", *, culprit: str = "") -> None:
        super().__init__(found, expected, remedy)
        self.culprit = culprit


@dataclass(frozen=True)
class Stage:
    """One program. ``env`` is added to the environment (never put a secret in ``argv``)."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Flow:
    """What came out of the last program: bytes, their SHA-256, seconds, and what each program said on stderr."""

    size: int
    sha256: str
    seconds: float
    said: Mapping[str, str]


class _Running:
    """A started program: its process, the end of its stderr, and when it ended."""

    def __init__(self, stage: Stage, stdin: IO[bytes] | int) -> None:
        self.stage = stage
        self.ended = 0.0
        self.stopped = False  # by us, so its exit code says nothing
        self.tail = b""
        environment = {**os.environ, "LC_ALL": "C.UTF-8", **stage.env}
        try:
            self.process = subprocess.Popen(
                list(stage.argv), stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment,
                start_new_session=True,  # its children end with it, and a Ctrl-C at a terminal reaches us alone
            )  # fmt: skip
        except OSError as error:
            raise PipelineError(
                f"{stage.argv[0]} could not be started: {error.strerror}", "it installed and on the PATH",
                culprit=stage.name,
            ) from error  # fmt: skip
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._listen, self._wait)]
        for thread in self._threads:
            thread.start()

    def _listen(self) -> None:
        assert self.process.stderr is not None  # noqa: S101 - asked for as a pipe
        with self.process.stderr as pipe:  # closed here: closing it elsewhere would wait for this very read
            while chunk := os.read(pipe.fileno(), _TAIL):
                self.tail = (self.tail + chunk)[-_TAIL:]

    def _wait(self) -> None:
        self.process.wait()
        self.ended = time.monotonic()

    @property
    def words(self) -> str:
        """The end of what it said on stderr, on one line."""
        return " ".join(self.tail.decode(errors="replace").split())

    def settle(self, timeout: float) -> bool:
        """Wait for its end and its last words; whether it ended in time."""
        for thread in reversed(self._threads):
            thread.join(max(0.0, timeout))
        return self.ended > 0

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to it and its children; nothing happens if they are gone."""
        if not self.ended:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, number)

    def failure(self) -> str:
        """Why it failed, in words; empty if it did not."""
        code = self.process.returncode
        if code == 0:
            return ""
        how = f"was killed by {_signal_name(-code)}" if code is not None and code < 0 else f"ended with code {code}"
        return f"{self.stage.name} {how}" + (f": {self.words}" if self.words else "")

    @property
    def followed(self) -> bool:
        """Whether it failed only because its reader was gone (141: the same through a shell)."""
        return self.process.returncode in (-signal.SIGPIPE, 128 + signal.SIGPIPE) or "broken pipe" in self.words.lower()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def run(
    stages: Sequence[Stage],
    sink: Callable[[bytes], object] | None = None,
    *,
    source: Iterable[bytes] | None = None,
    timeout: float | None = None,
    may_be_empty: bool = False,
    hashed: bool = True,
    chunk: int = CHUNK,
    watch: Callable[[], object] | None = None,
) -> Flow:
    """Run ``stages``, each one's output into the next, and give the last one's output to ``sink`` chunk by chunk.

    ``source``: chunks for the first program's input (else it has none). ``timeout``: seconds for the whole. The caller
    makes what ``sink`` collected valid (completes the upload, renames the file) only after this has returned.

    ``hashed``: False where the sink hashes by itself, as an upload does: ``Flow.sha256`` is then empty. ``watch``: called
    at least twice a second; what it raises ends the run, also while no byte comes.

    Raises PipelineError as soon as any program fails, naming the one at fault with its own words; whatever ``sink``
    or ``source`` raise passes through. In every such case all programs are gone when this returns.
    """
    started = time.monotonic()
    deadline = None if timeout is None else started + timeout
    running: list[_Running] = []
    feeder: _Feeder | None = None
    try:
        previous: IO[bytes] | int = subprocess.DEVNULL if source is None else subprocess.PIPE
        for stage in stages:
            running.append(_Running(stage, previous))
            if not isinstance(previous, int):
                previous.close()  # ours: otherwise the program before would never see its reader gone
            previous = _widen(running[-1].process.stdout)
        if source is not None and running[0].process.stdin is not None:
            feeder = _Feeder(source, running[0].process.stdin)
        size, digest = _drain(running, sink, deadline, chunk=chunk, hashed=hashed, watch=watch)
        _settle(running, deadline, watch)
        if feeder is not None:
            feeder.finish()
    except BaseException as error:
        _stop(running)
        if feeder is not None and feeder.finish(quietly=True) and isinstance(error, PipelineError):
            raise feeder.error or error from error  # the source broke off; that its reader then failed is a consequence
        raise
    finally:
        for each in running:
            if each.process.stdout is not None:
                each.process.stdout.close()
    if size == 0 and not may_be_empty:
        raise PipelineError(f"{stages[-1].name} ended without an error and without any output", "some data")
    said = {each.stage.name: each.words for each in running if each.words}
    return Flow(size, digest, time.monotonic() - started, said)


def _widen(pipe: IO[bytes] | None) -> IO[bytes]:
    """The pipe with room for a whole chunk: sixteen times fewer switches between programs. Refused is no error."""
    assert pipe is not None  # noqa: S101 - asked for as a pipe
    with contextlib.suppress(OSError):
        fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, CHUNK)
    return pipe


class _Feeder:
    """Writes the source into the first program from a thread of its own; an error there ends the run."""

    def __init__(self, source: Iterable[bytes], pipe: IO[bytes]) -> None:
        self._source, self._pipe = source, pipe
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._feed, daemon=True)
        self._thread.start()

    def _feed(self) -> None:
        try:
            for piece in self._source:
                self._pipe.write(piece)
        except BrokenPipeError:
            pass  # the program ended early; its exit code tells why
        except BaseException as error:  # handed to the caller's thread
            self.error = error
        finally:
            with contextlib.suppress(OSError):
                self._pipe.close()

    def finish(self, *, quietly: bool = False) -> bool:
        """Wait for the thread; whether the source failed, which is raised here unless ``quietly``."""
        self._thread.join(_PATIENCE if quietly else None)
        if self.error is not None and not quietly:
            raise self.error
        return self.error is not None


def _drain(
    running: Sequence[_Running],
    sink: Callable[[bytes], object] | None,
    deadline: float | None,
    *,
    chunk: int,
    hashed: bool,
    watch: Callable[[], object] | None,
) -> tuple[int, str]:
    """Read the last program's output to its end; (bytes, SHA-256 if ``hashed``). Raises as soon as any program has failed."""
    pipe = running[-1].process.stdout
    assert pipe is not None  # noqa: S101 - asked for as a pipe
    digest, size = hashlib.sha256(), 0
    poll = select.poll()
    poll.register(pipe.fileno(), select.POLLIN | select.POLLHUP)
    while True:
        _check(running, deadline)
        if watch is not None:
            watch()
        if not poll.poll(500):
            continue
        piece = os.read(pipe.fileno(), chunk)
        if not piece:
            return size, digest.hexdigest() if hashed else ""
        if hashed:
            digest.update(piece)
        size += len(piece)
        if sink is not None:
            sink(piece)


def _check(running: Sequence[_Running], deadline: float | None) -> None:
    """Raise if a program has failed by now or time is up; a failure downstream is left to show its cause first."""
    if any(each.ended and each.process.returncode != 0 for each in running):
        _stop(running, gently=True)
        raise _verdict(running)
    if deadline is not None and time.monotonic() > deadline:
        names = ", ".join(each.stage.name for each in running if not each.ended) or running[-1].stage.name
        raise PipelineError(
            f"{names} still ran when the time allowed was over", "the end within the maximum duration",
            "raise the limit, or see what slows it down", culprit=running[0].stage.name,
        )  # fmt: skip


def _settle(running: Sequence[_Running], deadline: float | None, watch: Callable[[], object] | None) -> None:
    """Wait until every program has ended; output at its end means nothing yet."""
    while not all(each.settle(0.5) for each in running):
        _check(running, deadline)
        if watch is not None:
            watch()
    if any(each.failure() for each in running):
        raise _verdict(running)


def _verdict(running: Sequence[_Running]) -> PipelineError:
    """The error that names the program at fault, then the others.

    A failure travels down a pipe as an early end of input, which can make any program further down fail; it travels up
    only as a broken pipe, which is recognised. So the one at fault is the first in the pipeline that failed for another
    reason. (Not the first in time: programs next to each other end within microseconds.)
    """
    failed = [each for each in running if each.ended and each.failure() and not each.stopped]
    own = [each for each in failed if not each.followed]
    first = own[0] if own else failed[-1]
    others = [each.failure() for each in failed if each is not first]
    text = first.failure() + (f" (and then {'; '.join(others)})" if others else "")
    return PipelineError(text, "every program of the pipeline to end with code 0", culprit=first.stage.name)


def _stop(running: Sequence[_Running], *, gently: bool = False) -> None:
    """End what still runs: SIGTERM, then SIGKILL. ``gently``: first a moment to fail by themselves and say why."""
    if gently:
        for each in running:
            each.settle(0.2)
    for each in running:
        if not each.ended:
            each.stopped = True
            each.signal(signal.SIGTERM)
    limit = time.monotonic() + _PATIENCE
    for each in running:
        if not each.settle(limit - time.monotonic()):
            each.signal(signal.SIGKILL)
            each.settle(_PATIENCE)
