# SPDX-License-Identifier: Apache-2.0
"""``fab logs notes`` beside ``fab logs``: Invoke knows required positional arguments, and flags, but no optional ones.

So its parser is told which flag of a task a bare word belongs to. A test holds this to the Invoke that is installed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from invoke.parser.parser import ParseMachine


def accept(words: Mapping[str, str]) -> None:
    """From now on a bare word after the task ``name`` is the value of its flag ``words[name]``, unless that has one."""
    original: Callable[[Any, str], None] = getattr(ParseMachine.handle, "__wrapped__", ParseMachine.handle)

    def handle(machine: Any, token: str) -> None:
        flag = None
        if machine.context and not token.startswith("-") and not machine.waiting_for_flag_value:
            flag = machine.context.args.get(words.get(machine.context.name, ""))
        if flag is not None and flag.raw_value is None:
            flag.value = token
        else:
            original(machine, token)

    handle.__wrapped__ = original  # type: ignore[attr-defined]
    setattr(ParseMachine, "handle", handle)  # noqa: B010  (mypy takes no assignment to a method)
