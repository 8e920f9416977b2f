# SPDX-License-Identifier: Apache-2.0
"""An app's files on a host: its wish, its state, its releases. Every write is atomic and on disk when it returns."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import shutil
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .. import atomic
from ..errors import SlipwayError
from .spec import COLOURS, Colour, Spec, digest, parse, parse_environment
from .state import Request, State
from .switch import Route

WISHES, STATES = Path("/etc/slipway/apps"), Path("/var/lib/slipway/apps")
KEEP = 5
FIRST_ADDRESS, LAST_ADDRESS = 100, 239
"""Docker hands addresses out from the low end of the network; ours start high, so that they never meet."""


class StateError(SlipwayError):
    """A file of an app is missing or cannot be read."""


@dataclass(frozen=True)
class Release:
    """One release that is kept: what it was made of and when. ``good``: it has served and was not found wanting."""

    id: str
    image: str
    reference: str
    digest: str
    spec_hash: str
    created: float
    operator: str
    revision: str = ""
    good: bool = False


def write(path: Path, text: str, mode: int = 0o600) -> None:
    """Replace a file in one step; it and its name are on disk when this returns."""
    atomic.replace(path, text.encode(), mode)


def release_id(now: float, label: str) -> str:
    """``20260131T120000Z-<label>``: sorts by time, and says what it is of. ``label``: a tag or a short hash."""
    clean = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in label)[:40].strip("-.")
    return datetime.fromtimestamp(int(now), UTC).strftime("%Y%m%dT%H%M%SZ") + (f"-{clean}" if clean else "")


class Store:
    """The files of one app. ``wishes`` and ``states`` are the folders of all apps (tests have their own)."""

    def __init__(self, app: str, wishes: Path = WISHES, states: Path = STATES) -> None:
        self.app = app
        self.wishes, self.states = wishes, states
        self.wish, self.home = wishes / app, states / app
        self.lock = self.home / "lock"
        self.request_file, self.supersede_file = self.home / "request.json", self.home / "supersede"
        self.incoming = self.home / "incoming"

    # -- the wish -----------------------------------------------------------------------------------------------

    def desired(self) -> tuple[Spec, dict[str, str], str]:
        """The spec, the environment and the hash of what Ansible laid down. Raises StateError when it did not."""
        try:
            spec_text = (self.wish / "app.json").read_text(encoding="utf-8")
            env_text = (self.wish / "app.env").read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise StateError(
                f"There is no app {self.app} on this host ({error.filename} is missing)", "", "run site.yml"
            ) from error
        return parse(json.loads(spec_text)), parse_environment(env_text), digest(spec_text, env_text)

    # -- the state ----------------------------------------------------------------------------------------------

    def load(self) -> State:
        """The state; a new one where the app was never deployed. Raises StateError on an unreadable file."""
        path = self.home / "state.json"
        try:
            return State.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return State(self.app)
        except (KeyError, TypeError, ValueError) as error:
            raise StateError(
                f"{path} cannot be read ({error})",
                "the JSON that Slipway wrote",
                f"put it back from a backup, or remove it and the app's containers and run deploy.yml for {self.app}",
            ) from error

    def save(self, state: State) -> None:
        """Write the state."""
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        write(self.home / "state.json", json.dumps(state.to_dict(), indent=1) + "\n")

    # -- the request --------------------------------------------------------------------------------------------

    def request(self) -> Request | None:
        """What was asked for and is not taken up yet."""
        try:
            return Request(**json.loads(self.request_file.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (TypeError, ValueError) as error:
            self.request_file.unlink(missing_ok=True)
            raise StateError(f"{self.request_file} could not be read and was removed", "", "ask again") from error

    def ask(self, request: Request) -> None:
        """Lay a request down for the engine."""
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.supersede_file.unlink(missing_ok=True)
        write(self.request_file, json.dumps(asdict(request)) + "\n")

    def answered(self) -> None:
        """Take the request away; it is in the state now."""
        self.request_file.unlink(missing_ok=True)

    # -- the releases -------------------------------------------------------------------------------------------

    def folder(self, release: str) -> Path:
        """Where a release's files are."""
        return self.home / "releases" / release

    def add(self, release: Release, spec: Spec, env_text: str) -> None:
        """Write down a new release."""
        folder = self.folder(release.id)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write(folder / "app.json", spec.to_json())
        write(folder / "app.env", env_text)
        self.note(release)

    def note(self, release: Release) -> None:
        """Write a release's own record; with it the release exists."""
        write(self.folder(release.id) / "release.json", json.dumps(asdict(release), indent=1) + "\n")

    def get(self, release: str) -> Release:
        """One release. Raises StateError when it is not kept."""
        try:
            raw: dict[str, Any] = json.loads((self.folder(release) / "release.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            kept = ", ".join(item.id for item in self.all()) or "none"
            raise StateError(
                f"{self.app} has no release {release}", f"one of those kept: {kept}", "name one of these"
            ) from None
        return Release(**raw)

    def content(self, release: str) -> tuple[Spec, dict[str, str]]:
        """A release's own spec and environment. Raises StateError when it is not kept."""
        self.get(release)
        folder = self.folder(release)
        text = (folder / "app.env").read_text(encoding="utf-8")
        return parse(json.loads((folder / "app.json").read_text(encoding="utf-8"))), parse_environment(text)

    def all(self) -> list[Release]:
        """Every release that is kept, newest first."""
        found = []
        for path in sorted((self.home / "releases").glob("*/release.json"), reverse=True):
            with contextlib.suppress(ValueError, TypeError):
                found.append(Release(**json.loads(path.read_text(encoding="utf-8"))))
        return found

    def drop(self, release: str) -> None:
        """Remove a release's files; its own record goes first, so that a half-removed one is none."""
        folder = self.folder(release)
        (folder / "release.json").unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)

    # -- addresses and routes -----------------------------------------------------------------------------------

    def neighbours(self) -> Iterator[State]:
        """The states of all apps on this host, this one included; an unreadable one is passed over."""
        for path in sorted(self.states.glob("*/state.json")):
            with contextlib.suppress(StateError):
                yield Store(path.parent.name, self.wishes, self.states).load()

    def addresses(self, spec: Spec) -> dict[Colour, str]:
        """Two addresses that no app of this host has. The caller keeps other deploys of the host away meanwhile."""
        base = ipaddress.IPv4Network(spec.network.subnet).network_address
        taken = {address for state in self.neighbours() for address in state.addresses.values()}
        free = (str(base + offset) for offset in range(FIRST_ADDRESS, LAST_ADDRESS + 1))
        pair = [address for address in free if address not in taken][:2]
        if len(pair) < 2:
            raise StateError("No address is left for another app on this host", "", "move an app to another host")
        return dict(zip(COLOURS, pair, strict=True))

    def route(self, state: State) -> Route | None:
        """Where an app's stable port leads by its state; None before its first deploy."""
        if state.current is None or state.current.colour not in state.addresses:
            return None
        spec, _ = self.content(state.current.release)
        return Route(spec.network.gateway, spec.stable_port, state.addresses[state.current.colour], spec.port)

    def routes(self) -> list[Route]:
        """The whole map of this host, from all apps' states."""
        routes = []
        for state in self.neighbours():
            with contextlib.suppress(StateError):
                route = Store(state.app, self.wishes, self.states).route(state)
                if route:
                    routes.append(route)
        return routes


def is_private(path: Path) -> bool:
    """Whether nobody but root can read a file."""
    return stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
