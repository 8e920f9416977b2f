# SPDX-License-Identifier: Apache-2.0
"""The controller's side of ``slipway.vps.agent_install``: asks first, and sends the library only where it is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.slipway.vps.plugins.module_utils.slipway import agentfiles

PACKAGE = Path(agentfiles.__file__).resolve().parent


class ActionModule(ActionBase):
    """One round trip in the steady state, two when the library changed."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _VALID_ARGS = frozenset()

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Install the library of this checkout."""
        result = super().run(tmp, task_vars)
        files = agentfiles.read(PACKAGE)
        arguments = {"release": agentfiles.version(files)}
        done = self._execute_module("slipway.vps.agent_install", arguments, task_vars=task_vars)
        if done.get("missing") and not self._task.check_mode:
            arguments["archive"] = agentfiles.pack(files)
            done = self._execute_module("slipway.vps.agent_install", arguments, task_vars=task_vars)
        for key in ("invocation", "missing"):
            done.pop(key, None)
        return {**result, **done}
