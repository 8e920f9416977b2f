# SPDX-License-Identifier: Apache-2.0
"""A load run in a process of its own, while the caller deploys."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType

from .model import Report
from .runner import Plan
from .target import Target

REPO = Path(__file__).resolve().parents[2]
START_SECONDS = 30.0
STOP_SECONDS = 120.0


def arguments(target: Target, plan: Plan, output: Path) -> list[str]:
    """Command line of ``python -m tests.load`` for a plan."""
    argv = [sys.executable, "-m", "tests.load", target.url, "--json", str(output)]
    if target.address:
        argv += ["--address", target.address]
    if target.ca:
        argv += ["--ca", target.ca]
    argv += ["--seconds", "0" if plan.seconds is None else f"{plan.seconds:g}"]
    for name in ("rate", "posts", "connections", "h2_connections", "slow_every", "slow_seconds", "websockets"):
        argv += [f"--{name.replace('_', '-')}", f"{getattr(plan, name):g}"]
    return [*argv, "--protocols", ",".join(plan.protocols)]


class BackgroundLoad:
    """Context manager: load from entering (the client is up by then) until `stop` (or leaving); the report is in ``report`` after that.

        with BackgroundLoad(target, Plan(seconds=None)) as load:
            deploy()
        assert load.report.clean

    Its own process, so that neither side steals the other's time; stopped by SIGINT, and waits for what is in flight.
    """

    def __init__(self, target: Target, plan: Plan) -> None:
        self._target, self._plan = target, plan
        self._folder = tempfile.TemporaryDirectory(prefix="load-")
        self._output = Path(self._folder.name, "report.json")
        self._errors = Path(self._folder.name, "errors")
        self._process: subprocess.Popen[bytes] | None = None
        self._report: Report | None = None

    @property
    def report(self) -> Report:
        """The finished run's report."""
        if self._report is None:
            raise RuntimeError("the load is still running: call stop() first")
        return self._report

    def __enter__(self) -> BackgroundLoad:
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                arguments(self._target, self._plan, self._output), cwd=REPO, stdout=subprocess.DEVNULL, stderr=errors
            )
        self._wait_until_running()
        return self

    def _wait_until_running(self) -> None:
        # Until it handles SIGINT it cannot be stopped in good order.
        deadline = time.monotonic() + START_SECONDS
        while not Path(f"{self._output}.started").exists():
            if self._process is None or self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the load client did not start: {self._errors.read_text()[-2000:]}")
            time.sleep(0.05)

    def stop(self) -> Report:
        """End the run and return its report; `RuntimeError` with the client's own words when it has none."""
        if self._report is None and self._process is not None:
            if self._process.poll() is None:
                self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            if not self._output.exists():
                raise RuntimeError(f"the load client left no report: {self._errors.read_text()[-2000:]}")
            self._report = Report.from_json(self._output.read_text())
        return self.report

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        try:
            self.stop()
        except RuntimeError:
            # The caller's own error is the more interesting one.
            if kind is None:
                raise
        finally:
            self._folder.cleanup()
