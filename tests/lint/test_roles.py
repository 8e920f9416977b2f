# SPDX-License-Identifier: Apache-2.0
"""Every role reads the same: documented variables, the same five parts, short files, no reach beyond itself."""

from __future__ import annotations

import re
from typing import Any

import pytest
from slipway.climb.plan import PHASES as CLIMB_PHASES

from tests.lint.house import ROLES, ROOT, defaults, load, relative, specs, task_files, tasks

PARTS = ("preflight", "install", "configure", "run", "verify")
PHASES = [f"{name}.yml" for name in CLIMB_PHASES]
GROUPS = ("edge", "app", "worker", "db", "redis", "monitor", "drill")
# What a task may have besides its module.
KEYWORDS = frozenset(
    [
        *("name", "when", "loop", "loop_control", "register", "vars", "tags", "become", "become_user", "become_method"),
        *("changed_when", "failed_when", "no_log", "notify", "block", "rescue", "always", "environment", "check_mode"),
        *(
            "diff",
            "delegate_to",
            "delegate_facts",
            "run_once",
            "until",
            "retries",
            "delay",
            "args",
            "listen",
            "timeout",
        ),
        *("any_errors_fatal", "ignore_unreachable", "async", "poll", "module_defaults", "throttle"),
    ]
)
TYPES: dict[str, tuple[type, ...]] = {
    "str": (str, int, float), "int": (int, str), "float": (float, int, str), "bool": (bool, str), "list": (list, str), "dict": (dict, str),
    "path": (str,), "raw": (object,),
}  # fmt: skip


def test_there_are_roles() -> None:
    assert len(ROLES) >= 7


@pytest.mark.parametrize("role", ROLES)
def test_documented_variables_are_those_with_a_default_or_required(role: str) -> None:
    given, documented = defaults(role), specs(role)
    required = {name for name, option in documented.items() if option.get("required")}
    assert set(given) - set(documented) == set(), "in defaults/main.yml, missing in meta/argument_specs.yml"
    assert set(documented) - set(given) - required == set(), "in meta/argument_specs.yml, missing in defaults/main.yml"


@pytest.mark.parametrize("role", ROLES)
def test_documented_defaults_and_types_are_the_real_ones(role: str) -> None:
    documented = specs(role)
    for name, value in defaults(role).items():
        option = documented.get(name, {})
        assert option.get("description"), f"{name} has no description"
        kind = option.get("type", "str")
        if value is not None:
            assert isinstance(value, TYPES[kind]), f"{name}: default {value!r} is no {kind}"
        if "default" in option and not is_template(value):
            assert option["default"] == value, f"{name}: {option['default']!r} is documented, {value!r} is set"
        if option.get("choices") and value not in (None, "") and not is_template(value):
            assert value in option["choices"], f"{name}: {value!r} is none of its choices"


def is_template(value: Any) -> bool:
    return isinstance(value, str) and "{{" in value


@pytest.mark.parametrize("role", ROLES)
def test_each_variable_bears_the_roles_name(role: str) -> None:
    for name in {**defaults(role), **specs(role)}:
        assert name.startswith(f"{role}_"), name


@pytest.mark.parametrize("role", ROLES)
def test_registered_and_set_variables_are_marked_as_internal(role: str) -> None:
    public = set(specs(role))
    for path in (ROOT / "roles" / role / "tasks").rglob("*.yml"):
        for task in tasks(load(path)):
            facts = task.get("ansible.builtin.set_fact") or {}
            for name in [*([task["register"]] if "register" in task else []), *facts]:
                if name in ("cacheable",) or str(name).startswith("ansible_"):
                    continue
                assert str(name).startswith(f"__{role}_"), f"{relative(path)}: {name}"
                assert name not in public


@pytest.mark.parametrize("role", ROLES)
def test_each_default_has_a_comment(role: str) -> None:
    path = ROOT / "roles" / role / "defaults/main.yml"
    # A comment stands above a variable, or above a block of them with no empty line in between.
    blocks = re.split(r"\n\s*\n", path.read_text()) if path.exists() else []
    bare = []
    for block in blocks:
        lines = [line for line in block.splitlines() if line != "---"]
        if any(re.match(rf"{role}_\w+:", line) for line in lines) and not lines[0].startswith("#"):
            bare.append(lines[0])
    assert bare == [], "no comment above"


@pytest.mark.parametrize("role", ROLES)
def test_role_is_complete(role: str) -> None:
    base = ROOT / "roles" / role
    for name in ("README.md", "meta/main.yml", "meta/argument_specs.yml", "defaults/main.yml", "tasks/main.yml"):
        assert (base / name).exists(), f"{role} has no {name}"
    lines = (base / "README.md").read_text().splitlines()
    assert 8 <= len(lines) <= 120, "a README of about a screen"


