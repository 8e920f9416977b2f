# SPDX-License-Identifier: Apache-2.0
"""What an app's state file holds: which release serves in which colour, and how far the deploy in hand is.

This file is the truth. The switch is a projection of it, and what a crash left behind is judged by it: a deploy is
committed at the moment when ``current`` names the new release, and at no other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from ..errors import SlipwayError
from .spec import COLOURS, Colour

PHASES = ("image", "release_command", "start", "health", "jobs", "switch", "drain", "cleanup", "watch")
"""The phases of a deploy in order; some are skipped, and an app without background jobs has no phase of that name."""
Kind = Literal["deploy", "rollback"]
Status = Literal["running", "done", "failed", "skipped"]
Result = Literal["succeeded", "failed", "rolled_back", "interrupted", "superseded"]
VERSION = 1


class PhaseError(SlipwayError):
    """A phase of a deploy failed; the release that served before still serves."""


@dataclass
class Phase:
    """One phase of a deploy; times in seconds since the epoch, ``ended`` 0 while it runs."""

    name: str
    status: Status = "running"
    started: float = 0
    ended: float = 0
    detail: str = ""


@dataclass
class Record:
    """One deploy or rollback from its request to its end. ``result`` is None while it runs."""

    id: str
    kind: Kind
    operator: str
    release: str
    colour: Colour
    started: float
    from_release: str | None = None
    from_colour: Colour | None = None
    spec_hash: str = ""
    why: str = ""
    phases: list[Phase] = field(default_factory=list)
    result: Result | None = None
    ended: float = 0
    error: dict[str, str] | None = None
    log: list[str] = field(default_factory=list)
    watch_until: float = 0
    watched: dict[str, Any] = field(default_factory=dict)
    undoing: str = ""
    """Release that an automatic rollback is going back to."""

    @property
    def phase(self) -> Phase | None:
        """The phase in hand, or the last one."""
        return self.phases[-1] if self.phases else None

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.result is not None

    def find(self, name: str) -> Phase | None:
        """The last phase of that name, if it was reached."""
        return next((phase for phase in reversed(self.phases) if phase.name == name), None)


@dataclass
class Serving:
    """A release and the colour it serves in."""

    release: str
    colour: Colour
    since: float = 0


@dataclass
class State:
    """Everything that must survive a crash. ``held`` is a wish that was rolled back and is not tried again by itself."""

    app: str
    current: Serving | None = None
    previous: str | None = None
    addresses: dict[str, str] = field(default_factory=dict)
    deploy: Record | None = None
    held: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As plain data, to be written at once: what is nested is not copied, for a deploy writes this at every step."""
        deploy = self.deploy and {**vars(self.deploy), "phases": [vars(each) for each in self.deploy.phases]}
        return {"version": VERSION, **vars(self), "current": self.current and vars(self.current), "deploy": deploy}

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> State:
        """From plain data. Raises KeyError, TypeError or ValueError on anything that :meth:`to_dict` did not write."""
        if not isinstance(raw, dict) or raw.get("version") != VERSION:
            raise ValueError(f"not of version {VERSION}")
        current = Serving(**raw["current"]) if raw["current"] else None
        if current and current.colour not in COLOURS:
            raise ValueError(current.colour)
        deploy = None
        if raw["deploy"]:
            phases = [Phase(**phase) for phase in raw["deploy"]["phases"]]
            deploy = Record(**{**raw["deploy"], "phases": phases})
        return cls(raw["app"], current, raw["previous"], dict(raw["addresses"]), deploy, dict(raw["held"]))


@dataclass(frozen=True)
class Request:
    """What somebody asked for. ``release`` names the one to go back to; empty means the previous good one.

    ``force``: deploy also what already serves.
    """

    id: str
    kind: Kind
    operator: str
    release: str = ""
    revision: str = ""
    run_release_command: bool = True
    watch: bool = True
    force: bool = False
    why: str = ""
