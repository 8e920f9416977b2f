# SPDX-License-Identifier: Apache-2.0
"""Starting a unit for a person and following it to its end: the work goes on when the person's connection ends."""

from __future__ import annotations

import argparse
import json
import os
import pwd
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..commands import run
from ..errors import BusyError, SlipwayError
from ..host.following import REQUESTS

GOOD, FAILED, BUSY = 0, 1, 3


class UnitError(SlipwayError):
    """A unit could not be started."""


def login() -> str:
    """Who is behind this process: the name before sudo, else the user's own."""
    return os.environ.get("SUDO_USER") or pwd.getpwuid(os.getuid()).pw_name


def verb(verbs: Any, name: str, text: str, config: Path) -> argparse.ArgumentParser:
    """A verb of a command of ours, with the options that all of them take; ``config``: the file of its settings."""
    made: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=text)
    made.add_argument("--json", action="store_true", help="for programs")
    made.add_argument("--config", type=Path, default=config, help=argparse.SUPPRESS)
    return made


def told(work: Callable[[], int], *, as_json: bool) -> int:
    """What ``work`` returns; what is wrong as one message and an exit code: 1, or 3 where another is at work.

    PermissionError passes through: the command has words of its own for it.
    """
    try:
        return work()
    except SlipwayError as error:
        code = BUSY if isinstance(error, BusyError) else FAILED
        if as_json:
            answer = {"result": "busy" if code == BUSY else "failed", **error.to_dict(), "reason": str(error)}
            print(json.dumps(answer))
        print(f"slipway: {error}", file=sys.stderr)
        return code
    except PermissionError:
        raise
    except OSError as error:
        print(f"slipway: {error.filename or 'a file'}: {error.strerror}.", file=sys.stderr)
        return FAILED


def check_idle(unit: str, what: str) -> None:
    """Raises BusyError while the unit is at work: it would take no other request."""
    if active(unit):
        raise BusyError(f"{what} is at work already", "one at a time", f"follow it: journalctl -fu {unit}")


def asked(what: str, folder: Path = REQUESTS) -> dict[str, Any]:
    """What a person asked of the unit that this process is; empty for the timer. The unit's end removes it.

    Raises UnitError for a request that is there and cannot be read: doing something else instead would be worse.
    """
    if "INVOCATION_ID" not in os.environ:
        return {}
    path = folder / f"{what}.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UnitError(f"The request {path} cannot be read: {error}", "what root asked for", "ask again") from error
    return found if isinstance(found, dict) else {}


def active(unit: str) -> bool:
    """Whether the unit is at work."""
    return run(["systemctl", "is-active", unit], check=False).stdout.strip() in ("active", "activating", "deactivating")


def follow(unit: str, say: Callable[[bytes], object] | None = None) -> int:
    """Start the unit, or join it while it runs, and show its journal until it ends; its exit code.

    Raises UnitError where it cannot be started. Ctrl-C ends the looking, not the unit.
    """
    started = run(["systemctl", "start", "--no-block", unit], check=False)
    if not started.ok:
        raise UnitError(
            f"{unit} cannot be started: {started.said}", "backups set up on this host", "run site.yml first"
        )
    seen = _state(unit)
    for _ in range(50):
        if seen.get("InvocationID") and seen["ActiveState"] != "inactive":
            break
        time.sleep(0.1)
        seen = _state(unit)
    journal = subprocess.Popen(
        ["journalctl", "--follow", "--output=cat", "--lines=all", f"_SYSTEMD_INVOCATION_ID={seen.get('InvocationID', '')}"],
        stdout=None if say is None else subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while _state(unit)["ActiveState"] in ("activating", "active", "deactivating", "reloading"):
            time.sleep(0.3)
        time.sleep(0.5)  # the journal's last lines are on their way
    finally:
        journal.terminate()
        journal.wait()
    ended = _state(unit)
    if ended["Result"] == "success":
        return 0
    return int(ended["ExecMainStatus"] or 1) if ended["Result"] == "exit-code" else 1


def _state(unit: str) -> dict[str, str]:
    said = run(["systemctl", "show", "-p", "ActiveState,Result,ExecMainStatus,InvocationID", unit]).stdout
    pairs = (line.partition("=") for line in said.splitlines())
    return {"ActiveState": "inactive", "Result": "", "ExecMainStatus": "", **{name: value for name, _, value in pairs}}
