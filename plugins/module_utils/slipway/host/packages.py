# SPDX-License-Identifier: Apache-2.0
"""Debian packages installed in the background: several transactions of apt-get in one unit, each with a mark to wait for.

The unit outlives the connection that started it. Whoever needs the packages of one transaction waits for its mark alone, and
works while dpkg unpacks the next one. Transactions never meet: one unit does them in turn, and dpkg's lock is waited for.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..commands import run
from ..errors import InputError, SlipwayError

FOLDER = Path("/run/slipway-packages")
NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+(=[A-Za-z0-9.+:~-]+)?")
MARK = re.compile(r"[a-z][a-z0-9_]*")
# A new VPS is often busy with its own updates for the first minutes.
LOCK_SECONDS = 600
OPTIONS = (
    "-qq", "--yes", "--no-install-recommends", f"-oDPkg::Lock::Timeout={LOCK_SECONDS}",
    "-oDpkg::Options::=--force-confdef", "-oDpkg::Options::=--force-confold",
)  # fmt: skip


class PackagesError(SlipwayError):
    """Packages were not installed, or not in time."""


@dataclass(frozen=True)
class Batch:
    """One transaction: the ``name`` of its mark, and the packages."""

    name: str
    packages: tuple[str, ...]

    @classmethod
    def parse(cls, raw: dict[str, Any]) -> Batch:
        """From a plain mapping. Raises InputError on what is no name."""
        name, packages = raw["name"], tuple(raw["packages"])
        if not MARK.fullmatch(name):
            raise InputError(f"A transaction cannot be named '{name}'", "small letters, digits and underscores")
        for package in packages:
            if not NAME.fullmatch(package):
                raise InputError(f"There can be no package '{package}'", "the name of a Debian package")
        return cls(name, packages)


def script(batches: Iterable[Batch], folder: Path, *, bare: bool) -> str:
    """The unit's program. ``NAME.code`` gets the exit code of a transaction, ``NAME.log`` what was said.

    ``bare``: nobody uses the host yet, and what a crash would leave of it is made anew. Then dpkg does not wait for the disk
    before each rename (dpkg(1), force-unsafe-io), one sync at the end does; and no daemon is started by its package: its role
    does, once, with its configuration.
    """
    options = [*OPTIONS, *(["-oDpkg::Options::=--force-unsafe-io"] if bare else [])]
    lines = [
        f"cd {shlex.quote(str(folder))} || exit 1",
        f"export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8{' SYSTEMD_OFFLINE=1' if bare else ''}",
        # The mark comes by a rename: whoever sees it sees the whole code.
        'mark() { echo "$2" >"$1.new" && mv "$1.new" "$1.code"; }',
        "batch() {",
        '  name=$1; shift; "$@" >"$name.log" 2>&1; code=$?; mark "$name" "$code"',
        '  [ "$code" = 0 ] || { cp "$name.log" failed.log; exit "$code"; }',
        "}",
        # What an earlier run left half done when it was cut off; apt-get itself refuses to go on from there.
        "dpkg --force-confdef --force-confold --configure -a >configure.log 2>&1",
        # apt-get waits for dpkg's lock by itself, but not for that of the lists.
        "n=0",
        f"until apt-get -qq update >update.log 2>&1 || [ $n -ge {LOCK_SECONDS} ]; do n=$((n+5)); sleep 5; done",
    ]
    for batch in batches:
        lines.append(f"batch {batch.name} {shlex.join(['apt-get', *options, 'install', '--', *batch.packages])}")
    return "\n".join([*lines, *(["sync"] if bare else [])]) + "\n"


def start(batches: Sequence[Batch], *, bare: bool = False, root: Path = FOLDER) -> str:
    """Start the transactions; returns the name of the unit, for `wait`. One that is still at work goes first: its lock is waited for."""
    job = f"slipway-packages-{secrets.token_hex(4)}"
    folder = root / job
    folder.mkdir(mode=0o700, parents=True)
    program = folder / "install"
    program.write_text(script(batches, folder, bare=bare), encoding="utf-8")
    program.chmod(0o600)
    argv = ["systemd-run", "--quiet", "--collect", f"--unit={job}", "--description=Slipway installs packages"]
    # Through sh: Debian's initramfs mounts /run so that nothing in it can be started.
    run([*argv, "--", "/bin/sh", str(program)])
    return job


def wait(job: str, name: str, seconds: float, *, root: Path = FOLDER) -> None:
    """Until the packages of that transaction are there. Raises PackagesError when they will not be."""
    folder = root / job
    code, end = folder / f"{name}.code", time.monotonic() + seconds
    seen_at_work = time.monotonic()
    while not code.exists():
        if (folder / "failed.log").exists():
            break
        if time.monotonic() > end:
            raise PackagesError(
                f"apt-get was still at work on the host after {seconds / 60:.0f} minutes", "",
                f"look there with 'systemctl status {job}' at what it waits for, then run the playbook again",
            )  # fmt: skip
        if time.monotonic() - seen_at_work > 5:
            seen_at_work = time.monotonic()
            if not run(["systemctl", "is-active", "--quiet", job], check=False).ok and not code.exists():
                raise PackagesError(
                    "The installation of packages was cut off on the host", "", "run the playbook again"
                )
        time.sleep(0.2)
    if code.exists() and code.read_text().strip() == "0":
        return
    raise PackagesError(
        f"apt-get could not install packages on the host. Its last words:\n{_tail(folder / 'failed.log')}", "",
        "mend what it names (often the network, or a package source of the host's own), then run the playbook again",
    )  # fmt: skip


def _tail(log: Path) -> str:
    text = log.read_text(encoding="utf-8", errors="replace") if os.path.exists(log) else ""
    return "\n".join(text.strip().splitlines()[-8:]) or "(none)"
