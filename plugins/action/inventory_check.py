# SPDX-License-Identifier: Apache-2.0
"""The controller's side of ``slipway.vps.inventory_check``: reads the inventory's files, renders, checks. No round trip."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleError
from ansible.inventory.manager import InventoryManager
from ansible.plugins.action import ActionBase
from ansible.template import Templar
from ansible.utils.vars import load_extra_vars
from ansible.vars.manager import VariableManager
from ansible_collections.slipway.vps.plugins.module_utils.slipway.errors import InputError
from ansible_collections.slipway.vps.plugins.module_utils.slipway.inventory import rules
from ansible_collections.slipway.vps.plugins.module_utils.slipway.inventory.backup_settings import VAULT, check_drills
from ansible_collections.slipway.vps.plugins.module_utils.slipway.inventory.network_rules import check_network
from ansible_collections.slipway.vps.plugins.module_utils.slipway.inventory.redis_rules import check_redis_wished
from ansible_collections.slipway.vps.plugins.module_utils.slipway.inventory.schema import Problem
from ansible_collections.slipway.vps.plugins.module_utils.slipway.inventory.settings import SETTINGS
from ansible_collections.slipway.vps.plugins.module_utils.slipway.inventory.shape_rules import check_database_host
from ansible_collections.slipway.vps.plugins.plugin_utils.inventory_files import read_source, shown, variable_files

COLLECTION = Path(__file__).resolve().parents[2]
# What the inventory's parsers put among a host's own variables.
INJECTED = {"inventory_file", "inventory_dir"}


def role_variables(collection: Path = COLLECTION) -> set[str]:
    """The public variables of every role, from their argument specs."""
    names: set[str] = set()
    for path in collection.glob("roles/*/meta/argument_specs.yml"):
        specs = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        for entry in specs.get("argument_specs", {}).values():
            names.update(entry.get("options") or {})
    return names


class ActionModule(ActionBase):
    """Checks an inventory before anything else happens; one message lists everything that is wrong."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False
    _VALID_ARGS = frozenset({"playbook_variables"})

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Fails with every problem listed, never quotes a secret."""
        result = super().run(tmp, task_vars)
        sources = list((task_vars or {}).get("ansible_inventory_sources") or [])
        problems = list(dict.fromkeys(str(problem) for problem in self._problems(sources)))
        if problems:
            count = "One thing is" if len(problems) == 1 else f"{len(problems)} things are"
            lines = "\n".join(f"  - {problem}" for problem in problems)
            result.update(failed=True, msg=f"{count} wrong with the inventory, and nothing has been touched:\n{lines}")
        return result

    def _problems(self, sources: list[str]) -> Iterator[Problem]:
        loader = self._loader
        inventory = InventoryManager(loader=loader, sources=[source for source in sources if source])
        variables = VariableManager(loader=loader, inventory=inventory)
        extra = load_extra_vars(loader)
        hosts = inventory.get_hosts("all")
        views = [
            Settings(loader, variables.get_vars(host=host, include_hostvars=False, use_cache=False)) for host in hosts
        ]
        first = views[0].known if views else {}
        files: list[rules.Source] = []
        for problem_or_file in self._files(sources):
            if isinstance(problem_or_file, Problem):
                yield problem_or_file
            else:
                files.append(problem_or_file)
        files.extend(inline_sources(inventory, sources))

        groups = {name: [host.name for host in group.get_hosts()] for name, group in inventory.groups.items()}
        groups["ungrouped"] = [name for name in groups.get("ungrouped", []) if name not in ("localhost",)]
        yield from rules.check_groups(groups, as_words(first.get("slipway_extra_groups")))
        yield from check_drills(groups, first)
        yield from check_database_host(groups, first.get("slipway_private_network"))
        yield from check_redis_wished(groups, first.get("slipway_apps"))
        if not hosts:
            return  # without a host nothing is known of its variables, and all would look unknown
        words = as_words(first.get("slipway_extra_variables"))
        words += ["lab_*"] if first.get("slipway_environment") == "lab" else []  # what bin/lab tells of itself
        known = role_variables()
        yield from rules.check_names(files, known, words)
        named = rules.Source("the command line (-e)", tuple(extra))
        playbook = [*words, *(self._task.args.get("playbook_variables") or [])]
        yield from rules.check_names([named], known, playbook, command_line=True)
        unfilled = set()
        for file in files:
            yield from rules.check_secrets(file, str(first.get("slipway_environment", "")))
            for name, value in file.raw.items():
                for problem in rules.check_placeholders(value, (name,)):
                    unfilled.add(problem.path)
                    yield replace(problem, file=file.file, line=file.lines.get(problem.path, 0))
        own = {host.name: view.known for host, view in zip(hosts, views, strict=True)}
        for problem in check_network(own):
            yield located(problem, files)
        for view in views:
            for problem in (*view.problems, *rules.check_values(view.known)):
                if problem.path not in unfilled:
                    yield located(problem, files)

    def _files(self, sources: list[str]) -> Iterator[rules.Source | Problem]:
        for source in sources:
            path = Path(source)
            if not path.exists():
                continue
            for file in variable_files(path):
                try:
                    found = read_source(file)
                    if found.encrypted:
                        found = replace(found, names=tuple(self._loader.load_from_file(str(file)) or ()))
                    yield found
                except (AnsibleError, InputError) as error:
                    remedy = getattr(error, "remedy", "") or "check the file and its vault password"
                    yield Problem(getattr(error, "found", None) or f"{shown(file)} cannot be read", remedy)


class Settings:
    """One host's ``slipway_*`` settings with every template rendered, and what could not be rendered."""

    def __init__(self, loader: Any, variables: Mapping[str, Any]) -> None:
        self.problems: list[Problem] = []
        self._templar = Templar(loader=loader, variables=dict(variables))
        wanted = (*SETTINGS, *VAULT, "vault_apps", "postgres_settings", "ansible_host")
        self.known = {name: self._render(variables[name], (name,)) for name in wanted if name in variables}

    def _render(self, value: Any, path: tuple[str | int, ...]) -> Any:
        if isinstance(value, Mapping):
            return {key: self._render(inner, (*path, str(key))) for key, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._render(inner, (*path, index)) for index, inner in enumerate(value)]
        try:
            return self._templar.template(value)
        except AnsibleError as error:
            reason = str(getattr(error, "message", error)).splitlines()[0]
            shown = "its value" if str(path[0]).startswith("vault_") else f"'{value}'"
            self.problems.append(Problem(f"{shown} cannot be worked out: {reason}", "", path))
            return ""


def inline_sources(inventory: InventoryManager, sources: list[str]) -> Iterator[rules.Source]:
    """Variables set within the inventory file itself, per group and host."""
    file = shown(Path(sources[0])) if sources else ""
    for entity in (*inventory.groups.values(), *inventory.hosts.values()):
        names = tuple(name for name in entity.vars if name not in INJECTED)
        if names:
            raw = {name: entity.vars[name] for name in names}
            yield rules.Source(f"{file} ({entity.name})", names, raw=raw)


def as_words(value: Any) -> list[str]:
    """A list setting as words; anything else, already reported elsewhere, as none."""
    return [str(item) for item in value] if isinstance(value, (list, tuple)) else []


def located(problem: Problem, files: list[rules.Source]) -> Problem:
    """The problem with the file and line that set its variable, where one of the files did."""
    for path in (problem.path[:end] for end in range(len(problem.path), 0, -1)):
        for file in reversed(files):
            if path in file.lines:
                return replace(problem, file=file.file, line=file.lines[path])
    owner = next((file.file for file in files if problem.path and problem.path[0] in file.names), "")
    return replace(problem, file=owner)
