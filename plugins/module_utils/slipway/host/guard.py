# SPDX-License-Identifier: Apache-2.0
"""The dead-man guard: a change that could lock the operator out undoes itself unless it is confirmed.

``arm`` saves the old files and starts a timer on the host *before* anything lands. When nobody confirms in time (or the
host reboots meanwhile) a shell script that needs nothing but util-linux puts the files back and runs the commands that
make them count. ``confirm`` comes over a *new* SSH connection, which proves that one can still be opened.

One lock (``flock`` on ``<root>/.lock``, the same in Python and in the script) decides between a confirmation and a restore
that meet: whoever takes it first wins, the other finds the guard disarmed and does nothing.

What is on disk, under ``/var/lib/slipway/guard`` (root only)::

    .lock
    NAME/armed          the guard is pending while this exists
    NAME/state.json     what was saved, when, for how long
    NAME/files/N        the old content, with owner and mode
    NAME/restore        the script; argument 'timer', or 'boot' and then 'late'
    NAME/restored.json  the report left by a restore, told to the operator by the next run
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .. import atomic
from ..errors import InputError, SlipwayError
from .guard_script import Saved, boot_units, reloads_systemd, restore_script, restore_steps, timer_argv

ROOT = Path("/var/lib/slipway/guard")
UNIT_DIR = Path("/etc/systemd/system")
BOOT_UNITS = {"sysinit.target": "slipway-guard-boot.service", "multi-user.target": "slipway-guard-late.service"}
SECONDS = range(5, 3601)

Runner = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]


class GuardError(SlipwayError):
    """The guard could not be armed or disarmed; nothing was changed under its protection."""


class GuardFiredError(SlipwayError):
    """A confirmation came after the host had put the old state back."""


class GuardStaleConnectionError(SlipwayError):
    """A confirmation came over a connection older than the change: it proves nothing."""


@dataclass(frozen=True)
class Report:
    """What a restore did: ``by`` is timer or boot, ``failed`` the steps that did not work, in words."""

    name: str
    armed_at: str
    restored_at: str
    by: str
    paths: tuple[str, ...]
    failed: tuple[str, ...]

    def sentence(self) -> str:
        """The report as one message for the operator."""
        why = (
            "the host was rebooted before anyone confirmed it"
            if self.by == "boot"
            else "no new connection confirmed it in time"
        )
        text = (
            f"The change to '{self.name}' made at {self.armed_at} was undone by the host at {self.restored_at}, because {why}. "
            f"Put back: {', '.join(self.paths)}."
        )
        if self.failed:
            text += f" What failed meanwhile: {'; '.join(self.failed)}."
        return text


@dataclass(frozen=True)
class Armed:
    """A pending guard."""

    name: str
    armed_at: str
    seconds: int
    paths: tuple[str, ...] = ()


def run_command(argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Runs ``argv`` without a shell; the caller looks at the exit code."""
    return subprocess.run(list(argv), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


def check_name(name: str) -> str:
    """``name`` if it may be part of a path and of a unit name; else raises :class:`InputError`."""
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name):
        raise InputError(
            f"'{name}' is no name for a guard",
            "lower-case letters, digits and underscores, a letter first, at most 40",
            "rename the guard",
        )
    return name


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    root.chmod(0o700)
    with (root / ".lock").open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _write(path: Path, text: str, mode: int = 0o600) -> None:
    atomic.replace(path, text.encode(), mode)


def _save(path: str, copy: int, files: Path) -> Saved:
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return Saved(path, "absent")
    mode = stat.S_IMODE(found.st_mode)
    if stat.S_ISDIR(found.st_mode):
        return Saved(path, "directory", -1, mode, found.st_uid, found.st_gid)
    target = files / str(copy)
    target.unlink(missing_ok=True)
    shutil.copy2(path, target, follow_symlinks=False)
    os.chown(target, found.st_uid, found.st_gid, follow_symlinks=False)
    if stat.S_ISLNK(found.st_mode):
        return Saved(path, "link", copy, mode, found.st_uid, found.st_gid)
    target.chmod(mode)
    return Saved(path, "file", copy, mode, found.st_uid, found.st_gid)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return data if isinstance(data, dict) else {}


