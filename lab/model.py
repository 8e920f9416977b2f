# SPDX-License-Identifier: Apache-2.0
"""What the lab is made of: hosts as asked for, hosts as they run, and where a lab keeps its files."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from slipway.errors import InputError, SlipwayError

REPO = Path(__file__).resolve().parent.parent
DEFAULT_LAB = "lab"
SERVICES_HOST = "acme"
"""The host that runs the ACME server and the registry; see :mod:`lab.services`."""
OWN_IMAGES = ("services", "s3")
"""Hosts of these images serve the others; they are no part of the system under test."""
DOMAIN = "lab.test"
"""Names below it are the lab's own (.test is reserved for this by RFC 2606)."""

_NAME = re.compile(r"[a-z][a-z0-9-]{0,29}")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", re.IGNORECASE)
_MB = {"k": 1 / 1024, "": 1, "m": 1, "g": 1024, "t": 1024 * 1024}


class LabError(SlipwayError):
    """The lab cannot do what was asked; the message says why and what mends it."""


@dataclass(frozen=True, kw_only=True)
class HostSpec:
    """A host as asked for. Sizes in MB; ``aliases`` are further names its neighbours resolve."""

    name: str
    image: str = "bare"
    ram_mb: int = 2048
    cores: int = 2
    disk_mb: int = 40960
    aliases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_name("host", self.name)


@dataclass(frozen=True, kw_only=True)
class Host:
    """A host as it is: ``state`` is ``running``, ``stopped`` or what else the driver calls it."""

    lab: str
    name: str
    id: str
    image: str
    state: str
    ip: str
    ip6: str = ""
    ram_mb: int = 0
    cores: int = 0
    aliases: tuple[str, ...] = field(default=())

    @property
    def running(self) -> bool:
        """Whether it can be reached at all."""
        return self.state == "running"

    def to_dict(self) -> dict[str, object]:
        """Plain data for ``--json``."""
        return {
            "lab": self.lab,
            "name": self.name,
            "state": self.state,
            "ip": self.ip,
            "ip6": self.ip6,
            "image": self.image,
            "ram_mb": self.ram_mb,
            "cores": self.cores,
            "aliases": list(self.aliases),
        }


@dataclass(frozen=True)
class Lab:
    """One lab: its name, and the folder its keys and known hosts live in."""

    name: str = DEFAULT_LAB

    def __post_init__(self) -> None:
        check_name("lab", self.name)

    @property
    def folder(self) -> Path:
        """``.lab/<name>`` in the checkout, or below ``$SLIPWAY_LAB_DIR``."""
        return lab_root() / self.name

    @property
    def key(self) -> Path:
        """The private key that opens root on every host of this lab."""
        return self.folder / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        """Host keys of this lab's hosts, so that connections are checked as for a real server."""
        return self.folder / "known_hosts"

    @property
    def ssh_config(self) -> Path:
        """For ``ssh -F``: every host of the lab by name."""
        return self.folder / "ssh_config"

    @property
    def ca(self) -> Path:
        """Roots of the lab's certificate authority, once a services host runs."""
        return self.folder / "ca.pem"


def lab_root() -> Path:
    """The folder that holds all labs' files."""
    return Path(os.environ.get("SLIPWAY_LAB_DIR") or REPO / ".lab")


def check_name(what: str, name: str) -> str:
    """``name`` if it can be a host name label; raises :class:`InputError`."""
    if not _NAME.fullmatch(name):
        raise InputError(
            f"'{name}' is no name for a {what}",
            "a lower-case letter, then letters, digits and hyphens, 30 at most",
            f"choose another {what} name",
        )
    return name


def parse_size(text: str) -> int:
    """MB of ``2g``, ``512m``, ``1.5G`` or a plain number of MB; raises :class:`InputError`."""
    match = _SIZE.fullmatch(text.strip())
    mb = int(float(match[1]) * _MB[match[2].lower()]) if match else 0
    if mb < 1:
        raise InputError(f"'{text}' is no size", "a number with a unit, such as 512m or 2g")
    return mb
