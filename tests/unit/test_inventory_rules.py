# SPDX-License-Identifier: Apache-2.0
"""What an inventory may hold: each mistake gets a message that names the place and the way out."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slipway.inventory import rules
from slipway.inventory.schema import Field, Problem, check, expected_form, spell
from slipway.inventory.settings import APP, SETTINGS
from slipway.inventory.suggest import closest

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILqV3Ap9iAw+HpNvftXkF2zD/OpMwnjVCCoCPnAR/3Qu me"
RECIPIENT = "age15ahyyy20pd8wmcz07xg2wf5eeancpkqjkfk4ercwucr8vn4gk3lsaall98"
GOOD: dict[str, Any] = {
    "slipway_environment": "production",
    "slipway_admin_keys": [KEY],
    "slipway_admin_email": "me@example.com",
    "slipway_backup_recipients": [RECIPIENT],
    "vault_apps": {"notes": {"database_password": "x" * 20}},
    "slipway_apps": [
        {
            "name": "notes",
            "domains": ["notes.example.com"],
            "image": {"source": "registry", "name": "registry.example.com:5000/notes", "tag": "1.4.2"},
        }
    ],
}


def problems(**changes: Any) -> list[str]:
    """What is said about the good settings with top-level changes."""
    return [str(problem) for problem in rules.check_values({**copy.deepcopy(GOOD), **changes})]


def app_problems(**changes: Any) -> list[str]:
    """What is said about the good app with some keys changed."""
    return problems(slipway_apps=[{**copy.deepcopy(GOOD["slipway_apps"][0]), **changes}])


def test_good_settings_raise_no_problem() -> None:
    assert problems() == []


MAIL = {"name": "mail", "command": ["python", "-m", "mail"]}


@pytest.mark.parametrize("name", [name for name, field in SETTINGS.items() if field.required])
def test_each_required_setting_is_missed_by_name(name: str) -> None:
    left = {key: value for key, value in GOOD.items() if key != name}
    found = [str(problem) for problem in rules.check_values(left)]
    assert len(found) == 1
    assert found[0].startswith(f"{name} is not set")


@pytest.mark.parametrize(
    ("changes", "place", "words"),
    [
        ({"slipway_recovery_tier": "growht"}, "slipway_recovery_tier", "Did you mean 'growth'?"),
        ({"slipway_environment": "prod"}, "slipway_environment", "none of lab, staging, production"),
        ({"slipway_admin_keys": KEY}, "slipway_admin_keys", "Write it as a list"),
        ({"slipway_admin_keys": ["ecdsa-sha2-nistp256 AAAAE2Vj me"]}, "slipway_admin_keys[0]", "ed25519"),
        ({"slipway_admin_email": "nobody"}, "slipway_admin_email", "e-mail address"),
        ({"slipway_timezone": 3}, "slipway_timezone", 'Put it in quotes: "3"'),
        ({"slipway_apps": {"notes": {}}}, "slipway_apps", "expected a list"),
        ({"slipway_admin_user": "Ops User"}, "slipway_admin_user", "Linux user name"),
    ],
)
def test_wrong_setting_names_its_place_and_the_way_out(changes: dict[str, Any], place: str, words: str) -> None:
    found = problems(**changes)
    assert len(found) == 1
    assert found[0].startswith(f"{place}: ")
    assert words in found[0]


@pytest.mark.parametrize(
    ("changes", "place", "words"),
    [
        ({"imgae": {}}, "slipway_apps[0].imgae", "Did you mean 'image'?"),
        ({"name": "Notes", "database": False}, "slipway_apps[0].name", "lower-case letter"),
        ({"domains": ["https://notes.example.com/"]}, "slipway_apps[0].domains[0]", "no https://"),
        ({"domains": ["Notes.Example.com"]}, "slipway_apps[0].domains[0]", "'notes.example.com'"),
        ({"domains": []}, "slipway_apps[0].domains", "at least one domain"),
        ({"port": "8000"}, "slipway_apps[0].port", "Take the quotes away"),
        ({"port": 70000}, "slipway_apps[0].port", "at most 65535"),
        ({"port": True}, "slipway_apps[0].port", "expected a whole number"),
        ({"health": {"pth": "/"}}, "slipway_apps[0].health.pth", "Did you mean 'path'?"),
        ({"health": {"path": "readyz"}}, "slipway_apps[0].health.path", "starts with /"),
        ({"workers": "many"}, "slipway_apps[0].workers", "or 'auto'"),
        ({"release_command": "python -m notes"}, "slipway_apps[0].release_command", "Write it as a list"),
        ({"env": {"LOG-LEVEL": "x"}}, "slipway_apps[0].env.LOG-LEVEL", "letters, digits and _"),
        ({"image": {"source": "registry", "name": "n"}}, "slipway_apps[0].image", "'tag' is missing"),
        ({"image": {"source": "build"}}, "slipway_apps[0].image", "'path' is missing"),
        ({"image": {"source": "ship"}}, "slipway_apps[0].image", "either path"),
        ({"image": {"source": "registry", "name": "n", "tag": "latest"}}, "slipway_apps[0].image.tag", "latest"),
        ({"env": {"A": "1"}, "secrets": {"A": "2"}}, "slipway_apps[0].env.A", "under secrets"),
        ({"body_limit": "lots"}, "slipway_apps[0].body_limit", "10MB"),
        ({"jobs": {"mail": {}}}, "slipway_apps[0].jobs", "expected a list"),
        ({"jobs": [{"name": "mail"}]}, "slipway_apps[0].jobs[0]", "'command' is missing"),
        ({"jobs": [{**MAIL, "command": "python -m mail"}]}, "slipway_apps[0].jobs[0].command", "Write it as a list"),
        ({"jobs": [{**MAIL, "command": []}]}, "slipway_apps[0].jobs[0].command", "an empty command"),
        (
            {"jobs": [{**MAIL, "drain_second": 5}]},
            "slipway_apps[0].jobs[0].drain_second",
            "Did you mean 'drain_seconds'?",
        ),
        ({"jobs": [{**MAIL, "count": 0}]}, "slipway_apps[0].jobs[0].count", "at least 1"),
        ({"jobs": [{**MAIL, "memory_mb": "256"}]}, "slipway_apps[0].jobs[0].memory_mb", "Take the quotes away"),
        ({"jobs": [{**MAIL, "name": "send-mail"}]}, "slipway_apps[0].jobs[0].name", "lower-case letter"),
        ({"jobs": [MAIL, MAIL]}, "slipway_apps[0].jobs[1].name", "listed twice"),
        ({"job": []}, "slipway_apps[0].job", "Did you mean 'jobs'?"),
    ],
)
def test_wrong_app_names_its_place_and_the_way_out(changes: dict[str, Any], place: str, words: str) -> None:
    found = app_problems(**changes)
    assert len(found) == 1, found
    assert found[0].startswith(f"{place}: ")
    assert words in found[0]


@pytest.mark.parametrize("name", ["postgres", "pgbouncer", "template1", "pg_mine"])
def test_names_that_postgresql_needs_are_refused_for_apps(name: str) -> None:
    (found,) = [line for line in app_problems(name=name, database=False) if "needs itself" in line]
    assert name in found


def test_two_apps_must_not_share_name_domain_or_port() -> None:
    twin = {**copy.deepcopy(GOOD["slipway_apps"][0]), "port_base": 18000}
    found = " ".join(problems(slipway_apps=[GOOD["slipway_apps"][0], twin]))
    assert "listed twice" in found
    assert "the domain 'notes.example.com'" in found
    assert "its stable port 18000 is that of the app 'notes' too" in found


def test_app_named_like_the_session_pool_of_another_is_refused() -> None:
    second = {
        **copy.deepcopy(GOOD["slipway_apps"][0]),
        "name": "notes_session",
        "domains": ["b.example.com"],
        "database": False,
    }
    (found,) = problems(slipway_apps=[GOOD["slipway_apps"][0], second])
    assert "session pool of the app 'notes'" in found


def test_app_with_database_needs_its_password_in_the_vault() -> None:
    (found,) = problems(vault_apps={"note": {"database_password": "x"}})
    assert "vault_apps.notes.database_password is not set" in found
    assert app_problems(database=False) == []


@pytest.mark.parametrize("name", ["work_mem", "pg_stat_statements.max", "io_method", "my_strange_knob"])
def test_postgresql_settings_that_may_exist_pass(name: str) -> None:
    assert problems(postgres_settings={name: "1"}) == []


@pytest.mark.parametrize(("name", "near"), [("shared_bufers", "shared_buffers"), ("max_conections", "max_connections")])
def test_misspelled_postgresql_setting_is_found(name: str, near: str) -> None:
    (found,) = problems(postgres_settings={name: "1"})
    assert found == f"postgres_settings.{name}: PostgreSQL has no such setting. Did you mean '{near}'?"


def test_every_setting_that_the_sizing_decides_is_a_known_name() -> None:
    from slipway.postgres.names import PG_SETTINGS
    from slipway.sizing.plan import SETTING_NAMES

    poolers_and_redis = {"pool_size", "session_pool_size", "max_client_conn", "redis_maxmemory"}
    assert set(SETTING_NAMES) - PG_SETTINGS == poolers_and_redis


def test_wrong_secret_is_reported_without_its_value() -> None:
    (found,) = app_problems(secrets={"KEY": ["planted-a1b2c3"]})
    assert found.startswith("slipway_apps[0].secrets.KEY")
    assert "planted" not in found


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [("slipway_admin_usr", "slipway_admin_user"), ("slipway_app", "slipway_apps"), ("ansible_prot", "ansible_port"),
     ("posgres_settings", "postgres_settings"), ("slipway-timezone", "slipway_timezone")],
)  # fmt: skip
def test_misspelled_variable_is_recognised(name: str, suggestion: str) -> None:
    source = rules.Source("main.yml", (name,), lines={(name,): 7})
    (found,) = rules.check_names([source], {"postgres_settings", "caddy_sites"})
    assert str(found) == f"main.yml:7: {name}: unknown variable. Did you mean '{suggestion}'?"


def test_unlike_names_get_no_false_suggestion() -> None:
    assert closest("slipway_flux", SETTINGS) is None
    assert closest("mine", SETTINGS) is None


def test_known_own_and_vault_variables_pass() -> None:
    names = ("slipway_apps", "postgres_settings", "vault_x", "ansible_host", "mine", "shop_colour")
    source = rules.Source("main.yml", names)
    assert list(rules.check_names([source], {"postgres_settings"}, ["mine", "shop_*"])) == []


def test_playbooks_own_variables_are_known_on_the_command_line_alone() -> None:
    source = rules.Source("x", ("release",))
    assert list(rules.check_names([source], set(), command_line=True)) == []
    assert len(list(rules.check_names([source], set()))) == 1


def test_groups_are_checked() -> None:
    good = {"all": ["web1"], "edge": ["web1"], "app": ["web1"], "db": ["web1"], "ungrouped": []}
    assert list(rules.check_groups(good)) == []
    (unknown,) = rules.check_groups({**good, "dbs": ["web1"]})
    assert "unknown group 'dbs'" in str(unknown)
    assert list(rules.check_groups({**good, "dbs": ["web1"]}, ["dbs"])) == []
    (empty,) = rules.check_groups({"all": []})
    assert "no host" in str(empty)
    assert list(rules.check_groups({**good, "all": ["web1", "db1"], "db": ["db1"]})) == []
    (alone,) = rules.check_groups({**good, "all": ["web1", "jobs1"], "worker": ["jobs1"]})
    assert "'jobs1'" in str(alone)
    assert "private network" in str(alone)
    assert list(rules.check_groups({**good, "worker": ["web1"]})) == []
    (lost,) = rules.check_groups({**good, "all": ["web1", "web2"], "ungrouped": ["web2"]})
    assert "'web2' is in no group" in str(lost)


def test_plain_text_secrets_are_refused_except_in_the_lab() -> None:
    raw = {
        "vault_apps": {"notes": {"secret_key": "planted-x"}},
        "slipway_apps": [{"name": "notes", "secrets": {"A": "planted-y", "B": "{{ vault_apps.notes.b }}"}}],
    }
    source = rules.Source("all.yml", tuple(raw), raw=raw)
    found = [str(problem) for problem in rules.check_secrets(source, "production")]
    assert len(found) == 2
    assert "ansible-vault encrypt all.yml" in found[0]
    assert "slipway_apps[0].secrets.A" in found[1]
    assert not any("planted" in line for line in found)
    assert list(rules.check_secrets(source, "lab")) == []
    assert list(rules.check_secrets(rules.Source("v.yml", ("vault_apps",), encrypted=True), "production")) == []


def test_inline_vault_values_count_as_encrypted() -> None:
    source = rules.Source("v.yml", ("vault_apps",), raw={"vault_apps": {"notes": {"k": None}}})
    assert list(rules.check_secrets(source, "production")) == []


def test_placeholders_are_found_at_any_depth() -> None:
    value = [{"a": ["x", "CHANGEME please"]}]
    (found,) = rules.check_placeholders(value, ("v",))
    assert spell(found.path) == "v[0].a[1]"


def test_message_of_a_problem_is_one_line_with_place_first() -> None:
    problem = Problem("unknown key", "did you mean 'image'?", ("slipway_apps", 0, "imgae"), "apps.yml", 12)
    assert str(problem) == "apps.yml:12: slipway_apps[0].imgae: unknown key. Did you mean 'image'?"


_JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*APP.fields, "x", "y"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(_JUNK)
def test_no_value_makes_the_check_fall_over(value: Any) -> None:
    for name, field in SETTINGS.items():
        for problem in check(value, field, (name,)):
            assert str(problem).startswith(name)
    list(rules.check_values({"slipway_apps": value, "vault_apps": value}))


@given(st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?(\.[a-z]{2,5}){1,3}", fullmatch=True))
def test_ordinary_domains_pass(domain: str) -> None:
    assert expected_form("domain", domain) == ""


def test_every_field_is_documented() -> None:
    def walk(field: Field) -> None:
        assert field.doc
        for inner in (
            *field.fields.values(),
            *([field.items] if field.items else []),
            *([field.values] if field.values else []),
        ):
            walk(inner)

    for field in SETTINGS.values():
        walk(field)
