# SPDX-License-Identifier: Apache-2.0
"""A unit that does one piece of work, started and followed from afar, look by look: a lost connection costs only a look."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import atomic
from ..commands import run
from ..errors import SlipwayError

REQUESTS = Path("/run/slipway/requests")
BUSY_STATES = ("activating", "active", "deactivating", "reloading")
START_SECONDS = 30
_LOOK_AGAIN = 0.5


class WorkError(SlipwayError):
    """The unit is not there, is at work already, or could not be started."""


@dataclass(frozen=True)
class Look:
    """What is new since the last look: lines of its journal, where they end, and how it ended (``code`` -1 while it runs).

    ``result`` is systemd's word for the end: success, exit-code, signal, oom-kill, timeout ...
    """

    lines: tuple[str, ...]
    cursor: str
    running: bool
    result: str = ""
    code: int = -1


def start(unit: str, what: str, request: Mapping[str, Any], folder: Path = REQUESTS) -> str:
    """Lay down the request ``what`` and start the unit in the background; the id of this run. Raises WorkError."""
    found = _show(unit)
    if found.get("LoadState") != "loaded":
        raise WorkError(
            f"There is no {unit} on this host", "a host that site.yml has set up for it", "run playbooks/site.yml"
        )
    if _running(found):
        raise WorkError(
            f"{unit} is at work already", "one run at a time", f"wait for its end: journalctl --follow --unit {unit}"
        )
    ask(what, request, folder)
    run(["systemctl", "start", "--no-block", "--", unit])
    return _begun(unit, found)


def ask(what: str, request: Mapping[str, Any], folder: Path = REQUESTS) -> None:
    """Lay down what the unit is to do; by root, who alone may start it. Raises WorkError."""
    path = folder / f"{what}.json"
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        atomic.replace(path, json.dumps(dict(request)).encode(), 0o644, durable=False)
    except OSError as error:
        raise WorkError(f"{path} cannot be written: {error.strerror}", "root", f"sudo slipway {what} ...") from error


def start_command(unit: str, argv: Sequence[str]) -> str:
    """Run a command as a unit made for it, so that it outlives the connection; the id of this run. Raises WorkError."""
    found = _show(unit)
    if _running(found):
        raise WorkError(
            f"{unit} is at work already", "one run at a time", f"wait for its end: journalctl --follow --unit {unit}"
        )
    run(["systemctl", "stop", "--", unit], check=False)
    run(["systemctl", "reset-failed", "--", unit], check=False)
    # It remains when it is over, or systemd would forget at once how it ended.
    run(
        [
            "systemd-run",
            "--quiet",
            "--no-block",
            f"--unit={unit}",
            "--property=Type=oneshot",
            "--remain-after-exit",
            "--",
            *argv,
        ]
    )
    return _begun(unit, found)


def _begun(unit: str, before: Mapping[str, str]) -> str:
    """The id of the run that was just asked for: systemd gives it one when its turn comes, which need not be now.

    Raises WorkError where that takes long.
    """
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        invocation = _show(unit).get("InvocationID", "")
        if invocation not in ("", before.get("InvocationID")):
            return invocation
        time.sleep(0.1)
    raise WorkError(
        f"{unit} did not start within {START_SECONDS} s",
        "a host that is not overloaded",
        f"see: systemctl status {unit}",
    )


def _running(found: Mapping[str, str]) -> bool:
    return found.get("ActiveState") in BUSY_STATES and found.get("SubState") != "exited"


def look(unit: str, invocation: str, cursor: str, seconds: float) -> Look:
    """Wait until there is something new of that run, or ``seconds`` are over."""
    until = time.monotonic() + seconds
    while True:
        found = _show(unit)
        running = found.get("InvocationID") == invocation and _running(found)
        if not running:
            run(["journalctl", "--sync"], check=False)
        lines, end = read_journal(_journal(invocation, cursor))
        if lines or not running or time.monotonic() >= until:
            break
        time.sleep(_LOOK_AGAIN)
    if running:
        return Look(lines, end or cursor, True)
    if found.get("InvocationID") != invocation:
        return Look(lines, end or cursor, False, "another run has begun since")
    return Look(lines, end or cursor, False, found.get("Result", ""), int(found.get("ExecMainStatus") or 0))


def read_journal(text: str) -> tuple[tuple[str, ...], str]:
    """(What the unit's own processes said, the cursor behind the last line) from ``journalctl --output=json``. Pure."""
    lines: list[str] = []
    cursor = ""
    for row in text.splitlines():
        entry = json.loads(row)
        cursor = entry.get("__CURSOR", cursor)
        said = entry.get("MESSAGE")
        if isinstance(said, list):  # not UTF-8: journald gives the bytes
            said = bytes(said).decode("utf-8", "replace")
        if said and entry.get("_COMM") != "systemd" and entry.get("SYSLOG_IDENTIFIER") != "systemd":
            lines.append(str(said))
    return tuple(lines), cursor


def _journal(invocation: str, cursor: str) -> str:
    after = [f"--after-cursor={cursor}"] if cursor else []
    fields = "--output-fields=MESSAGE,_COMM,SYSLOG_IDENTIFIER"
    argv = [
        "journalctl",
        "--no-pager",
        "--quiet",
        "--output=json",
        fields,
        *after,
        f"_SYSTEMD_INVOCATION_ID={invocation}",
    ]
    return run(argv, check=False).stdout


def _show(unit: str) -> dict[str, str]:
    names = "ActiveState,SubState,LoadState,Result,ExecMainStatus,InvocationID"
    text = run(["systemctl", "show", f"--property={names}", "--", unit]).stdout
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
