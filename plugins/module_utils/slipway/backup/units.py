# SPDX-License-Identifier: Apache-2.0
"""From a person at a terminal to the unit that does the work, and back: a request, its journal, its exit code.

The unit has its own user, its credentials and its limits; the person only asks. What is asked goes through a file that
root alone may write, since a unit takes no arguments.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..commands import run
from ..errors import SlipwayError
from .codec import FormatError, parse_json

REQUESTS = Path("/run/slipway/requests")


class UnitError(SlipwayError):
    """The unit is not there, is at work already, or cannot be started by this user."""


class BusyError(UnitError):
    """The unit is at work already."""


def ask(what: str, data: Mapping[str, Any], folder: Path = REQUESTS) -> None:
    """Lay down a request for the unit's next run. Raises UnitError for all but root."""
    path = folder / f"{what}.json"
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        aside = folder / f".{what}.{os.getpid()}"
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644), "w") as file:
            json.dump(dict(data), file)
        aside.chmod(0o644)
        aside.rename(path)
    except OSError as error:
        raise UnitError(f"{path} cannot be written: {error.strerror}", "root", "run it with sudo") from error


def asked(what: str, folder: Path = REQUESTS) -> dict[str, Any]:
    """What was asked for, empty where nothing was. Removed where we may; the unit does it as root after its end.

    Raises FormatError.
    """
    path = folder / f"{what}.json"
    try:
        data = parse_json(path.read_bytes(), str(path))
    except FileNotFoundError:
        return {}
    with contextlib.suppress(OSError):
        path.unlink()
    if not isinstance(data, dict):
        raise FormatError(f"{path} is no request", "an object")
    return data


def shown(unit: str, *names: str) -> dict[str, str]:
    """Properties of a unit, as systemd has them."""
    lines = run(["systemctl", "show", unit, *(f"--property={name}" for name in names)]).stdout.splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def check_idle(unit: str) -> None:
    """Raises BusyError while it is at work, UnitError where it is not installed."""
    found = shown(unit, "ActiveState", "LoadState", "ActiveEnterTimestamp", "InactiveExitTimestamp")
    if found.get("LoadState") != "loaded":
        raise UnitError(f"There is no {unit} on this host", "it", "run site.yml for it; see docs/backups.md")
    if found.get("ActiveState") in ("activating", "active", "deactivating", "reloading"):
        raise BusyError(
            f"{unit} is at work since {found.get('InactiveExitTimestamp', 'a moment ago')}", "one run at a time",
            f"wait for its end: journalctl -fu {unit}",
        )  # fmt: skip


def start(unit: str, *, show: bool) -> int:
    """Start a unit, show its journal until it ends, and give its main process's exit code.

    Ctrl-C stops looking and not the unit. Raises BusyError, UnitError.
    """
    check_idle(unit)
    with _journal(unit, show=show):
        done = subprocess.run(["systemctl", "start", unit], check=False, capture_output=True, text=True)
    found = shown(unit, "ExecMainStatus", "ExecMainCode", "Result")
    code = int(found.get("ExecMainStatus") or 0)
    if done.returncode == 0:
        return code
    if found.get("ExecMainCode") != "1" or code == 0:  # 1: it exited by itself
        words = done.stderr.strip().splitlines()[:1]
        raise UnitError(f"{unit} failed ({found.get('Result', 'unknown')}): {' '.join(words)}", "its run to the end",
                        f"see: journalctl -u {unit}")  # fmt: skip
    return code


@contextlib.contextmanager
def _journal(unit: str, *, show: bool) -> Iterator[None]:
    if not show:
        yield
        return
    argv = ["journalctl", "--unit", unit, "--output=cat", "--follow", "--lines=0"]
    follower = subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        time.sleep(0.2)  # it has to be there before the first line is
        yield
    finally:
        with contextlib.suppress(SlipwayError):
            run(["journalctl", "--sync"], check=False, timeout=10)
        time.sleep(0.3)
        follower.send_signal(signal.SIGTERM)
        follower.wait(5)
