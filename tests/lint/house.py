# SPDX-License-Identifier: Apache-2.0
"""What the lint tests look at: the files git knows, the roles, their variables."""

from __future__ import annotations

import functools
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path.parent.parent.name for path in ROOT.glob("roles/*/tasks/main.yml"))


class Loader(yaml.SafeLoader):
    """YAML as Ansible writes it: its own tags are read as what stands behind them."""


Loader.add_multi_constructor("!", lambda _loader, _suffix, node: getattr(node, "value", None))  # type: ignore[no-untyped-call]


def load(path: Path) -> Any:
    """A YAML file's content, an empty mapping where it has none."""
    return yaml.load(path.read_text(encoding="utf-8"), Loader=Loader) or {}  # noqa: S506  (a SafeLoader)


@functools.cache
def files() -> tuple[Path, ...]:
    """Every file that is or will be in git, links left out."""
    done = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        check=True, capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    paths = (ROOT / name for name in done.stdout.split("\0") if name)
    return tuple(path for path in paths if path.is_file() and not path.is_symlink())


def texts(*suffixes: str) -> Iterator[tuple[str, str]]:
    """(name below the root, text) of the files that end so; of all readable ones without suffixes."""
    for path in files():
        if suffixes and not path.name.endswith(suffixes):
            continue
        try:
            yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


def relative(path: Path) -> str:
    """A path as messages show it."""
    return str(path.relative_to(ROOT))


def defaults(role: str) -> dict[str, Any]:
    """A role's defaults, of one file or of several."""
    base = ROOT / "roles" / role / "defaults"
    merged: dict[str, Any] = {}
    for path in sorted([*base.glob("main.yml"), *base.glob("main/*.yml")]):
        merged.update(load(path))
    return merged


def specs(role: str) -> dict[str, Any]:
    """A role's documented variables, of all its entry points."""
    found: dict[str, Any] = {}
    path = ROOT / "roles" / role / "meta" / "argument_specs.yml"
    for entry in load(path).get("argument_specs", {}).values() if path.exists() else ():
        found.update(entry.get("options") or {})
    return found


def task_files() -> list[Path]:
    """Every file of tasks, of roles and of playbooks."""
    found = [path for path in files() if re.search(r"(^|/)tasks/.*\.yml$", relative(path))]
    return [path for path in found if relative(path).startswith(("roles/", "playbooks/", "molecule/"))]


def tasks(content: Any) -> Iterator[dict[str, Any]]:
    """All tasks of a file, those within blocks, plays and handlers included."""
    for item in content if isinstance(content, list) else ():
        if not isinstance(item, dict):
            continue
        if "hosts" not in item and "import_playbook" not in " ".join(map(str, item)):
            yield item
        for key in ("block", "rescue", "always", "tasks", "pre_tasks", "post_tasks", "handlers"):
            yield from tasks(item.get(key))
