# SPDX-License-Identifier: Apache-2.0
"""The controller's side of ``slipway.vps.say``: prints a text as it is."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

display = Display()


class ActionModule(ActionBase):
    """Opens no connection."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False
    _requires_connection = False
    _VALID_ARGS = frozenset({"text"})

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Print and go on."""
        result = super().run(tmp, task_vars)
        display.display(f"\n{str(self._task.args['text']).rstrip()}\n")
        return {**result, "changed": False}
