# SPDX-License-Identifier: Apache-2.0
"""Names the file and line of an inventory that is not YAML, which ansible-core 2.19 does not. Sets no variable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleParserError
from ansible.plugins.vars import BaseVarsPlugin
from ansible_collections.slipway.vps.plugins.module_utils.slipway.errors import InputError
from ansible_collections.slipway.vps.plugins.plugin_utils.inventory_files import read_source, variable_files

DOCUMENTATION = r"""
name: readable
version_added: "0.1.0"
short_description: Names the file and line of an inventory that is not YAML
description:
  - Sets no variable. Comes before P(ansible.builtin.host_group_vars#vars) in C(vars_plugins_enabled).
options: {}
"""

_SEEN: set[str] = set()


class VarsModule(BaseVarsPlugin):
    """Reads each inventory's files once a run."""

    def get_vars(self, loader: Any, path: str, entities: Any) -> dict[str, Any]:
        """No variables. Raises AnsibleParserError with file, line and remedy."""
        super().get_vars(loader, path, entities)
        if path not in _SEEN:
            _SEEN.add(path)
            for file in variable_files(Path(path)):
                try:
                    read_source(file)
                except InputError as error:
                    raise AnsibleParserError(str(error)) from None
        return {}
