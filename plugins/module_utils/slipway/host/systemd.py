# SPDX-License-Identifier: Apache-2.0
"""Systemd units, many at a time: what they are, what they should be, and the few calls in between."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..commands import run
from ..errors import InputError, SlipwayError

# Where unit files lie that systemd has to read again after a change.
UNIT_FOLDERS = ("/etc/systemd/", "/usr/local/lib/systemd/")
PROPERTIES = ("Id", "Names", "LoadState", "ActiveState", "UnitFileState", "Type", "RemainAfterExit")


class UnitError(SlipwayError):
    """A unit is missing, or did not start, stop or reload."""


@dataclass(frozen=True)
class UnitSpec:
    """The wish for one unit. None means: leave as it is."""

    name: str
    enabled: bool | None = None
    state: Literal["started", "stopped"] | None = None
    masked: bool | None = None
    restart: bool = False
    reload: bool = False
    missing_ok: bool = False

    @classmethod
    def parse(cls, raw: dict[str, Any], changed: Iterable[str] = ()) -> UnitSpec:
        """From a plain mapping. Raises InputError on a name without a type suffix.

        ``changed``: paths that ``restart_on`` and ``reload_on`` are held against.
        """
        name = raw["name"]
        if "." not in name:
            raise InputError(f"The unit name '{name}' has no type", "a full name such as ssh.service")
        known = {key: raw[key] for key in cls.__dataclass_fields__ if raw.get(key) is not None}
        paths = list(changed)
        for verb in ("restart", "reload"):
            known[verb] = bool(known.get(verb)) or touched(raw.get(f"{verb}_on") or (), paths)
        return cls(**known)


def touched(watched: Iterable[str], changed: Iterable[str]) -> bool:
    """Whether a changed path is one of those watched; one that ends with a slash stands for all below it."""
    exact = set(watched)
    folders = tuple(path for path in exact if path.endswith("/"))
    return any(path in exact or path.startswith(folders) for path in changed)


def reread(changed: Iterable[str]) -> bool:
    """Whether systemd has to read its files again after these paths changed."""
    return touched(UNIT_FOLDERS, changed)


@dataclass(frozen=True)
class UnitFound:
    """What systemd says of a unit: load, active and unit file state, service type, whether a oneshot remains active."""

    load: str = "not-found"
    active: str = "inactive"
    file: str = ""
    type: str = ""
    remains: bool = False

    @property
    def running(self) -> bool:
        """Whether it is up or on its way there."""
        return self.active in ("active", "activating", "reloading")


def parse_show(text: str) -> dict[str, UnitFound]:
    """``systemctl show`` of several units (blocks parted by an empty line) as unit name -> found."""
    units: dict[str, UnitFound] = {}
    for block in text.split("\n\n"):
        fields = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        found = UnitFound(
            fields.get("LoadState", "not-found"), fields.get("ActiveState", "inactive"),
            fields.get("UnitFileState", ""), fields.get("Type", ""), fields.get("RemainAfterExit") == "yes",
        )  # fmt: skip
        for name in {fields.get("Id", ""), *fields.get("Names", "").split()} - {""}:
            units[name] = found
    return units


def show(names: Iterable[str]) -> dict[str, UnitFound]:
    """What systemd says of the units now, in one call."""
    wanted = sorted(set(names))
    if not wanted:
        return {}
    outcome = run(["systemctl", "show", f"--property={','.join(PROPERTIES)}", "--", *wanted])
    found = parse_show(outcome.stdout)
    return {name: found.get(name, UnitFound()) for name in wanted}


@dataclass(frozen=True)
class Step:
    """One systemctl verb for one unit."""

    verb: Literal["mask", "unmask", "enable", "disable", "start", "stop", "restart", "reload"]
    unit: str

    def __str__(self) -> str:
        return f"{self.verb} {self.unit}"


def plan(spec: UnitSpec, found: UnitFound) -> list[Step]:
    """The steps from what is found to what is wished, in order; empty when all is as wished.

    A missing unit that shall be off is as wished when ``missing_ok``; anything else wished of a missing unit
    is planned as if it were stopped and disabled (its package may come with the same run).
    """
    missing = found.load == "not-found"
    if missing and spec.missing_ok and not spec.masked:
        return []
    is_masked = found.load == "masked"
    steps: list[Step] = []
    if spec.masked is False and is_masked:
        steps.append(Step("unmask", spec.name))
    if spec.enabled is True and found.file not in ("enabled", "static", "alias", "indirect", "generated", "linked"):
        steps.append(Step("enable", spec.name))
    if spec.enabled is False and found.file in ("enabled", "enabled-runtime", "linked") and not is_masked:
        steps.append(Step("disable", spec.name))
    if spec.state == "stopped" and found.running:
        steps.append(Step("stop", spec.name))
    elif spec.state == "started" and not found.running:
        # A oneshot without RemainAfterExit rests at inactive once it has done its work: only a restart runs it again.
        rests = found.type == "oneshot" and not found.remains and found.active == "inactive" and not missing
        if not rests or spec.restart:
            steps.append(Step("start", spec.name))
    elif found.running and spec.restart:
        steps.append(Step("restart", spec.name))
    elif found.running and spec.reload:
        steps.append(Step("reload", spec.name))
    if spec.masked is True and not is_masked:
        steps.append(Step("mask", spec.name))
    return steps


def apply(steps: Sequence[Step], *, daemon_reload: bool) -> None:
    """Carry the steps out, neighbours of the same verb in one call: systemd starts side by side what needs no order.

    Raises UnitError with the journal's last lines.
    """
    if daemon_reload:
        run(["systemctl", "daemon-reload"])
    for verb in ("unmask", "enable", "disable"):
        names = [step.unit for step in steps if step.verb == verb]
        if names:
            _systemctl(verb, names)
    running = [step for step in steps if step.verb in ("start", "stop", "restart", "reload")]
    for verb, group in itertools.groupby(running, key=lambda step: step.verb):
        _systemctl(verb, [step.unit for step in group])
    masked = [step.unit for step in steps if step.verb == "mask"]
    if masked:
        _systemctl("mask", masked)


def take_back(steps: Sequence[Step], found: dict[str, UnitFound]) -> None:
    """After the files of failed steps were put back: what ran before runs again, as it was. Never raises."""
    run(["systemctl", "daemon-reload"], check=False)
    turned = {step.unit for step in steps if step.verb in ("start", "stop", "restart", "reload")}
    for name in sorted(turned):
        before = found.get(name, UnitFound()).running
        run(["systemctl", "restart" if before else "stop", "--", name], check=False, timeout=300)
    new = sorted({step.unit for step in steps if step.verb == "enable"})
    if new:
        run(["systemctl", "disable", "--", *new], check=False)


def _systemctl(verb: str, names: list[str]) -> None:
    outcome = run(["systemctl", verb, "--", *names], check=False, timeout=300)
    if outcome.ok:
        return
    tail = run(
        ["journalctl", "--no-pager", "--output=cat", "--lines=12", *(f"--unit={name}" for name in names)], check=False
    )
    raise UnitError(
        f"systemctl {verb} {' '.join(names)} failed: {outcome.said.splitlines()[0] if outcome.said else 'no reason given'}\n"
        f"Last lines of its log:\n{tail.stdout.strip() or '(none)'}",
        "",
        f"look at 'systemctl status {names[0]}' on the host, then run the playbook again",
    )
