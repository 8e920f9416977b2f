# SPDX-License-Identifier: Apache-2.0
"""Many files as one change: staged, validated, landed together, and put back together when something objects.

The pure half turns a wish (:class:`FileSpec`) and what is there (:class:`Found`) into a :class:`Change`;
the other half applies a list of changes or none of them.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import shutil
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..commands import CommandError, run
from ..errors import InputError, SlipwayError

Kind = Literal["file", "directory", "link", "absent", "other"]
HIDDEN = "(secret content, not shown)\n"


class RejectedError(SlipwayError):
    """A validator, a verification or an apply command refused the change; everything was put back."""


@dataclass(frozen=True)
class FileSpec:
    """The wish for one path. ``mode`` is the permission bits; ``content`` None with state file means: only owner and mode."""

    path: str
    state: Literal["file", "directory", "link", "absent"] = "file"
    content: bytes | None = None
    mode: int | None = None
    owner: str = "root"
    group: str = "root"
    validate: tuple[str, ...] = ()
    secret: bool = False
    force: bool = True
    target: str | None = None
    sealed: str = ""  # name of the credential that the content is, sealed to this host (module sealed)

    @classmethod
    def parse(cls, raw: dict[str, Any]) -> FileSpec:
        """From a plain mapping (a module's parameter). Raises InputError on a relative path or a missing key."""
        path = os.path.normpath(raw["path"])
        state: Any = raw.get("state") or "file"
        if not path.startswith("/") or path == "/":
            raise InputError(f"The path '{raw['path']}' cannot be managed", "an absolute path below /")
        if state == "link" and not raw.get("target"):
            raise InputError(f"{path} has state link but no target", "the path it points to in 'target'")
        content = raw.get("content")
        mode = raw.get("mode")
        default_mode = {"file": 0o644, "directory": 0o755}.get(state)
        return cls(
            path=path,
            state=state,
            content=content.encode() if content is not None else None,
            mode=int(str(mode), 8) if mode is not None else default_mode,
            owner=raw.get("owner") or "root",
            group=raw.get("group") or "root",
            validate=tuple(raw.get("validate") or ()),
            secret=bool(raw.get("secret") or raw.get("sealed")),
            force=raw.get("force") is not False,
            target=raw.get("target"),
            sealed=raw.get("sealed") or "",
        )


@dataclass(frozen=True)
class Found:
    """What stands at a path now. ``uid``/``gid`` are -1 and ``mode`` 0 where nothing does."""

    kind: Kind
    content: bytes = b""
    mode: int = 0
    uid: int = -1
    gid: int = -1
    target: str = ""


@dataclass(frozen=True)
class Change:
    """One path that has to change, with a before and after that are safe to show."""

    spec: FileSpec
    found: Found
    before: str
    after: str

    @property
    def diff(self) -> dict[str, str]:
        """In the shape Ansible shows."""
        return {
            "before_header": self.spec.path,
            "after_header": self.spec.path,
            "before": self.before,
            "after": self.after,
        }


def inspect(path: str) -> Found:
    """Read what stands at ``path``; links are not followed."""
    try:
        info = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return Found("absent")
    mode = stat.S_IMODE(info.st_mode)
    if stat.S_ISLNK(info.st_mode):
        return Found("link", b"", mode, info.st_uid, info.st_gid, os.readlink(path))
    if stat.S_ISDIR(info.st_mode):
        return Found("directory", b"", mode, info.st_uid, info.st_gid)
    if stat.S_ISREG(info.st_mode):
        return Found("file", Path(path).read_bytes(), mode, info.st_uid, info.st_gid)
    return Found("other", b"", mode, info.st_uid, info.st_gid)


def owner_ids(spec: FileSpec) -> tuple[int, int] | None:
    """The uid and gid wished for, or None while the user or group does not exist."""
    try:
        uid = int(spec.owner) if spec.owner.isdigit() else pwd.getpwnam(spec.owner).pw_uid
        gid = int(spec.group) if spec.group.isdigit() else grp.getgrnam(spec.group).gr_gid
    except KeyError:
        return None
    return uid, gid


def plan(spec: FileSpec, found: Found, ids: tuple[int, int] | None) -> Change | None:
    """What has to change at ``spec.path``, or None when all is as wished.

    Raises InputError where a directory stands in the way of a file or the reverse: nothing is removed to make room.
    """
    if spec.state == "absent":
        if found.kind == "absent":
            return None
        return Change(spec, found, _shown(spec, found), "")
    if found.kind not in ("absent", spec.state) and not (spec.state == "file" and found.kind == "link"):
        raise InputError(f"{spec.path} is a {found.kind}", f"a {spec.state}", f"move {spec.path} out of the way")
    if spec.state == "link":
        same = found.kind == "link" and found.target == spec.target
        return None if same else Change(spec, found, _shown(spec, found), f"link to {spec.target}\n")
    if spec.state == "file" and spec.content is None and found.kind == "absent":
        raise InputError(f"{spec.path} does not exist and no content was given for it")
    if found.kind == spec.state and not spec.force:
        return None
    content_ok = spec.state == "directory" or spec.content is None or found.content == spec.content
    rights_ok = found.kind == spec.state and found.mode == spec.mode and ids == (found.uid, found.gid)
    if found.kind == spec.state and content_ok and rights_ok:
        return None
    return Change(spec, found, _shown(spec, found), _wished(spec, found, ids))


def _rights(mode: int | None, owner: str, group: str) -> str:
    return f"mode {mode or 0:04o} owner {owner}:{group}\n"


def _name_of(uid: int, gid: int) -> tuple[str, str]:
    try:
        owner = pwd.getpwuid(uid).pw_name
    except KeyError:
        owner = str(uid)
    try:
        return owner, grp.getgrgid(gid).gr_name
    except KeyError:
        return owner, str(gid)


def _text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return f"(binary, {len(content)} bytes)\n"


def _shown(spec: FileSpec, found: Found) -> str:
    if found.kind == "absent":
        return ""
    rights = _rights(found.mode, *_name_of(found.uid, found.gid))
    if found.kind == "link":
        return f"link to {found.target}\n"
    if found.kind != "file":
        return f"{found.kind} {rights}"
    return rights + (HIDDEN if spec.secret else _text(found.content))


def _wished(spec: FileSpec, found: Found, ids: tuple[int, int] | None) -> str:
    rights = _rights(spec.mode, *(_name_of(*ids) if ids else (spec.owner, spec.group)))
    if spec.state == "directory":
        return f"directory {rights}"
    content = found.content if spec.content is None else spec.content
    if spec.secret:
        changed = "" if content == found.content else "(secret content changed)\n"
        return rights + HIDDEN + changed
    return rights + _text(content)


class Transaction:
    """Apply changes as one: :meth:`stage`, then :meth:`land`, then :meth:`commit`, or :meth:`roll_back`.

    Temporary names are fixed per path (``.name.slipway-new`` and ``-old``), so that a killed run leaves
    nothing that the next one does not overwrite.
    """

    def __init__(self, changes: Sequence[Change]) -> None:
        self.changes = list(changes)
        self._landed: list[Change] = []
        self._made: list[str] = []

    @staticmethod
    def _beside(path: str, suffix: str) -> str:
        head, tail = os.path.split(path)
        return os.path.join(head, f".{tail}.slipway-{suffix}")

    def _make_parents(self, path: str) -> None:
        parent = os.path.dirname(path)
        if not os.path.isdir(parent):
            self._make_parents(parent)
            os.mkdir(parent, 0o755)
            self._made.append(parent)

    def stage(self) -> None:
        """Write every new file beside its place and run its validator. Raises RejectedError; nothing has landed then."""
        for change in self.changes:
            spec = change.spec
            if spec.state != "file":
                continue
            self._make_parents(spec.path)
            staged = self._beside(spec.path, "new")
            content = change.found.content if spec.content is None else spec.content
            with contextlib.suppress(FileNotFoundError):
                os.unlink(staged)
            descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as handle:
                handle.write(content)
                handle.flush()
                os.fsync(handle.fileno())
            _set_rights(staged, spec)
            if spec.validate:
                self._validate(spec, staged)

    @staticmethod
    def _validate(spec: FileSpec, staged: str) -> None:
        outcome = run([part.replace("%s", staged) for part in spec.validate], check=False)
        if not outcome.ok:
            said = outcome.said.replace(staged, spec.path)
            raise RejectedError(
                f"The new {spec.path} was refused by {spec.validate[0]}: {said or f'exit code {outcome.code}'}",
                "a file that it accepts (nothing has been changed)",
            )

    def land(self) -> None:
        """Rename everything into place, directories first, removals last."""
        order = {"directory": 0, "file": 1, "link": 1, "absent": 2}
        for change in sorted(self.changes, key=lambda item: (order[item.spec.state], item.spec.path)):
            spec = change.spec
            self._make_parents(spec.path)
            self._landed.append(change)
            if spec.state == "directory":
                if change.found.kind == "absent" and not os.path.isdir(spec.path):
                    os.mkdir(spec.path, 0o700)
                _set_rights(spec.path, spec)
            elif spec.state == "file":
                os.replace(self._beside(spec.path, "new"), spec.path)
            elif spec.state == "link":
                fresh = self._beside(spec.path, "new")
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(fresh)
                os.symlink(str(spec.target), fresh)
                os.replace(fresh, spec.path)
            else:
                old = self._beside(spec.path, "old")
                _remove(old)
                os.rename(spec.path, old)

    def commit(self) -> None:
        """Throw away what was set aside for a way back."""
        for change in self._landed:
            if change.spec.state == "absent":
                _remove(self._beside(change.spec.path, "old"))

    def roll_back(self) -> None:
        """Put every path back to what was found, newest change first, and remove what was staged."""
        for change in reversed(self._landed):
            _restore(change, self._beside(change.spec.path, "old"))
        for change in self.changes:
            _remove(self._beside(change.spec.path, "new"))
        for made in reversed(self._made):
            with contextlib.suppress(OSError):
                os.rmdir(made)
        self._landed.clear()


def _set_rights(path: str, spec: FileSpec) -> None:
    ids = owner_ids(spec)
    if ids is None:
        raise InputError(
            f"{spec.path} shall belong to {spec.owner}:{spec.group}, which this host does not have",
            "an existing user and group",
        )
    os.chown(path, *ids)
    if spec.mode is not None:
        os.chmod(path, spec.mode)


def _restore(change: Change, set_aside: str) -> None:
    path, found = change.spec.path, change.found
    if change.spec.state == "absent":
        if os.path.lexists(set_aside):
            os.rename(set_aside, path)
        return
    if found.kind == "absent":
        if change.spec.state == "directory":
            with contextlib.suppress(OSError):
                os.rmdir(path)
        else:
            _remove(path)
        return
    if found.kind == "link":
        _remove(path)
        os.symlink(found.target, path)
        return
    if found.kind == "file":
        back = Transaction._beside(path, "new")
        Path(back).write_bytes(found.content)
        os.chown(back, found.uid, found.gid)
        os.chmod(back, found.mode)
        os.replace(back, path)
        return
    os.chown(path, found.uid, found.gid)
    os.chmod(path, found.mode)


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def run_all(commands: Sequence[Sequence[str]], what: str) -> None:
    """Run commands one after the other. Raises RejectedError naming the first that fails, in its own words."""
    for argv in commands:
        try:
            run(argv)
        except CommandError as error:
            raise RejectedError(
                f"{what} failed. {error.found}", "success (every file was put back as it was)"
            ) from error
