# SPDX-License-Identifier: Apache-2.0
"""Writes how long each task took on each host, one JSON object a line, to the file $SLIPWAY_TASK_TIMES."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: task_times
type: aggregate
short_description: Time of each task on each host, as JSON lines
description:
  - Writes one JSON object a line to the file named by the environment variable C(SLIPWAY_TASK_TIMES).
  - Skipped tasks are left out, they cost nothing worth counting.
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "task_times"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._started: dict[tuple[str, str], float] = {}
        self._path = os.environ.get("SLIPWAY_TASK_TIMES", os.devnull)

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        self._started[host.get_name(), task._uuid] = time.monotonic()

    def v2_runner_on_ok(self, result: Any) -> None:
        self._write(result, "changed" if result._result.get("changed") else "ok")

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._write(result, "ignored" if ignore_errors else "failed")

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._write(result, "unreachable")

    def _write(self, result: Any, status: str) -> None:
        host, task = result._host.get_name(), result._task
        started = self._started.pop((host, task._uuid), None)
        if started is None:
            return
        line = {
            "task": task.get_name(),
            "host": host,
            "status": status,
            "seconds": round(time.monotonic() - started, 3),
        }
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
