# SPDX-License-Identifier: Apache-2.0
"""Ansible's ordinary output, with each failure told once.

The default of ansible-core 2.19 tells a failure three times: as an error with the task's source, as the result's message,
and as its raw fields. With ``-v`` that is still what is shown.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from ansible import constants as C
from ansible.plugins.callback.default import CallbackModule as Default

DOCUMENTATION = r"""
name: plain
type: stdout
version_added: "0.1.0"
short_description: Ansible's ordinary output, with each failure told once
description:
  - Like P(ansible.builtin.default#callback), but a failed task shows its message alone, and what its program wrote.
  - With C(-v) everything is shown.
extends_documentation_fragment:
  - default_callback
  - result_format_callback
"""

# What programs leave besides the message, in the order in which it helps.
PROGRAM_OUTPUT = ("stderr", "stdout", "module_stderr", "module_stdout")


def told(result: Mapping[str, Any]) -> str:
    """The failure as a person needs it: the message, then what a program wrote and the message lacks. Empty: cannot tell."""
    message = result.get("msg")
    if not isinstance(message, str) or not message.strip() or result.get("results"):
        return ""
    parts = [message.strip()]
    for key in PROGRAM_OUTPUT:
        text = str(result.get(key) or "").strip()
        if text and text not in message and message.strip() not in text:
            parts.append(text)
    return "\n".join(parts)


class CallbackModule(Default):
    """The default's output but for failures."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "slipway.vps.plain"

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """A task failed on a host."""
        if ignore_errors or not self._tell_once(result, "FAILED!"):
            super().v2_runner_on_failed(result, ignore_errors=ignore_errors)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """A host could not be reached."""
        if not self._tell_once(result, "UNREACHABLE!"):
            super().v2_runner_on_unreachable(result)

    def v2_runner_item_on_failed(self, result: Any) -> None:
        """A task failed for one item of its loop."""
        if not self._tell_once(result, "FAILED!", f" (item={self._get_item_label(result.result)})"):
            super().v2_runner_item_on_failed(result)

    def _tell_once(self, result: Any, verdict: str, item: str = "") -> bool:
        text = told(result.result)
        if self._display.verbosity or not text:
            return False
        if self._last_task_banner != result.task._uuid:
            self._print_task_banner(result.task)
        self._handle_warnings(result.result)
        shown = textwrap.indent(text, "  ")
        to_stderr = self.get_option("display_failed_stderr")
        self._display.display(
            f"fatal: [{self.host_label(result)}]: {verdict}{item}\n{shown}", color=C.COLOR_ERROR, stderr=to_stderr
        )
        return True
