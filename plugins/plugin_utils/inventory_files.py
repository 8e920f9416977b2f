# SPDX-License-Identifier: Apache-2.0
"""An inventory's files as the controller sees them: which variables each one sets, and on which line.

Runs on the controller only. PyYAML's nodes give the lines; encrypted files are named but never shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.slipway.vps.plugins.module_utils.slipway.errors import InputError
from ansible_collections.slipway.vps.plugins.module_utils.slipway.inventory.rules import Source

VAULT_HEADER = "$ANSIBLE_VAULT;"
SUFFIXES = {".yml", ".yaml", ".json", ""}


def shown(path: Path) -> str:
    """The path as the user would type it: relative to the working folder where that is shorter."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def variable_files(inventory: Path) -> Iterator[Path]:
    """The files under ``group_vars`` and ``host_vars`` beside or within an inventory, in a stable order."""
    base = inventory if inventory.is_dir() else inventory.parent
    for folder in ("group_vars", "host_vars"):
        for path in sorted((base / folder).rglob("*")):
            hidden = any(part.startswith(".") for part in path.relative_to(base).parts)
            if path.is_file() and path.suffix in SUFFIXES and not hidden and not path.name.endswith("~"):
                yield path


def read_source(path: Path, names: tuple[str, ...] | None = None) -> Source:
    """One variables file as a :class:`Source`. ``names`` gives an encrypted file's variables, read by Ansible.

    Raises InputError when the file is not YAML or not a mapping.
    """
    file = shown(path)
    text = path.read_text(encoding="utf-8")
    if text.startswith(VAULT_HEADER):
        return Source(file, names or (), encrypted=True)
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f":{mark.line + 1}" if mark else ""
        raise InputError(
            f"{file}{line} is not YAML: {error.problem}", "", "look at that line's indentation, colons and quotes"
        ) from error
    if node is None:
        return Source(file, ())
    if not isinstance(node, yaml.MappingNode):
        raise InputError(f"{file} holds no variables", "lines such as 'name: value' at the top level")
    lines: dict[tuple[str | int, ...], int] = {}
    raw = _plain(node, (), lines)
    return Source(file, tuple(str(name) for name in raw), raw=raw, lines=lines)


def _plain(node: yaml.Node, path: tuple[str | int, ...], lines: dict[tuple[str | int, ...], int]) -> Any:
    """A node as plain data, ``!vault`` values as None; fills ``lines`` (from 1) for every path below."""
    if node.tag == "!vault":
        return None
    if isinstance(node, yaml.MappingNode):
        found = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            lines[(*path, key)] = key_node.start_mark.line + 1
            found[key] = _plain(value_node, (*path, key), lines)
        return found
    if isinstance(node, yaml.SequenceNode):
        items = []
        for index, item in enumerate(node.value):
            lines[(*path, index)] = item.start_mark.line + 1
            items.append(_plain(item, (*path, index), lines))
        return items
    return node.value
