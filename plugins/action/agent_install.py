# SPDX-License-Identifier: Apache-2.0
"""The controller's side of ``slipway.vps.agent_install``: asks first, and sends the library only where it is missing."""

from __future__ import annotations

from typing import Any

from ansible_collections.slipway.vps.plugins.module_utils.slipway import agentfiles
from ansible_collections.slipway.vps.plugins.plugin_utils.swift import PACKAGE, SwiftAction, own_version


class ActionModule(SwiftAction):
    """One round trip in the steady state, two when the library changed."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _VALID_ARGS = frozenset()

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Install the library of this checkout."""
        result = super().run(tmp, task_vars)
        arguments = {"release": own_version()}
        done = self._execute_module("slipway.vps.agent_install", arguments, task_vars=task_vars)
        if done.get("missing") and not self._task.check_mode:
            arguments["archive"] = agentfiles.pack(agentfiles.read(PACKAGE))
            done = self._execute_module("slipway.vps.agent_install", arguments, task_vars=task_vars)
        for key in ("invocation", "missing"):
            done.pop(key, None)
        return {**result, **done}
