# SPDX-License-Identifier: Apache-2.0
"""The library as it is installed on a server: packed on the control node, unpacked beside what runs, then linked to.

A version's folder is named after its content, so a running engine keeps the files it was started with.
"""

from __future__ import annotations

import base64
import compileall
import hashlib
import io
import lzma
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from .errors import SlipwayError

HOME, COMMAND = Path("/usr/lib/slipway"), Path("/usr/local/sbin/slipway")
KEEP = 2
SCRIPT = """\
#!/usr/bin/python3 -I
# Managed by Slipway (role agent): changes made here are overwritten.
import os
import sys

sys.path.insert(0, os.path.realpath("{home}/current"))
from slipway.cli import main

sys.exit(main())
"""


class AgentError(SlipwayError):
    """The library could not be installed."""


def read(package: Path) -> dict[str, bytes]:
    """The files of a package folder: name below it -> content, Python sources only."""
    return {
        path.relative_to(package).as_posix(): path.read_bytes()
        for path in sorted(package.rglob("*.py"))
        if "__pycache__" not in path.parts
    }


def version(files: Mapping[str, bytes]) -> str:
    """What identifies the files: the first 12 digits of a SHA-256 over names and content."""
    whole = hashlib.sha256()
    for name in sorted(files):
        whole.update(f"{name}\0{hashlib.sha256(files[name]).hexdigest()}\n".encode())
    return whole.hexdigest()[:12]


def pack(files: Mapping[str, bytes]) -> str:
    """The files as one text that a module takes as a parameter (tar, xz, base64)."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for name in sorted(files):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(files[name]), 0o644
            archive.addfile(info, io.BytesIO(files[name]))
    return base64.b64encode(lzma.compress(raw.getvalue())).decode()


def unpack(text: str) -> dict[str, bytes]:
    """The reverse of :func:`pack`. Raises AgentError on names that lead elsewhere."""
    files: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(lzma.decompress(base64.b64decode(text)))) as archive:
        for info in archive:
            path = PurePosixPath(info.name)
            stream = archive.extractfile(info)
            if path.is_absolute() or ".." in path.parts or stream is None:
                raise AgentError(f"The agent's archive holds {info.name}", "plain relative files")
            files[info.name] = stream.read()
    return files


def installed(wanted: str, home: Path = HOME, command: Path = COMMAND) -> bool:
    """Whether exactly this version is there, whole, and is what the command runs."""
    link = home / "current"
    if not link.is_symlink() or link.readlink() != Path(wanted):
        return False
    try:
        script = command.read_text(encoding="utf-8")
    except OSError:
        return False
    executable = command.stat().st_mode & 0o777 == 0o755 and home.stat().st_mode & 0o777 == 0o755
    return executable and script == SCRIPT.format(home=home) and version(read(home / wanted / "slipway")) == wanted


def current(home: Path = HOME) -> str:
    """The version that the command runs; empty where there is none."""
    link = home / "current"
    return link.readlink().name if link.is_symlink() else ""


def install(files: Mapping[str, bytes], wanted: str, home: Path = HOME, command: Path = COMMAND) -> None:
    """Put the files there, switch to them, remove older versions but one. Raises AgentError when they are not ``wanted``."""
    if version(files) != wanted:
        raise AgentError("The agent's files are not the version that was announced", wanted, "run the playbook again")
    home.mkdir(mode=0o755, parents=True, exist_ok=True)
    home.chmod(0o755)  # a hardened host's umask is 027, and the units have users of their own
    staged = home / f".{wanted}.new"
    shutil.rmtree(staged, ignore_errors=True)
    for name, content in files.items():
        path = staged / "slipway" / name
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o644)
    # Whatever root's umask: units of other users read these, too.
    for folder in (staged, *(path for path in staged.rglob("*") if path.is_dir())):
        folder.chmod(0o755)
    final = home / wanted
    shutil.rmtree(final, ignore_errors=True)
    staged.rename(final)
    compileall.compile_dir(str(final), quiet=2)
    link = home / ".current.new"
    link.unlink(missing_ok=True)
    link.symlink_to(wanted)
    link.replace(home / "current")
    script = command.with_name(f".{command.name}.new")
    script.write_text(SCRIPT.format(home=home), encoding="utf-8")
    script.chmod(0o755)
    script.replace(command)
    others = [path for path in home.iterdir() if path.is_dir() and not path.is_symlink() and path.name != wanted]
    for old in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)[KEEP - 1 :]:
        shutil.rmtree(old, ignore_errors=True)