def _report(directory: Path) -> Report | None:
    told, state = _read_json(directory / "restored.json"), _read_json(directory / "state.json")
    if not told:
        return None
    words = state.get("steps", [])
    return Report(
        directory.name,
        state.get("armed_at", "an unknown time"),
        told["restored_at"],
        told["by"],
        tuple(s["path"] for s in state.get("saved", [])),
        tuple(words[n] if n < len(words) else f"step {n}" for n in told["failed"]),
    )


def arm(
    name: str,
    paths: Sequence[str],
    restore_commands: Sequence[Sequence[str]] = (),
    seconds: int = 60,
    *,
    root: Path = ROOT,
    unit_dir: Path = UNIT_DIR,
    run: Runner = run_command,
) -> Armed:
    """Saves the state of ``paths`` and starts the timer; call it before anything lands.

    After ``seconds`` without :func:`confirm` the files are put back and ``restore_commands`` (argv lists) run, in order.
    When the guard is still pending from a run that broke off, the state saved then is kept (it is the last one known
    to work), paths new to it are added, and the time starts again. Raises :class:`InputError` and :class:`GuardError`.
    """
    check_name(name)
    if seconds not in SECONDS:
        raise InputError(f"A guard of {seconds} seconds", f"{SECONDS.start} to {SECONDS.stop - 1}", "set guard_seconds")
    directory = root / name
    files = directory / "files"
    with _locked(root):
        state = _read_json(directory / "state.json") if (directory / "armed").exists() else {}
        if not state:
            shutil.rmtree(directory, ignore_errors=True)
        files.mkdir(parents=True, exist_ok=True, mode=0o700)
        directory.chmod(0o700)
        saved = [Saved(**item) for item in state.get("saved", [])]
        known = {item.path for item in saved}
        for path in paths:
            if path not in known:
                saved.append(_save(path, len(saved), files))
                known.add(path)
        commands = [list(argv) for argv in state.get("commands", [])]
        commands += [list(argv) for argv in restore_commands if list(argv) not in commands]
        armed_at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        steps = [words for words, _ in restore_steps(saved, files)]
        if reloads_systemd(saved):
            steps.append("reload systemd")
        steps += [shlex.join(argv) for argv in commands]
        new_state = {
            "armed_at": armed_at,
            "armed_boottime": time.clock_gettime(time.CLOCK_BOOTTIME),
            "seconds": seconds,
            "saved": [vars(item) for item in saved],
            "commands": commands,
            "steps": steps,
        }
        _write(directory / "state.json", json.dumps(new_state, indent=1))
        _write(directory / "restore", restore_script(name, armed_at, saved, commands, root), 0o700)
        # No daemon-reload: systemd has to know these units at the next boot only.
        for target, text in boot_units(root).items():
            link = unit_dir / f"{target}.wants" / BOOT_UNITS[target]
            link.parent.mkdir(parents=True, exist_ok=True)
            _write(unit_dir / BOOT_UNITS[target], text, 0o644)
            link.unlink(missing_ok=True)
            link.symlink_to(unit_dir / BOOT_UNITS[target])
        _write(directory / "armed", armed_at + "\n")
        run(["systemctl", "stop", f"slipway-guard-{name}.timer"])  # exit 5 where none runs: the usual case
        started = run(timer_argv(name, seconds, directory / "restore"))
        if started.returncode != 0:
            (directory / "armed").unlink()
            _clear_boot_units(root, unit_dir)
            raise GuardError(
                f"The guard for '{name}' did not start: {started.stderr.strip() or started.stdout.strip()}",
                "a host that runs systemd, with systemd-run",
                "look at 'systemctl status' on the host; nothing was changed",
            )
    return Armed(name, armed_at, seconds, tuple(s.path for s in saved))


def _clear_boot_units(root: Path, unit_dir: Path) -> None:
    if not any(root.glob("*/armed")):
        for target, unit in BOOT_UNITS.items():
            (unit_dir / f"{target}.wants" / unit).unlink(missing_ok=True)
            (unit_dir / unit).unlink(missing_ok=True)


