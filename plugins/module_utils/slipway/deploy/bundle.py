# SPDX-License-Identifier: Apache-2.0
"""An application's folder as one archive: what belongs into it (``.dockerignore``), its hash, its stream.

The archive depends on the files' names, content and executable bit alone, never on times or owners: the same folder has
the same hash on every laptop, so that an image's name can be made of it and nothing is built or sent twice.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..errors import InputError

ALWAYS_OUT = (".git",)
"""Left out unless ``.dockerignore`` asks for it with ``!.git``: each commit would otherwise be another image."""


@dataclass(frozen=True)
class Rule:
    """One line of a ``.dockerignore``."""

    pattern: re.Pattern[str]
    keep: bool


def rules(text: str) -> list[Rule]:
    """The lines of a ``.dockerignore`` as rules, in order; the last that matches decides."""
    found = [Rule(_translate(pattern), keep=False) for pattern in ALWAYS_OUT]
    for raw in text.splitlines():
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        keep = line.startswith("!")
        pattern = os.path.normpath(line.lstrip("!").strip()).lstrip("/")
        if pattern and pattern != ".":
            found.append(Rule(_translate(pattern), keep))
    return found


def _translate(pattern: str) -> re.Pattern[str]:
    """Docker's patterns: ``*`` and ``?`` stay within a name, ``**`` crosses folders; what is below a match matches."""
    out, index = "", 0
    while index < len(pattern):
        letter = pattern[index]
        if pattern.startswith("**", index):
            index += 2
            if pattern.startswith("/", index):
                index += 1
                out += "(?:.*/)?"
            else:
                out += ".*"
            continue
        if letter == "*":
            out += "[^/]*"
        elif letter == "?":
            out += "[^/]"
        elif letter == "[" and "]" in pattern[index + 2 :]:
            end = pattern.index("]", index + 2)
            body = pattern[index + 1 : end]
            out += f"[{'^' + body[1:] if body[0] in '^!' else body}]"
            index = end
        elif letter == "\\" and index + 1 < len(pattern):
            index += 1
            out += re.escape(pattern[index])
        else:
            out += re.escape(letter)
        index += 1
    return re.compile(f"{out}(?:/.*)?")


def ignored(path: str, known: Sequence[Rule]) -> bool:
    """Whether ``path`` (relative, with ``/``) stays out."""
    out = False
    for rule in known:
        if rule.pattern.fullmatch(path):
            out = not rule.keep
    return out


def files(folder: Path, dockerfile: str = "Dockerfile") -> Iterator[tuple[str, Path]]:
    """What belongs into the archive: relative names in a stable order, links among them (not followed).

    The Dockerfile always belongs. Raises InputError when the folder or its Dockerfile is missing.
    """
    if not folder.is_dir():
        raise InputError(
            f"There is no folder {folder}", "the application's folder", "correct image.path in slipway_apps"
        )
    if not (folder / dockerfile).is_file():
        raise InputError(
            f"{folder} has no {dockerfile}", "a Dockerfile in it", "write one, or name it with image.dockerfile"
        )
    text = ""
    for name in (f"{dockerfile}.dockerignore", ".dockerignore"):
        if (folder / name).is_file():
            text = (folder / name).read_text(encoding="utf-8", errors="replace")
            break
    known = rules(text)
    any_kept = any(rule.keep for rule in known)
    for base, folders, names in os.walk(folder):
        relative = Path(base).relative_to(folder)
        inside = [] if relative == Path() else [relative.as_posix()]
        links = [name for name in folders if (Path(base) / name).is_symlink()]
        if not any_kept:  # with a ! rule something below an ignored folder may still belong
            folders[:] = [name for name in folders if not ignored("/".join([*inside, name]), known)]
        folders.sort()
        for name in sorted([*names, *links]):
            path = "/".join([*inside, name])
            if path == str(PurePosixPath(dockerfile)) or not ignored(path, known):
                yield path, Path(base) / name


def digest(folder: Path, dockerfile: str, args: dict[str, str], target: str) -> str:
    """SHA-256 of everything a build depends on, 64 hexadecimal digits."""
    whole = hashlib.sha256()
    for name, path in files(folder, dockerfile):
        if path.is_symlink():
            part = "link " + str(path.readlink())
        elif path.is_file():
            part = ("x " if path.stat().st_mode & 0o100 else "f ") + hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            continue  # sockets and the like
        whole.update(f"{name}\0{part}\n".encode())
    whole.update(repr((dockerfile, sorted(args.items()), target)).encode())
    return whole.hexdigest()


def pack(folder: Path, target: Path, dockerfile: str = "Dockerfile") -> int:
    """Write the archive (tar, gzip) to ``target``; its size in bytes."""
    with (
        target.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", compresslevel=3, fileobj=raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, path in files(folder, dockerfile):
            _add(archive, name, path)
    return target.stat().st_size


def _add(archive: tarfile.TarFile, name: str, path: Path) -> None:
    info = tarfile.TarInfo(name)
    if path.is_symlink():
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, str(path.readlink()), 0o777
        archive.addfile(info)
    elif path.is_file():
        data = path.read_bytes()
        info.size, info.mode = len(data), 0o755 if path.stat().st_mode & 0o100 else 0o644
        archive.addfile(info, io.BytesIO(data))
