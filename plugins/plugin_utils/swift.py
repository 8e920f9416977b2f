# SPDX-License-Identifier: Apache-2.0
"""The controller's side of modules that run by the library which the agent has put on the host.

Nothing else changes: the same module, its parameters checked by Ansible's own validator, the same result. Where the host has not exactly
this checkout's library (before the first run of site.yml, after an update of Slipway), where the connection is not ssh or does not
pipeline, and where a parameter is wrong, the module goes the ordinary way.
"""

from __future__ import annotations

import functools
import importlib
import json
import shlex
from pathlib import Path
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.common.parameters import remove_values
from ansible.plugins.action import ActionBase
from ansible.utils.vars import merge_hash
from ansible_collections.slipway.vps.plugins.module_utils.slipway import agentfiles

PREFIX = "slipway.vps."
MODULES = "ansible_collections.slipway.vps.plugins.modules"
FACT = "slipway_agent"
PYTHON = "/usr/bin/python3"
ABSENT = 69
PACKAGE = Path(agentfiles.__file__).resolve().parent


@functools.cache
def own_version() -> str:
    """The version of this checkout's library, as the agent names its folder on the host."""
    return agentfiles.version(agentfiles.read(PACKAGE))


@functools.cache
def adapter(name: str) -> tuple[str, dict[str, Any]] | None:
    """A module's text and argument spec; None for a module that names none (``SPEC``) and so goes the ordinary way."""
    module = importlib.import_module(f"{MODULES}.{name}")
    spec = getattr(module, "SPEC", None)
    return None if spec is None else (Path(str(module.__file__)).read_text(encoding="utf-8"), spec)


def command(version: str) -> str:
    """The shell's words that run a request from standard input; exit code `ABSENT` where the host has not this version."""
    folder = f"{agentfiles.HOME}/{version}"
    boot = f"import sys; sys.path.insert(0, {folder!r}); from slipway.adapters import serve; serve()"
    return f"test -d {folder}/slipway || exit {ABSENT}; {PYTHON} -I -c {shlex.quote(boot)}"


def request(name: str, arguments: dict[str, Any], *, check_mode: bool) -> tuple[str, set[str]] | None:
    """The request as JSON, and the values that no result may show. None for what has to go the ordinary way."""
    found = adapter(name)
    if found is None:
        return None
    source, spec = found
    checked = ArgumentSpecValidator(spec).validate(arguments)
    if checked.error_messages:
        return None
    whole = {"name": name, "source": source, "params": checked.validated_parameters, "check_mode": check_mode}
    try:
        return json.dumps(whole), set(checked._no_log_values)
    except TypeError:
        return None


def result_of(name: str, done: dict[str, Any], hidden: set[str]) -> dict[str, Any]:
    """The module's result from what the connection brought back; a failure in words where that is none."""
    lines = str(done.get("stdout") or "").strip().splitlines()
    try:
        found = json.loads(lines[-1]) if lines else None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        said = str(done.get("stderr") or "").strip().splitlines()
        found = {
            "failed": True,
            "msg": f"The module {name} ended with code {done.get('rc')} and no result: {said[-1] if said else 'it said nothing'}",
        }
    clean: dict[str, Any] = remove_values(found, hidden)
    return clean


class SwiftAction(ActionBase):
    """For actions that carry out modules of this collection."""

    def _execute_module(
        self,
        module_name: str | None = None,
        module_args: dict[str, Any] | None = None,
        tmp: str | None = None,
        task_vars: dict[str, Any] | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        name = str(module_name or self._task.action)
        given = self._task.args if module_args is None else module_args
        found = None if options else self._swiftly(name, dict(given), task_vars or {})
        if found is not None:
            return found
        done: dict[str, Any] = super()._execute_module(module_name, module_args, tmp, task_vars, **options)
        return done

    def _swiftly(self, name: str, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any] | None:
        """The result, or None where the module has to go the ordinary way."""
        there = (task_vars.get("ansible_facts") or {}).get(FACT)
        if self._connection.transport != "ssh" or not self._is_pipelining_enabled("new"):
            return None
        if not name.startswith(PREFIX) or there not in (None, own_version()):
            return None
        asked = request(name.removeprefix(PREFIX), arguments, check_mode=bool(self._task.check_mode))
        if asked is None:
            return None
        text, hidden = asked
        words = f"{self._compute_environment_string()} {command(own_version())}".strip()
        done = self._low_level_execute_command(words, in_data=text.encode())
        if done.get("rc") == ABSENT and not done.get("stdout"):
            return None
        return result_of(name, done, hidden)


class SwiftModule(SwiftAction):
    """A module with nothing to do on the control node."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """As Ansible's own plugin for modules that have none."""
        done: dict[str, Any] = merge_hash(super().run(tmp, task_vars), self._execute_module(task_vars=task_vars))
        return done
