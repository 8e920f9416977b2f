# SPDX-License-Identifier: Apache-2.0
"""Modules of the collection, run on a server by the library that is installed there.

Ansible sends its own library with each module, and the server compiles all of it anew each time: 0.4 s before the first line of ours. A
module of this collection needs none of it: its parameters were checked on the control node, and the rest is in this library,
which the role agent has put on the server. So the module's text and its parameters are enough (``plugin_utils/swift.py`` sends them).
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from .errors import SlipwayError

LIBRARY = "ansible_collections.slipway.vps.plugins.module_utils"
"""What modules know the folder of this package by."""


class Adapted:
    """What an adapter's ``main`` sees of an AnsibleModule. ``warnings`` holds what it had to warn of."""

    def __init__(self, params: dict[str, Any], check_mode: bool) -> None:
        self.params, self.check_mode = params, check_mode
        self.warnings: list[str] = []

    def warn(self, warning: str) -> None:
        """Have the control node show a warning."""
        self.warnings.append(warning)


def attempt(
    main: Callable[[Any], dict[str, Any]], module: Any, known: type[Exception] = SlipwayError
) -> dict[str, Any]:
    """What ``main(module)`` returns, or for a typed or system error a failure with one message."""
    try:
        return main(module)
    except known as error:
        return {"failed": True, "msg": str(error), "problem": error.to_dict()}  # type: ignore[attr-defined]
    except OSError as error:
        return {"failed": True, "msg": f"{error.filename or 'The system'}: {error.strerror or error}."}


def _stand_in(name: str, **contents: Any) -> ModuleType:
    module = ModuleType(name)
    module.__path__ = []
    vars(module).update(contents)
    sys.modules[name] = module
    return module


def load(name: str, source: str) -> Callable[[Any], dict[str, Any]]:
    """The ``main`` of a module's text, which finds this library by the name it has on the control node."""
    for package in ("ansible", "ansible.module_utils"):
        _stand_in(package)
    _stand_in("ansible.module_utils.basic", AnsibleModule=Adapted)
    parts = LIBRARY.split(".")
    for number in range(1, len(parts) + 1):
        whole = _stand_in(".".join(parts[:number]))
    whole.__path__ = [str(Path(__file__).resolve().parent.parent)]
    _stand_in(f"{LIBRARY}._ansible", UNIT_SPEC={}, run_adapter=None)
    space = vars(_stand_in(f"slipway_module_{name}"))
    exec(compile(source, f"<module {name}>", "exec"), space)  # noqa: S102 - as Ansible runs a module: its text is the control node's own
    main: Callable[[Any], dict[str, Any]] = space["main"]
    return main


def serve() -> None:
    """Read one request from standard input (name, source, params, check_mode), carry it out, print its result on one line."""
    request = json.load(sys.stdin.buffer)
    module = Adapted(request["params"], request["check_mode"])
    main = load(request["name"], request["source"])
    known = importlib.import_module(f"{LIBRARY}.slipway.errors").SlipwayError
    result = attempt(main, module, known)
    if module.warnings:
        result = {**result, "warnings": module.warnings}
    print(json.dumps(result))