@pytest.mark.parametrize("role", ROLES)
def test_main_is_a_table_of_contents(role: str) -> None:
    path = ROOT / "roles" / role / "tasks/main.yml"
    assert len(path.read_text().splitlines()) < 40
    named = [
        str(value)
        for task in tasks(load(path))
        for key, value in task.items()
        if key.endswith(("import_tasks", "include_tasks"))
    ]
    if role.startswith("rung_"):
        assert named == PHASES, "a climb has all six phases, one file each, in order"
        return
    order = [PARTS.index(name.removesuffix(".yml")) for name in named if name.removesuffix(".yml") in PARTS]
    assert order == sorted(order), f"{named} are not in the order {PARTS}"
    assert len(order) >= 3, f"{named}: the parts are {PARTS}"


@pytest.mark.parametrize("role", ROLES)
def test_no_group_name_and_no_users_setting_is_read_by_a_role(role: str) -> None:
    for path in (ROOT / "roles" / role).rglob("*"):
        if path.suffix not in (".yml", ".j2") or path.name == "argument_specs.yml":
            continue
        text = re.sub(r"(?m)^\s*#.*$", "", path.read_text())
        assert not re.search(r"\bgroups\s*(\[|\.)|\bgroup_names\b", text), f"{relative(path)} looks at groups"
        found = re.findall(
            r"(?<!ansible_facts\.)(?<![\w.'\"-])slipway_(?!host\b|switch\b|dead)\w+",
            " ".join(without_strings(part) for part in re.findall(r"{{.*?}}|{%.*?%}", text, re.DOTALL)),
        )
        assert found == [], f"{relative(path)} reads {found}: playbooks pass what a role needs"


def without_strings(expression: str) -> str:
    """A template's expression without its quoted texts, where a setting may be named in a message."""
    return re.sub(r"'[^']*'|\"[^\"]*\"", "''", expression)


def test_tasks_say_what_they_do_and_hide_nothing() -> None:
    for path in task_files():
        text = path.read_text()
        assert "ignore_errors" not in text, relative(path)
        for number, line in enumerate(text.splitlines()):
            if re.match(r"\s*failed_when: false", line):
                near = "\n".join(text.splitlines()[max(0, number - 8) : number + 1])
                assert "#" in near, f"{relative(path)}:{number + 1}: failed_when: false without a reason beside it"
        for task in tasks(load(path)):
            name = task.get("name", "")
            if any(key.endswith("import_tasks") for key in task) and not name:
                continue
            assert name, f"{relative(path)}: a task has no name"
            assert name[0].isupper(), f"{relative(path)}: '{name}' starts in lower case"


def test_each_unit_is_in_a_sandbox() -> None:
    """Units that Slipway writes; packages' own units with a drop-in of ours have theirs from Debian."""
    bare = []
    for path in sorted(ROOT.glob("roles/*/templates/*.service.j2")):
        text = path.read_text()
        if "{% include 'sandbox.j2' %}" in text:
            text += (path.parent / "sandbox.j2").read_text()
        if not all(f"\n{word}=" in text for word in ("NoNewPrivileges", "ProtectSystem", "LockPersonality")):
            bare.append(relative(path))
    assert bare == []


def test_templates_are_looked_up_without_a_copy_of_all_variables() -> None:
    """The lookup slipway.vps.template says why."""
    slow = [
        relative(path)
        for path in sorted(ROOT.glob("roles/*/*/*"))
        if path.is_file() and re.search(r"(lookup|query)\('ansible\.builtin\.template'", path.read_text())
    ]
    assert slow == []


def test_modules_are_named_in_full() -> None:
    for path in task_files():
        for task in tasks(load(path)):
            modules = [key for key in task if key not in KEYWORDS]
            assert all(key.count(".") >= 2 for key in modules), f"{relative(path)}: {modules} in '{task.get('name')}'"


def test_group_names_are_the_schemas() -> None:
    from slipway.inventory.settings import GROUPS as KNOWN

    assert tuple(KNOWN) == GROUPS


def test_packages_of_included_roles_are_said_alike_for_the_transactions() -> None:
    """site.yml includes these roles, so that their defaults are not known where vars/roles.yml puts packages together."""
    variables = load(ROOT / "playbooks" / "vars" / "roles.yml")
    for role in ("redis", "pitr"):
        packages = defaults(role)[f"{role}_packages"]
        assert f"default({packages!r})" in variables[f"site_{role}_packages"], role
    assert variables["private_network_packages"] == defaults("private_network")["private_network_packages"]
