# SPDX-License-Identifier: Apache-2.0
"""The only glue between the library and AnsibleModule: argument spec in, typed errors and results out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.vps.plugins.module_utils.slipway.adapters import attempt

# Suboptions of a unit, of the modules units and managed_files.
UNIT_SPEC: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "enabled": {"type": "bool"},
    "state": {"type": "str", "choices": ["started", "stopped"]},
    "masked": {"type": "bool"},
    "restart": {"type": "bool", "default": False},
    "reload": {"type": "bool", "default": False},
    "missing_ok": {"type": "bool", "default": False},
}


class _Module(AnsibleModule):
    """An AnsibleModule that leaves its parameters out of the host's system log.

    Contents of files and passwords would stay there, readable to everyone in group adm. Ansible's own switch for this
    (``no_target_syslog``) is the user's configuration, which a secret must not depend on; ``no_log`` on the option
    would blot out whatever looks alike in results and diffs. tests/integration/test_secrets.py holds this to it.
    """

    def _log_invocation(self) -> None:
        """Nothing."""


def run_adapter(
    argument_spec: dict[str, Any],
    main: Callable[[AnsibleModule], dict[str, Any]],
    *,
    supports_check_mode: bool = True,
    **options: Any,
) -> None:
    """Run ``main(module)`` and exit with what it returns; a typed or system error becomes one message.

    ``options`` go to AnsibleModule as they are (``mutually_exclusive``, ``required_if`` ...).
    """
    module = _Module(argument_spec=argument_spec, supports_check_mode=supports_check_mode, **options)
    result = attempt(main, module)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)
