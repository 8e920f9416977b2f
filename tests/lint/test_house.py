# SPDX-License-Identifier: Apache-2.0
"""The house rules that no other linter knows: sizes, machine paths, headers, documents that keep up with the code."""

from __future__ import annotations

import ast
import re

import pytest
import yaml

from tests.lint.house import ROLES, ROOT, defaults, files, load, relative, specs, task_files, texts

PLAYBOOKS = sorted(path for path in ROOT.glob("playbooks/**/*.yml") if path.parent.name not in ("tasks", "vars"))
HAND_WRITTEN = (".py", ".yml", ".yaml", ".sh", ".j2", ".cfg", ".toml")
# Paths of one machine or another, and names of package mirrors: nothing that a fresh clone should know of.
MACHINE = re.compile(
    rf"{re.escape(str(ROOT))}\b|"  # wherever this checkout is
    r"/home/(?!me/|you/|user/|ops/|.*example)[a-z]+/|/Users/[a-z]+/|/root/\.pyenv|index-url\s*=\s*\S+|deb\.debian\.org\S*proxy"
)
SECRETS = re.compile(r"-----BEGIN (?:OPENSSH |RSA |EC )?PRIVATE KEY-----\n[A-Za-z0-9+/=]{60}")


def test_files_are_short() -> None:
    long = {name: len(text.splitlines()) for name, text in texts(*HAND_WRITTEN) if len(text.splitlines()) > 400}
    assert long == {}, "files beyond 400 lines"


def test_task_files_are_short() -> None:
    assert [relative(path) for path in task_files() if len(path.read_text().splitlines()) > 150] == []


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    this = "tests/lint/test_house.py"
    assert [
        name for name, text in texts() if name != this and not name.endswith(".lock") and MACHINE.search(text)
    ] == []


def test_what_is_said_to_be_given_by_e_is_known_to_the_check_of_inventories() -> None:
    """Else the very first play refuses it."""
    from slipway.inventory.settings import PLAYBOOK_VARIABLES

    known = PLAYBOOK_VARIABLES | {name for role in ROLES for name in defaults(role)}
    given = {
        (name, word)
        for name, text in texts(".yml", ".md")
        if name.startswith(("playbooks/", "docs/", "README"))
        for word in re.findall(r"-e ['\"]?([a-z_]+)=", text)
    }
    assert {each for each in given if each[1] not in known} == set()


def test_no_private_key_is_in_git() -> None:
    assert [name for name, text in texts() if SECRETS.search(text)] == []


def test_vaults_in_git_hold_placeholders_alone() -> None:
    for path in files():
        if (
            path.name.startswith("vault")
            and path.suffix in (".yml", ".yaml")
            and relative(path).startswith("inventories/example")
        ):
            values = re.findall(r"(?m)^\s+\w+: (\S+)$", path.read_text())
            assert values
            assert set(values) == {"CHANGEME"}


def test_programs_in_strings_import_what_there_is() -> None:
    """Tests and benchmarks start programs that stand in a string, where neither mypy nor an import at the top looks."""
    library = ROOT / "plugins/module_utils"
    missing = []
    for name, text in texts(".py"):
        for module, names in re.findall(r"(?m)^from (slipway(?:\.\w+)*) import ([\w, ]+)$", text):
            path = library.joinpath(*module.split("."))
            if path.is_dir():
                parts, own = {each.stem for each in path.iterdir()}, (path / "__init__.py").read_text()
                wanted = {each.split(" as ")[0].strip() for each in names.split(",")}
                missing += [(name, module, each) for each in sorted(wanted - parts) if each not in own]
            elif not path.with_suffix(".py").is_file():
                missing.append((name, module, ""))
    assert missing == []


@pytest.mark.parametrize("path", PLAYBOOKS, ids=lambda path: path.name)
def test_playbook_opens_with_what_an_operator_needs(path: object) -> None:
    header = "\n".join(line for line in path.read_text().splitlines()[:40] if line.startswith("#"))  # type: ignore[attr-defined]
    for word in ("Needs:", "Usage:", "Impact:", "Back:"):
        assert word in header, f"{path} says nothing of '{word}'"


def test_playbooks_are_named_so_that_their_full_names_work() -> None:
    assert [path.name for path in PLAYBOOKS if "-" in path.name] == []


def test_python_is_documented_and_licensed() -> None:
    silent = []
    for name, text in texts(".py"):
        if not text.strip() or name.startswith("examples/"):
            continue
        assert "SPDX-License-Identifier: Apache-2.0" in text[:200], name
        tree = ast.parse(text)
        if not ast.get_docstring(tree) and not name.startswith("plugins/modules/") and not name.endswith("__init__.py"):
            silent.append(name)
        if name.startswith(("plugins/module_utils/slipway/", "lab/", "console/")):
            for node in tree.body:
                if (
                    isinstance(node, (ast.FunctionDef, ast.ClassDef))
                    and not node.name.startswith("_")
                    and not ast.get_docstring(node)
                ):
                    silent.append(f"{name}: {node.name}")
    assert silent == [], "without a docstring"


