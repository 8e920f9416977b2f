# SPDX-License-Identifier: Apache-2.0
"""What ``fab init`` asks, how an answer is judged, and how questions are put on a terminal."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from slipway.errors import InputError
from slipway.inventory.rules import check_apps
from slipway.inventory.schema import expected_form
from slipway.inventory.settings import ENVIRONMENTS, TIERS
from slipway.inventory.suggest import closest

NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.:-]*[A-Za-z0-9])?")
# Key files in the order in which ssh itself would try them; the rest follows.
PREFERRED_KEYS = ("id_ed25519.pub", "id_ed25519_sk.pub", "id_rsa.pub")
TIER_MEANING = {
    "startup": "back within 4 h, at most 24 h of data at risk",
    "growth": "back within 1 h, at most 1 h of data at risk",
    "enterprise": "back within 15 min, nothing at risk",
}

DRILLS_MEANING = {
    "here": "on the server, by itself; the key that opens backups is there, sealed, and root there could use it",
    "elsewhere": "on another machine that you add to group drill later; no such key on the server, no proof until then",
}


@dataclass(frozen=True)
class Image:
    """Where the app's image comes from, as in ``slipway_apps``; ``folder`` for build and ship, else name and tag."""

    source: str
    folder: str = ""
    name: str = ""
    tag: str = ""


@dataclass(frozen=True)
class Answers:
    """All that a new inventory needs to know."""

    name: str
    environment: str
    host: str
    domain: str
    email: str
    app: str
    image: Image
    port: int
    health: str
    tier: str
    keys: tuple[str, ...]
    drills: str = "here"


def judge_name(text: str) -> str:
    """An inventory's name. Raises InputError like all judges below."""
    if not NAME.fullmatch(text):
        raise InputError(f"'{text}' cannot name an inventory", "lower-case letters, digits and -, such as production")
    if text in ("example", "lab"):
        raise InputError(f"The name '{text}' is taken by Slipway itself", "a name such as production or staging")
    return text


def judge_host(text: str) -> str:
    """A server's IP address or host name, without user and port."""
    if "@" in text or "/" in text or not HOST.fullmatch(text):
        raise InputError(f"'{text}' is no server", "its IP address or host name alone, such as 203.0.113.7")
    if re.fullmatch(r"[0-9.]+", text) and expected_form("address", text):
        raise InputError(f"'{text}' is no IP address", "four numbers of at most 255, such as 203.0.113.7")
    return text


def judge_form(form: str) -> Callable[[str], str]:
    """A judge for one of the schema's forms."""

    def judge(text: str) -> str:
        expected = expected_form(form, text)
        if expected:
            raise InputError(f"'{text}' is not right here", expected)
        return text

    return judge


def judge_app(text: str) -> str:
    """An app's name, which is also that of its database."""
    text = judge_form("app_name")(text)
    for problem in check_apps([{"name": text}]):
        raise InputError(problem.found, "", problem.remedy)
    return text


def judge_choice(choices: Sequence[str]) -> Callable[[str], str]:
    """A judge for one word of several."""

    def judge(text: str) -> str:
        if text in choices:
            return text
        near = closest(text, choices, cutoff=0.5)
        raise InputError(f"'{text}' is none of {', '.join(choices)}", "", f"write {near}" if near else "")

    return judge


def judge_port(text: str) -> str:
    """A port number as text."""
    if not text.isdigit() or not 1 <= int(text) <= 65535:
        raise InputError(f"'{text}' is no port", "a number from 1 to 65535")
    return text


