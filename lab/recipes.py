# SPDX-License-Identifier: Apache-2.0
"""What the lab's images are made of. Pure: each recipe has a tag that changes with anything it is made of."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from slipway.errors import UnknownNameError

SUITE = "trixie"
REPOSITORY = "slipway-lab"
_PACKAGES = Path(__file__).resolve().parent / "packages"


def package_list(name: str) -> tuple[str, ...]:
    """The packages named in ``packages/<name>.txt``: one a line, ``#`` starts a comment."""
    lines = (_PACKAGES / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return tuple(word for line in lines if (word := line.partition("#")[0].strip()))


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """An image: bootstrapped (``parent`` empty) or apt packages on top of another recipe's image.

    ``host`` says whether it boots as a lab host; ``setup`` are shell lines run last, as root, inside.
    """

    name: str
    packages: tuple[str, ...]
    parent: str = ""
    variant: str = "apt"
    host: bool = True
    setup: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Twelve hex digits over everything the image is made of, its parents included."""
        parts = [json.dumps(asdict(self), sort_keys=True), SUITE]
        if self.parent:
            parts.append(recipe(self.parent).digest)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]

    @property
    def tag(self) -> str:
        """``slipway-lab/<name>:<digest>``: what hosts are started from."""
        return f"{REPOSITORY}/{self.name}:{self.digest}"

    @property
    def alias(self) -> str:
        """``slipway-lab/<name>:trixie``: the same by a name that stays, for Dockerfiles."""
        return f"{REPOSITORY}/{self.name}:{SUITE}"


_UNBORN = (  # what each host must make for itself
    "rm -f /etc/ssh/ssh_host_*",
    "truncate -s 0 /etc/machine-id",
    "rm -f /var/lib/dbus/machine-id",
)
_CONTAINER = (  # no consoles, no kernel modules of its own
    "systemctl mask getty@tty1.service console-getty.service systemd-modules-load.service",
)

_CEPH = (  # started by lab/files/s3.sh alone, under units of its own
    "systemctl mask ceph.target ceph-mon.target ceph-osd.target ceph-radosgw.target ceph-crash.service",
)
_QUIET = ("systemctl disable docker-registry.service",)  # started once it has its configuration


def recipes() -> dict[str, Recipe]:
    """All recipes by name."""
    bare = Recipe(name="bare", packages=package_list("bare"), setup=_CONTAINER + _UNBORN)
    return {
        r.name: r
        for r in (
            bare,
            Recipe(name="rung0", parent="bare", packages=package_list("rung0"), setup=_UNBORN),
            Recipe(name="services", parent="bare", packages=package_list("services"), setup=(*_QUIET, *_UNBORN)),
            Recipe(name="s3", parent="bare", packages=package_list("s3"), setup=(*_CEPH, *_UNBORN)),
            Recipe(name="python", packages=package_list("python"), variant="minbase", host=False),
        )
    }


def recipe(name: str) -> Recipe:
    """The recipe called ``name``; raises :class:`UnknownNameError`."""
    known = recipes()
    if name not in known:
        raise UnknownNameError("image", name, known)
    return known[name]
