# SPDX-License-Identifier: Apache-2.0
"""The example inventory explains every setting, and nothing that is none; its defaults are the schema's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from slipway.inventory.rules import check_values
from slipway.inventory.schema import Field
from slipway.inventory.settings import APP, GROUPS, SETTINGS

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "inventories/example"
FILES = {name: (EXAMPLE / f"group_vars/all/{name}.yml").read_text() for name in ("main", "apps", "backups", "vault")}
FILES["main"] += FILES["backups"].removeprefix("---\n")

RECIPIENT = "age15ahyyy20pd8wmcz07xg2wf5eeancpkqjkfk4ercwucr8vn4gk3lsaall98"
IDENTITY = f"AGE-SECRET-KEY-1{'Q' * 58}"


def test_app_settings_are_those_that_something_reads() -> None:
    """What the schema admits beyond these would be accepted and do nothing."""
    from dataclasses import fields

    from slipway.deploy.apps import REPLACED_KEYS, SITE_KEYS
    from slipway.deploy.spec import Health, Job, Spec, Watch

    internal = {"slot", "network", "services", "stable_port"}
    read = {field.name for field in fields(Spec)} | set(SITE_KEYS) | set(REPLACED_KEYS) | {"state", "watch_seconds"}
    assert set(APP.fields) - read == set(), "admitted, and read by nothing"
    assert read - set(APP.fields) - internal == set(), "read, and refused as unknown"
    assert set(APP.fields["health"].fields) == {field.name for field in fields(Health)}
    jobs = APP.fields["jobs"].items
    assert jobs is not None
    assert set(jobs.fields) == {field.name for field in fields(Job)}
    assert set(APP.fields["watch"].fields) == {field.name for field in fields(Watch)} - {"seconds", "access_log"}


def mentioned(text: str) -> set[str]:
    """Keys that a text sets, or shows in a comment or within braces."""
    return set(re.findall(r"(?:^|[\s#{,(])-?\s*([a-z0-9_]+):", text)) | set(re.findall(r"\b([a-z0-9_]{4,})\b", text))


@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "slipway_apps"])
def test_every_setting_is_in_main(name: str) -> None:
    assert re.search(rf"^(# )?{name}:", FILES["main"], re.MULTILINE)


@pytest.mark.parametrize("name", list(APP.fields))
def test_every_app_setting_is_in_apps(name: str) -> None:
    assert re.search(rf"^\s*(- |# )?{name}:", FILES["apps"], re.MULTILINE), name


@pytest.mark.parametrize("outer", ["image", "health", "watch", "rate_limit", "jobs"])
def test_nested_settings_are_in_apps(outer: str) -> None:
    field = APP.fields[outer].items or APP.fields[outer]
    assert field.fields
    assert set(field.fields) <= mentioned(FILES["apps"])


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


# What these show is an example of its form: they have no default, or a computed one.
NO_DEFAULT = {
    *("slipway_pitr_store", "slipway_private_network"),
    *("csp", "port_base", "headers", "rate_limit", "watch"),
    *("slipway_backup_store", "slipway_backup_keeps", "slipway_drill_interval", "slipway_recovery_targets"),
}


def test_commented_values_are_the_defaults() -> None:
    shown = uncommented(FILES["main"], SETTINGS) | uncommented(FILES["apps"], dict(APP.fields))
    assert len(shown) > 15
    fields = {**SETTINGS, **APP.fields}
    for name in set(shown) - NO_DEFAULT:
        assert shown[name] == fields[name].default, name


def test_values_of_the_watched_window_are_the_defaults() -> None:
    shown = uncommented(FILES["apps"], {"watch": APP.fields["watch"]})["watch"]
    assert shown == {name: field.default for name, field in APP.fields["watch"].fields.items()}


def test_example_is_right_once_it_is_filled_in() -> None:
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILqV3Ap9iAw+HpNvftXkF2zD/OpMwnjVCCoCPnAR/3Qu me"
    main = FILES["main"].replace("email: CHANGEME", "email: me@example.com").replace("CHANGEME", key)
    settings = yaml.safe_load(main) | yaml.safe_load(FILES["apps"].replace("CHANGEME", "notes.example.com"))
    settings |= yaml.safe_load(FILES["vault"]) | {
        "vault_backup_identity": IDENTITY,
        "slipway_backup_recipients": [RECIPIENT],
    }
    assert list(check_values(settings)) == []


def test_hosts_file_uses_known_groups_and_comments_parse() -> None:
    tree = yaml.safe_load((EXAMPLE / "hosts.yml").read_text())
    assert set(tree) - {"all"} <= set(GROUPS)


def test_keeps_shown_are_the_defaults() -> None:
    keeps = SETTINGS["slipway_backup_keeps"].fields
    shown = uncommented(FILES["main"], {"slipway_backup_keeps": SETTINGS["slipway_backup_keeps"]})[
        "slipway_backup_keeps"
    ]
    assert shown == {name: field.default for name, field in keeps.items()}


def test_keys_of_a_store_are_shown() -> None:
    assert set(SETTINGS["slipway_backup_store"].fields) <= mentioned(FILES["main"])
