# SPDX-License-Identifier: Apache-2.0
"""The controller's side of ``slipway.vps.unit_work``: shows what the unit says while it works."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

display = Display()
LOST_SECONDS = 180


class ActionModule(ActionBase):
    """The work runs on the host: a lost connection is taken up again, the work does not notice."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _VALID_ARGS = frozenset({"unit", "request", "command", "arguments", "good_codes"})

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Fails with the last thing that the work said."""
        result = super().run(tmp, task_vars)
        arguments = {key: value for key, value in self._task.args.items() if key != "good_codes"}
        good = [int(code) for code in self._task.args.get("good_codes", [0])]
        lines: list[str] = []
        state = {"invocation": "", "cursor": ""}
        while True:
            seen = self._look({**arguments, **state}, task_vars)
            if seen.get("failed"):
                return {**result, **seen}
            for line in seen["lines"]:
                display.display(f"  {line}")
            lines += seen["lines"]
            state = {"invocation": seen.get("invocation_id", ""), "cursor": seen.get("cursor", "")}
            if not seen["running"]:
                break
        code, ended = int(seen["code"]), str(seen["result"])
        found = {"changed": bool(seen["changed"]), "lines": lines, "code": code, "ended": ended}
        if ended in ("success", "exit-code") and code in good:
            return {**result, **found}
        said = next((line for line in reversed(lines) if line.startswith("slipway: ")), lines[-1] if lines else "")
        why = said.removeprefix("slipway: ") or f"It ended without a word ({ended})."
        if ended not in ("success", "exit-code"):
            why = f"{arguments['unit']} was ended ({ended}). {why}"
        return {**result, **found, "failed": True, "msg": why}

    def _look(self, arguments: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        lost: float | None = None
        while True:
            try:
                seen = self._execute_module("slipway.vps.unit_work", arguments, task_vars=task_vars)
            except AnsibleConnectionFailure as error:
                lost = lost or time.monotonic()
                if not arguments["invocation"] or time.monotonic() - lost > LOST_SECONDS:
                    raise AnsibleError(
                        f"The connection to the host is lost ({error}). What was begun goes on there. "
                        f"To mend it: connect again and look: journalctl --unit {arguments['unit']}"
                    ) from error
                display.display("  the connection is lost, the work goes on; trying again")
                with suppress(Exception):
                    self._connection.reset()
                time.sleep(3)
            else:
                return dict(seen)