def test_library_stands_alone() -> None:
    for name, text in texts(".py"):
        if not name.startswith("plugins/module_utils/slipway/"):
            continue
        for node in ast.walk(ast.parse(text)):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            for module in modules:
                assert module.split(".")[0] not in ("ansible", "ansible_collections", "slipway"), (
                    f"{name} imports {module}"
                )


def test_no_shell_is_started_from_python() -> None:
    here = ("plugins/", "lab/", "console/", "fabfile.py")
    assert [
        name
        for name, text in texts(".py")
        if name.startswith(here) and re.search(r"shell\s*=\s*True|os\.system\(", text)
    ] == []


# -- documents ----------------------------------------------------------------------------------------------------


def documents() -> str:
    return "\n".join(text for name, text in texts(".md") if name == "README.md" or name.startswith("docs/"))


def test_every_playbook_is_mentioned_in_the_documents() -> None:
    whole = documents()
    missing = [path.name for path in PLAYBOOKS if f"{path.relative_to(ROOT)}" not in whole]
    assert missing == []


def test_every_fab_command_is_mentioned_in_its_page() -> None:
    page = (ROOT / "docs/fab.md").read_text()
    tree = ast.parse((ROOT / "fabfile.py").read_text())
    commands = [
        node.name.removeprefix("show_")
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and any("task" in ast.dump(d) for d in node.decorator_list)
    ]
    assert len(commands) >= 6
    for command in commands:
        assert f"fab {command}" in page, command


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_of_a_role_is_in_its_readme_or_in_the_documents(role: str) -> None:
    readme = ROOT / "roles" / role / "README.md"
    # A README names the variables one needs and points at defaults/main.yml, which comments every one.
    text = readme.read_text() if readme.exists() else ""
    named = [name for name in specs(role) if name in text or name in documents()]
    assert named, f"{role}: its README names none of its variables"
    assert "defaults/main.yml" in text or len(named) == len(specs(role)), f"{role}: where are the others explained?"


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs/index.md").read_text()
    assert [
        path.name for path in (ROOT / "docs").glob("*.md") if path.name != "index.md" and f"({path.name})" not in index
    ] == []


def test_documents_link_to_files_that_exist() -> None:
    broken = []
    for name, text in texts(".md"):
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
            if "://" in target or target.startswith("mailto:"):
                continue
            if not ((ROOT / name).parent / target).exists():
                broken.append(f"{name} -> {target}")
    assert broken == []


def test_documents_name_scripts_and_playbooks_that_exist() -> None:
    lost = []
    for name, text in texts(".md"):
        for target in re.findall(
            r"(?<![\w/.-])((?:bin|playbooks|roles|inventories/example|molecule)/[\w./-]*\w)", text
        ):
            if (
                "<" not in target
                and not (ROOT / target).exists()
                and not re.search(rf"{re.escape(target)}[<*{{]", text)
            ):
                lost.append(f"{name}: {target}")
    # Playbooks of later rungs may be named, as what is not there yet.
    assert [entry for entry in lost if "playbooks/grow/" not in entry] == []


def test_readme_needs_five_commands_at_most_from_vps_to_https() -> None:
    text = (ROOT / "README.md").read_text()
    section = text.partition("## From a VPS to https")[2]
    block = section.partition("```")[2].partition("```")[0]
    commands = [
        line
        for line in block.splitlines()[1:]
        if line.strip() and not line.strip().startswith("#") and not line.startswith(" ")
    ]
    assert 1 <= len(commands) <= 5, commands


def test_changelog_knows_the_version() -> None:
    version = load(ROOT / "galaxy.yml")["version"]
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()
    assert f'version = "{version}"' in (ROOT / "pyproject.toml").read_text()
    assert f'__version__ = "{version}"' in (ROOT / "plugins/module_utils/slipway/__init__.py").read_text()


def test_workflows_are_yaml_and_pin_their_actions() -> None:
    paths = list((ROOT / ".github/workflows").glob("*.yml"))
    assert paths
    for path in paths:
        text = path.read_text()
        assert yaml.safe_load(text)
        for action in re.findall(r"uses:\s*(\S+)", text):
            assert re.search(r"@v\d|@[0-9a-f]{40}", action), f"{path.name}: {action} follows a branch"
        assert "permissions:" in text, f"{path.name}: no permissions named"