def disarm(name: str, *, root: Path = ROOT, unit_dir: Path = UNIT_DIR, run: Runner = run_command) -> bool:
    """Ends the guard without a confirmation, for callers that have put the old state back themselves. True if one was pending."""
    directory = root / check_name(name)
    with _locked(root):
        if not (directory / "armed").exists():
            return False
        (directory / "armed").unlink()
        _clear_boot_units(root, unit_dir)
        shutil.rmtree(directory)
    # After the lock: a restore script that waits for it must be able to go on and find the guard gone.
    run(["systemctl", "stop", f"slipway-guard-{name}.timer"])
    return True


def confirm(
    name: str,
    connection_since: float | None = None,
    *,
    root: Path = ROOT,
    unit_dir: Path = UNIT_DIR,
    run: Runner = run_command,
) -> bool:
    """Ends the guard: the change stays. True if one was pending, False if there was nothing to confirm.

    ``connection_since``: when the SSH connection in use was opened, in seconds since boot (:func:`connection_since`);
    one older than the guard proves nothing and raises :class:`GuardStaleConnectionError`. None skips that check
    (no SSH in use). Raises :class:`GuardFiredError` once when the host has put the old state back.
    """
    directory = root / check_name(name)
    with _locked(root):
        pending_state = _read_json(directory / "state.json") if (directory / "armed").exists() else {}
        report = _report(directory)
        if not pending_state and report:
            shutil.rmtree(directory)
            _clear_boot_units(root, unit_dir)
    if report and not pending_state:
        raise GuardFiredError(
            report.sentence(),
            "a new connection within the time of the guard",
            "correct the settings that closed the door (or make the guard's time longer on a slow link), then run the playbook again",
        )
    if pending_state and connection_since is not None and connection_since < pending_state["armed_boottime"]:
        raise GuardStaleConnectionError(
            f"The connection that confirms '{name}' is older than the change",
            "a connection opened after it",
            "run guard_confirm after 'meta: reset_connection' or with ControlPath=none",
        )
    return disarm(name, root=root, unit_dir=unit_dir, run=run)


def take_report(name: str, *, root: Path = ROOT, unit_dir: Path = UNIT_DIR) -> Report | None:
    """The report of a restore that nobody was told of yet, once; the operator is told by whoever takes it."""
    directory = root / check_name(name)
    if not (directory / "restored.json").exists():
        return None
    with _locked(root):
        report = _report(directory)
        if (directory / "armed").exists() or (directory / "late").exists():
            return None
        shutil.rmtree(directory, ignore_errors=True)
        _clear_boot_units(root, unit_dir)
    return report


def is_pending(name: str, *, root: Path = ROOT) -> bool:
    """Whether the guard waits for its confirmation."""
    return (root / check_name(name) / "armed").exists()


def pending(*, root: Path = ROOT) -> list[dict[str, Any]]:
    """Every guard that waits (state ``armed``) or has fired and was not told yet (state ``restored``), as plain data."""
    found: list[dict[str, Any]] = []
    for directory in sorted(p for p in root.glob("*") if p.is_dir()):
        state, report = _read_json(directory / "state.json"), _report(directory)
        if (directory / "armed").exists():
            found.append(
                {"name": directory.name, "state": "armed", "message": "", "armed_at": state.get("armed_at", "")}
            )
        elif report:
            found.append(
                {"name": directory.name, "state": "restored", "message": report.sentence(), "armed_at": report.armed_at}
            )
    return found


def connection_since(pid: int | None = None, proc: Path = Path("/proc")) -> float | None:
    """When the SSH connection that this process lives in was opened, in seconds since boot; None outside SSH.

    Walks up to the outermost ``sshd`` below the listener: with connection sharing that is the shared connection.
    """
    ticks = os.sysconf("SC_CLK_TCK")
    current, found = pid or os.getpid(), None
    while current > 1:
        try:
            text = (proc / str(current) / "stat").read_text()
        except OSError:
            break
        name, rest = text[text.index("(") + 1 : text.rindex(")")], text[text.rindex(")") + 2 :].split()
        parent, started = int(rest[1]), int(rest[19]) / ticks
        # The listener is a child of PID 1 and older than any connection; everything sshd below it belongs to one.
        if name.startswith("sshd") and parent > 1:
            found = started
        current = parent
    return found
