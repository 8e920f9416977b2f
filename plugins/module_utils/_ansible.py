# SPDX-License-Identifier: Apache-2.0
"""The only glue between the library and AnsibleModule: argument spec in, typed errors and results out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.vps.plugins.module_utils.slipway.errors import SlipwayError


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
    # no_log here means: do not write the parameters to the host's system log, where contents of files and passwords
    # would stay readable to everyone in group adm. Results and diffs are not touched by it.
    module = AnsibleModule(argument_spec=argument_spec, supports_check_mode=supports_check_mode, no_log=True, **options)
    try:
        result = main(module)
    except SlipwayError as error:
        module.fail_json(msg=str(error), problem=error.to_dict())
    except OSError as error:
        module.fail_json(msg=f"{error.filename or 'The system'}: {error.strerror or error}.")
    else:
        module.exit_json(**result)
