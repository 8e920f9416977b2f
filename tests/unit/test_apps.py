# SPDX-License-Identifier: Apache-2.0
"""resolve: what a user types about apps becomes what each role needs."""

from __future__ import annotations

from typing import Any

import pytest
from slipway.deploy.apps import Network, resolve, stable_port
from slipway.errors import InputError

NUMBERS = {"workers": 2, "concurrency": 120, "memory_mb": 300, "client_pool": 10, "client_overflow": 20}
SIZING: dict[str, Any] = {"apps": {"notes": {**NUMBERS, "server_pool": 6, "session_pool": 3}, "shop": NUMBERS}}
NOTES: dict[str, Any] = {"name": "notes", "domains": ["n.example.com"], "image": {"source": "ship", "path": "."}}
SHOP: dict[str, Any] = {"name": "shop", "domains": [], "database": False, "port": 3000}
VAULT = {"notes": {"database_password": "p@ss/word-of-length"}}


def test_ports_follow_the_order_of_the_list() -> None:
    assert [stable_port(0), stable_port(2), stable_port(5, 30000)] == [18000, 18020, 30000]


def test_an_app_gets_its_pooler_urls_with_the_password_quoted_and_only_among_the_secrets() -> None:
    (app,) = resolve([NOTES], SIZING, VAULT, Network("10.0.0.1", 6000))["apps"]
    assert app["secrets"]["DATABASE_URL"] == "postgresql://notes:p%40ss%2Fword-of-length@10.0.0.1:6000/notes"
    assert app["secrets"]["DATABASE_SESSION_URL"].endswith("/notes_session")
    assert "word" not in str(app["env"])


def test_numbers_of_the_sizing_reach_the_environment_and_the_users_own_win() -> None:
    (app,) = resolve([{**NOTES, "env": {"CONCURRENCY": 7, "DEBUG": False}}], SIZING, VAULT)["apps"]
    assert (app["env"]["WORKERS"], app["env"]["POOL_SIZE"]) == ("2", "10")
    assert (app["env"]["CONCURRENCY"], app["env"]["DEBUG"], app["memory_mb"]) == ("7", "false", 300)


def test_an_app_without_database_or_domain_has_neither_pool_nor_site() -> None:
    resolved = resolve([NOTES, SHOP], SIZING, VAULT)
    assert [site["name"] for site in resolved["sites"]] == ["notes"]
    assert [(one["name"], one["pool_size"]) for one in resolved["databases"]] == [("notes", 6)]
    assert "DATABASE_URL" not in resolved["apps"][1]["secrets"]
    assert resolved["apps"][1]["stable_port"] == 18010


def test_an_absent_app_keeps_the_place_of_those_behind_it() -> None:
    resolved = resolve([{**NOTES, "state": "absent"}, SHOP], SIZING, {})
    assert (resolved["sites"], resolved["databases"]) == ([], [])
    assert [app["stable_port"] for app in resolved["apps"]] == [18000, 18010]


def test_the_proxys_settings_go_to_the_site_alone() -> None:
    resolved = resolve([{**NOTES, "caddy_snippet": "header X y", "body_limit": "1MB"}], SIZING, VAULT)
    assert resolved["sites"][0] | {"snippet": "header X y", "body_limit": "1MB"} == resolved["sites"][0]
    assert "caddy_snippet" not in resolved["apps"][0]


def test_two_apps_on_one_port_are_refused_by_name() -> None:
    with pytest.raises(InputError, match="notes and shop would both use port 18000"):
        resolve([NOTES, {**SHOP, "port_base": 18000}], SIZING, VAULT)


def test_a_database_without_password_names_the_key_to_add() -> None:
    with pytest.raises(InputError, match=r"vault_apps\.notes\.database_password"):
        resolve([NOTES], SIZING, {"notes": {}})


def test_a_short_password_is_refused_without_being_shown() -> None:
    with pytest.raises(InputError, match="has 5 characters") as caught:
        resolve([NOTES], SIZING, {"notes": {"database_password": "abcde"}})
    assert "abcde" not in str(caught.value)
