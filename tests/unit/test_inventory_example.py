# SPDX-License-Identifier: Apache-2.0
"""The example inventory explains every setting, and nothing that is none; its defaults are the schema's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from slipway.inventory_rules import check_values
from slipway.inventory_schema import APP, GROUPS, SETTINGS
from slipway.schema import Field

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "inventories/example"
FILES = {name: (EXAMPLE / f"group_vars/all/{name}.yml").read_text() for name in ("main", "apps", "vault")}


def mentioned(text: str) -> set[str]:
    """Keys that a text sets, or shows in a comment or within braces."""
    return set(re.findall(r"(?:^|[\s#{,(])-?\s*([a-z_]+):", text)) | set(re.findall(r"\b([a-z_]{4,})\b", text))


@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "slipway_apps"])
def test_every_setting_is_in_main(name: str) -> None:
    assert re.search(rf"^(# )?{name}:", FILES["main"], re.MULTILINE)


@pytest.mark.parametrize("name", list(APP.fields))
def test_every_app_setting_is_in_apps(name: str) -> None:
    assert re.search(rf"^\s*(- |# )?{name}:", FILES["apps"], re.MULTILINE), name


@pytest.mark.parametrize("outer", ["image", "health"])
def test_nested_settings_are_in_apps(outer: str) -> None:
    assert set(APP.fields[outer].fields) <= mentioned(FILES["apps"])


def test_main_sets_nothing_unknown() -> None:
    assert set(re.findall(r"^(?:# )?(slipway_\w+):", FILES["main"], re.MULTILINE)) <= set(SETTINGS)


def uncommented(text: str, fields: dict[str, Field]) -> dict[str, Any]:
    """Commented defaults (``# key: value``) of the fields, parsed as YAML."""
    found = {}
    for name in fields:
        match = re.search(rf"^\s*# {name}: ([^|\n]*?)(?:\s+#.*)?$", text, re.MULTILINE)
        if match:
            found[name] = yaml.safe_load(match[1])
    return found


def test_commented_values_are_the_defaults() -> None:
    shown = uncommented(FILES["main"], SETTINGS) | uncommented(FILES["apps"], dict(APP.fields))
    assert len(shown) > 15
    fields = {**SETTINGS, **APP.fields}
    # What these two show is an example of its form: they have no default, or a computed one.
    for name in set(shown) - {"csp", "port_base", "headers"}:
        assert shown[name] == fields[name].default, name


def test_example_is_right_once_it_is_filled_in() -> None:
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILqV3Ap9iAw+HpNvftXkF2zD/OpMwnjVCCoCPnAR/3Qu me"
    main = FILES["main"].replace("email: CHANGEME", "email: me@example.com").replace("CHANGEME", key)
    settings = yaml.safe_load(main) | yaml.safe_load(FILES["apps"].replace("CHANGEME", "notes.example.com"))
    settings |= yaml.safe_load(FILES["vault"])
    assert list(check_values(settings)) == []


def test_hosts_file_uses_known_groups_and_comments_parse() -> None:
    tree = yaml.safe_load((EXAMPLE / "hosts.yml").read_text())
    assert set(tree) - {"all"} <= set(GROUPS)
