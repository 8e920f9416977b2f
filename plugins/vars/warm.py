# SPDX-License-Identifier: Apache-2.0
"""Reads once what Ansible would read again for each task. Sets no variable.

Two things take a fifth of the control node's time in a run of many tasks. Files named in ``vars_files`` are parsed anew for each task
unless the loader has them already; and each task's process imports the filters and tests that it uses, since the process it was forked from had not.
Vars plugins are asked in that first process, before it forks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.plugins.loader import (
    become_loader,
    connection_loader,
    filter_loader,
    lookup_loader,
    shell_loader,
    test_loader,
)
from ansible.plugins.vars import BaseVarsPlugin
from ansible_collections.slipway.vps.plugins.plugin_utils import swift

DOCUMENTATION = r"""
name: warm
version_added: "0.1.0"
short_description: Reads once what Ansible would read again for each task
description:
  - Sets no variable. Without it in C(vars_plugins_enabled) everything works alike, and slower.
options: {}
"""

# As Ansible finds this file: below the checkout or below its link in collections.
_COLLECTION = Path(__file__).parent.parent.parent
_DONE: set[str] = set()
# The modules that nearly every run of site.yml uses.
ADAPTERS = (
    "agent_install", "app_info", "caddy_verify", "host_info", "managed_files", "pgbouncer_probe", "postgres_cluster",
    "postgres_objects", "units",
)  # fmt: skip


def variable_files() -> list[Path]:
    """The files that playbooks name in ``vars_files``, by every path that Ansible may know them by."""
    folders = dict.fromkeys([_COLLECTION, _COLLECTION.resolve()])
    return [path for folder in folders for path in sorted((folder / "playbooks" / "vars").glob("*.yml"))]


def load_plugins() -> None:
    """Import what nearly every task uses: filters, tests, the lookup of templates, and the way to the host."""
    filter_loader.get("slipway.vps.sizing")  # a look for one imports all of them, and all of Ansible's own
    test_loader.get("defined")
    lookup_loader.get("slipway.vps.template", class_only=True)
    for loader, name in ((connection_loader, "ssh"), (become_loader, "sudo"), (shell_loader, "sh")):
        loader.get(name, class_only=True)
    swift.own_version()
    for name in ADAPTERS:
        swift.adapter(name)


class VarsModule(BaseVarsPlugin):
    """Does its work once a run, for the first host or group that it is asked about."""

    def get_vars(self, loader: Any, path: str, entities: Any) -> dict[str, Any]:
        """No variables."""
        super().get_vars(loader, path, entities)
        if not _DONE:
            _DONE.add(path)
            load_plugins()
            for file in variable_files():
                loader.load_from_file(str(file), cache="all", unsafe=True, trusted_as_template=True)
        return {}
