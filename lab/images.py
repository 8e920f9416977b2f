# SPDX-License-Identifier: Apache-2.0
"""Builds the lab's images from Debian's archive; no image registry is involved."""

from __future__ import annotations

import json
import os
import re
import secrets
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lab.keys import locked
from lab.model import LabError, lab_root
from lab.process import as_root, installed, output, run
from lab.recipes import SUITE, Recipe, recipe, recipes

Progress = Callable[[str], None]
_APT_SETTINGS = re.compile(r'^(Acquire::(?:https?::Proxy|Check-Valid-Until|Check-Date)) "([^"]+)";$', re.MULTILINE)
_LOOPBACK = re.compile(r"//(localhost|127\.|\[::1\])")


def sources(host_sources: str, override: str = "") -> list[str]:
    """The one-line apt sources for the images.

    ``override`` (a mirror's address) wins; else the mirror in ``host_sources``, the text of a Debian machine's own
    apt sources; else nothing, and mmdebstrap takes Debian's default.
    """
    mirror, security = override, ""
    for uri, suites in re.findall(r"^deb\s+(?:\[[^]]*\]\s+)?(https?://\S+)\s+(\S+)", host_sources, re.MULTILINE):
        mirror, security = _assign(uri, suites, mirror, security)
    for stanza in re.split(r"\n\s*\n", host_sources):
        uris = re.search(r"^URIs:\s*(https?://\S+)", stanza, re.MULTILINE)
        suites_line = re.search(r"^Suites:\s*(.+)$", stanza, re.MULTILINE)
        if uris and suites_line and re.search(r"^Types:.*\bdeb\b", stanza, re.MULTILINE):
            mirror, security = _assign(uris[1], suites_line[1], mirror, security)
    if not mirror or not (override or security):
        return []
    return [
        f"deb {mirror} {SUITE} main",
        f"deb {mirror} {SUITE}-updates main",
        f"deb {security or 'http://security.debian.org/debian-security'} {SUITE}-security main",
    ]


def _assign(uri: str, suites: str, mirror: str, security: str) -> tuple[str, str]:
    """Sort one archive address into mirror or security archive, the first of each wins."""
    names = suites.split()
    if any(n.endswith("-security") for n in names):
        return mirror, security or uri
    known = ("bookworm", "trixie", "forky", "stable")
    return (mirror or uri, security) if any(n.removesuffix("-updates") in known for n in names) else (mirror, security)


def apt_settings(dump: str) -> list[str]:
    """apt options of this machine that its lab hosts need as well: proxies (none on loopback), validity checks."""
    return [f'{key} "{value}";' for key, value in _APT_SETTINGS.findall(dump) if not _LOOPBACK.search(value)]


def _machine_sources() -> str:
    """apt's sources if this machine is a Debian, else nothing."""
    release = Path("/etc/os-release")
    if not release.exists() or not re.search(r'^ID="?debian"?$', release.read_text(encoding="utf-8"), re.MULTILINE):
        return ""
    folder = Path("/etc/apt/sources.list.d")
    files = [Path("/etc/apt/sources.list"), *sorted(folder.glob("*.sources")), *sorted(folder.glob("*.list"))]
    return "\n\n".join(f.read_text(encoding="utf-8", errors="replace") for f in files if f.exists())


def mmdebstrap_argv(made: Recipe, target: str, mirrors: Sequence[str], settings: Sequence[str]) -> list[str]:
    """The command that bootstraps ``made`` into the tar ``target``."""
    argv = ["mmdebstrap", "--quiet", f"--variant={made.variant}", f"--include={','.join(made.packages)}"]
    argv += [f"--aptopt={line}" for line in settings]
    argv += [f"--customize-hook=chroot \"$1\" sh -ec '{line}'" for line in made.setup]
    return [*argv, SUITE, target, *mirrors]


def layer_script(made: Recipe) -> str:
    """The shell script that turns the parent's image into ``made``."""
    return "\n".join(
        (
            "set -eu",
            "export DEBIAN_FRONTEND=noninteractive",
            "apt-get -qq update",
            "apt-get -qq install --yes --no-install-recommends -o Dpkg::Options::=--force-unsafe-io -o Dpkg::Use-Pty=0 "
            + " ".join(made.packages),
            "apt-get clean",
            "rm -rf /var/lib/apt/lists/*",
            *made.setup,
        )
    )


def exists(tag: str) -> bool:
    """Whether the engine has the image ``tag``."""
    return run(["docker", "image", "inspect", tag], check=False).code == 0


def ensure(name: str, progress: Progress, *, rebuild: bool = False) -> str:
    """The tag of image ``name``, built first where it is missing (its parents too)."""
    made = recipe(name)
    if exists(made.tag) and not rebuild:
        return made.tag
    if made.parent:
        ensure(made.parent, progress)
    with locked(lab_root() / f"image-{name}.lock"):
        if exists(made.tag) and not rebuild:
            return made.tag
        if made.parent:
            progress(f"building image {name} ({len(made.packages)} packages on top of {made.parent})")
            _build_layer(made)
        else:
            progress(f"building image {name} from Debian {SUITE}")
            _bootstrap(made)
        run(["docker", "tag", made.tag, made.alias])
    return made.tag


