# SPDX-License-Identifier: Apache-2.0
"""The controller's side of ``slipway.vps.climb_record``: which run this is, and whether the one that the record names lives."""

from __future__ import annotations

import os
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.slipway.vps.plugins.module_utils.slipway.climb import operator


class ActionModule(ActionBase):
    """A task runs in a child of ``ansible-playbook``: its parent is the run."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Adds ``held_by`` (see the module) where another run's hand is on the record."""
        result = super().run(tmp, task_vars)
        own = str(operator.this(os.getppid()))
        seen = self._execute_module("slipway.vps.climb_record", {**self._task.args, "run": own}, task_vars=task_vars)
        record = seen.get("record") or {}
        held = ""
        if record.get("open") and record.get("run", "") != own and operator.alive(record.get("run", "")) is not False:
            held = record["run"]
        return {**result, **seen, "held_by": held}