def parse_image(text: str, source: str = "") -> Image:
    """A folder (built on the server, or here with source ``ship``) or ``name:tag``. Raises InputError."""
    folder = Path(text).expanduser()
    if source not in ("", "build", "ship", "registry"):
        judge_choice(("registry", "build", "ship"))(source)
    if folder.is_dir():
        if not (folder / "Dockerfile").is_file():
            raise InputError(f"{folder} has no Dockerfile", "the folder in which your app's Dockerfile is")
        if source == "registry":
            raise InputError(f"{text} is a folder", "an image such as registry.example.com/notes:1.4.2")
        return Image(source or "build", folder=str(folder.resolve()))
    name, _, tag = text.rpartition(":")
    if not name or "/" in tag:
        missing = text.startswith((".", "/", "~")) or source == "build"
        found = (
            f"There is no folder {text}" if missing else f"'{text}' is neither a folder here nor an image with its tag"
        )
        raise InputError(found, "a folder with a Dockerfile, or an image such as registry.example.com/notes:1.4.2")
    if source == "build":
        raise InputError(f"There is no folder {text}", "the folder with the Dockerfile")
    judge_form("image_name")(name)
    judge_form("image_tag")(tag)
    if tag == "latest":
        raise InputError("The tag 'latest' says nothing about what runs", "a version, such as 1.4.2")
    return Image(source or "registry", name=name, tag=tag)


def exposed_port(image: Image) -> str:
    """The port that the Dockerfile names, else 8000."""
    dockerfile = Path(image.folder) / "Dockerfile"
    if image.folder and dockerfile.is_file():
        found = re.search(r"(?mi)^\s*EXPOSE\s+(\d+)", dockerfile.read_text(encoding="utf-8", errors="replace"))
        if found:
            return found[1]
    return "8000"


def find_keys(ssh_folder: Path | None = None) -> list[tuple[str, str]]:
    """Public keys that a hardened server takes, as (where from, line): files of ~/.ssh, then the agent's."""
    folder = ssh_folder or Path.home() / ".ssh"
    files = sorted(
        folder.glob("*.pub"),
        key=lambda path: (PREFERRED_KEYS.index(path.name) if path.name in PREFERRED_KEYS else 9, path.name),
    )
    found: list[tuple[str, str]] = []
    for path in files:
        lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        if lines and not expected_form("public_key", lines[0]):
            found.append((str(path), lines[0]))
    if ssh_folder is None:
        found.extend(("ssh-agent", line) for line in _agent_keys())
    seen: set[str] = set()
    return [item for item in found if not (item[1].split()[1] in seen or seen.add(item[1].split()[1]))]  # type: ignore[func-returns-value]


def _agent_keys() -> list[str]:
    try:
        done = subprocess.run(["ssh-add", "-L"], check=False, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line for line in done.stdout.splitlines() if not expected_form("public_key", line)]


def read_key(text: str) -> str:
    """A public key given as a file or as its line. Raises InputError, in particular for a private key's file."""
    path = Path(text).expanduser()
    line = text
    if not text.startswith(("ssh-", "sk-")):
        try:
            line = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()[0]
        except (OSError, IndexError):
            raise InputError(f"No public key in {text}", "a .pub file", "make one: ssh-keygen -t ed25519") from None
        if "PRIVATE KEY" in line:
            raise InputError(
                f"{text} is a private key", f"its public half, {text}.pub; the private one stays where it is"
            )
    expected = expected_form("public_key", line)
    if expected:
        kind = line.split(maxsplit=1)[0][:40]
        raise InputError(f"A key of type '{kind}' in {text} is refused by the hardened server", expected)
    return line


def ask(question: str, judge: Callable[[str], str], default: str = "", say: Callable[[str], None] = print) -> str:
    """Put a question until the answer passes its judge. An empty answer takes the default. EOFError ends it all."""
    while True:
        text = input(f"{question}{f' [{default}]' if default else ''}: ").strip() or default
        if not text:
            say("  This one needs an answer.")
            continue
        try:
            return judge(text)
        except InputError as error:
            say(f"  {error}")


JUDGES: dict[str, Callable[[str], str]] = {
    "name": judge_name,
    "host": judge_host,
    "domain": judge_form("domain"),
    "email": judge_form("email"),
    "app": judge_app,
    "port": judge_port,
    "health": judge_form("url_path"),
    "tier": judge_choice(TIERS),
    "drills": judge_choice(tuple(DRILLS_MEANING)),
    "environment": judge_choice(ENVIRONMENTS),
}
