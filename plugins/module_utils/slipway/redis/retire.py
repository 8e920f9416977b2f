# SPDX-License-Identifier: Apache-2.0
"""Servers of Redis that nobody wishes for any more: stopped, their data kept until somebody releases it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..backup.config import METRICS
from ..commands import run
from ..host import systemd
from .server import DATA, KNOWN, MANAGED, SETTINGS, UNITS


@dataclass(frozen=True)
class Leftover:
    """One server that is not wished for: whether it is still set up, and the folder that its data is in, if any."""

    name: str
    set_up: bool
    folder: Path | None

    @property
    def unit(self) -> str:
        """Its systemd unit."""
        return f"redis-server@{self.name}.service"


def leftovers(wished: Iterable[str], settings: Path = Path(SETTINGS), data: Path = Path(DATA)) -> list[Leftover]:
    """Servers of ours that are set up or have data, without those wished for."""
    keep = set(wished)
    ours = {
        path.name.removeprefix("redis-").removesuffix(".conf")
        for path in settings.glob("redis-*.conf")
        if path.read_text(encoding="utf-8", errors="replace").startswith(MANAGED)
    }
    folders = {path.name: path for path in data.glob("*-*") if path.is_dir() and _is_a_servers(path.name)}
    names = sorted((ours | set(folders)) - keep)
    return [Leftover(name, name in ours, folders.get(name)) for name in names]


def _is_a_servers(name: str) -> bool:
    return name.rpartition("-")[2] in ("cache", "queue")


def files_of(name: str) -> list[Path]:
    """What set the server up, in the order in which it goes."""
    unit = Path(UNITS) / f"redis-server@{name}.service.d"
    return [
        unit / "10-slipway.conf",
        unit,
        Path(SETTINGS) / f"redis-{name}.conf",
        Path(SETTINGS) / f"slipway-{name}.acl",
    ]


SHARED = (
    Path(UNITS) / "slipway-redis.timer",
    Path(UNITS) / "slipway-redis.service",
    Path(KNOWN),
    METRICS / "redis.prom",
)
"""What looks at the servers' numbers: goes with the last of them."""


def retire(found: Iterable[Leftover], *, keep: int, release: bool, dry_run: bool = False) -> list[str]:
    """Stop and unset what is set up; with ``release`` the data goes too. ``keep``: servers that stay.

    What was done, or would be, as sentences.
    """
    told = []
    found = list(found)
    running = [one for one in found if one.set_up]
    for one in running:
        told.append(f"{one.name}: stopped" + (", its data kept" if one.folder and not release else ""))
    if running and not dry_run:
        states = systemd.show(one.unit for one in running)
        wishes = [systemd.UnitSpec(one.unit, enabled=False, state="stopped", missing_ok=True) for one in running]
        systemd.apply([step for wish in wishes for step in systemd.plan(wish, states[wish.name])], daemon_reload=False)
        for one in running:
            for path in files_of(one.name):
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
        run(["systemctl", "daemon-reload"])
    shared = [path for path in SHARED if path.exists()] if not keep else []
    if shared:
        told.append("no server is left to look at")
        for path in () if dry_run else shared:
            path.unlink()
    for one in found:
        if release and one.folder:
            told.append(f"{one.name}: its data deleted")
            if not dry_run:
                shutil.rmtree(one.folder)
    return told
