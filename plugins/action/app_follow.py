# SPDX-License-Identifier: Apache-2.0
"""The controller's side of ``slipway.vps.app_follow``: looks again and again, tells a person how far it is."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

display = Display()
LOOK_SECONDS = 20
LOST_SECONDS = 180
TELL_SECONDS = 60


class ActionModule(ActionBase):
    """The deploy runs on the host: a lost connection is taken up again, the deploy does not notice."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _VALID_ARGS = frozenset({"app", "request", "phase"})

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Fails with the deploy's own message."""
        result = super().run(tmp, task_vars)
        app = self._task.args["app"]
        phases: list[dict[str, Any]] = []
        began = said = time.monotonic()
        lost: float | None = None
        while True:
            try:
                done = self._execute_module(
                    "slipway.vps.app_follow",
                    {**self._task.args, "seconds": LOOK_SECONDS, "told": len(phases)},
                    task_vars=task_vars,
                )
                lost = None
            except AnsibleConnectionFailure as error:
                lost = lost or time.monotonic()
                if time.monotonic() - lost > LOST_SECONDS:
                    raise AnsibleError(
                        f"The connection to the host is lost ({error}). The deploy of {app} goes on there. "
                        "To mend it: run the same playbook again, it joins the deploy or reports how it ended."
                    ) from error
                display.display(f"  {app}: the connection is lost, the deploy goes on; trying again")
                with suppress(Exception):
                    self._connection.reset()
                time.sleep(3)
                continue
            for phase in done.get("phases", [])[len(phases) :]:
                phases.append(phase)
                said = time.monotonic()
                if phase["status"] != "skipped":
                    detail = f", {phase['detail']}" if phase["detail"] else ""
                    display.display(f"  {app}: {phase['name'].replace('_', ' ')}: {phase['duration']} s{detail}")
            if not done.get("waiting"):
                break
            if time.monotonic() - said >= TELL_SECONDS:
                said = time.monotonic()
                display.display(f"  {app}: the deploy goes on, {said - began:.0f} s so far")
        done.pop("invocation", None)
        done.pop("waiting", None)
        return {**result, **done}