def _bootstrap(made: Recipe) -> None:
    if not installed("mmdebstrap"):
        raise LabError("The program mmdebstrap is not installed", remedy="run bin/setup")
    command = "/lib/systemd/systemd" if made.host else "/bin/bash"
    settings = apt_settings(output(["apt-config", "dump"])) if installed("apt-config") else []
    mirrors = sources(_machine_sources(), os.environ.get("SLIPWAY_DEBIAN_MIRROR", ""))
    with tempfile.TemporaryDirectory(prefix="slipway-image-", dir=_scratch()) as folder:
        tar = Path(folder) / "root.tar"
        done = run([*as_root(), *mmdebstrap_argv(made, str(tar), mirrors, settings)], check=False)
        if done.code:
            raise LabError(
                f"mmdebstrap could not make image {made.name}: {done.why}",
                "Debian's archive within reach",
                "check the network and apt's proxy, or name a mirror in SLIPWAY_DEBIAN_MIRROR",
            )
        run(["docker", "import", "--change", f'CMD ["{command}"]', str(tar), made.tag])


def _scratch() -> str:
    """Where the tar is put for a moment: mmdebstrap without root needs a folder that others can enter."""
    return os.environ.get("TMPDIR", "/var/tmp")  # noqa: S108 - a private folder is made in it


def _build_layer(made: Recipe) -> None:
    container = f"slipway-lab-build-{made.name}-{secrets.token_hex(4)}"
    parent = recipe(made.parent)
    try:
        done = run(
            ["docker", "run", "--name", container, "--network", "bridge", parent.tag, "sh", "-c", layer_script(made)],
            check=False,
        )
        if done.code:
            raise LabError(
                f"apt could not make image {made.name}: {done.why}",
                "Debian's archive within reach of containers",
                "check the network of this machine's containers",
            )
        run(["docker", "commit", "--change", 'CMD ["/lib/systemd/systemd"]', container, made.tag])
    finally:
        run(["docker", "rm", "--force", "--volumes", container], check=False)


def built() -> list[dict[str, str]]:
    """The lab's images the engine has: ``name``, ``tag``, ``size``, and whether the recipe still makes that one."""
    lines = output(
        ["docker", "images", "--format", "{{.Repository}}:{{.Tag}}\t{{.Size}}", "slipway-lab/*"]
    ).splitlines()
    found = []
    for line in lines:
        tag, size = line.split("\t")
        name, _, version = tag.removeprefix("slipway-lab/").partition(":")
        if version != SUITE:
            current = name in recipes() and recipe(name).tag == tag
            found.append({"name": name, "tag": tag, "size": size, "current": "yes" if current else "no"})
    return found


def built_on(layers: Sequence[str], found: Sequence[dict[str, Any]]) -> list[str]:
    """Ids of the images whose first layers are ``layers`` and that have more (``found``: docker inspect)."""
    return [
        i["Id"]
        for i in found
        if len(i["RootFS"]["Layers"]) > len(layers) and i["RootFS"]["Layers"][: len(layers)] == layers
    ]


def _application_images() -> list[str]:
    """Images that a deploy built on this machine on top of the lab's python image."""
    base = run(["docker", "image", "inspect", recipe("python").tag], check=False)
    ids = output(["docker", "images", "--quiet", "--no-trunc"]).split()
    if base.code or not ids:
        return []
    layers = json.loads(base.out)[0]["RootFS"]["Layers"]
    return built_on(
        layers, json.loads(run(["docker", "image", "inspect", *sorted(set(ids))], check=False).out or b"[]")
    )


def remove_all() -> list[str]:
    """Remove every image of the lab, what was built on them, and the lock files; returns the tags removed.

    Raises :class:`LabError` while a lab host is left, of whatever checkout: it would lose what it was made from.
    """
    left = output(["docker", "ps", "--all", "--filter", "label=dev.slipway.lab", "--format", "{{.Names}}"]).split()
    if left:
        raise LabError(
            f"The images stay, since there are lab hosts: {', '.join(sorted(left))}",
            remedy="take them down with bin/lab down --all, in the checkout they were started from",
        )
    if made := _application_images():
        run(["docker", "rmi", "--force", *made])
    for lock in lab_root().glob("image-*.lock"):
        lock.unlink()
    if lab_root().exists() and not any(lab_root().iterdir()):
        lab_root().rmdir()
    tags = output(["docker", "images", "--format", "{{.Repository}}:{{.Tag}}", "slipway-lab/*"]).splitlines()
    if tags:
        run(["docker", "rmi", "--force", *tags])
    return tags
