#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Adapter: the Slipway library and the ``slipway`` command on a server."""

from __future__ import annotations

DOCUMENTATION = r"""
module: agent_install
short_description: Installs the Slipway library and its command on a server
version_added: "0.1.0"
description:
  - Without O(archive) it only says whether O(release) is there; the action plugin of the same name sends the archive when it
    is not.
  - Only Debian's own Python is needed on the server.
attributes:
  check_mode:
    support: full
    description: Says whether it would install, without doing so.
  diff_mode:
    support: none
    description: The files are the library's own.
options:
  release:
    description: What identifies the library's content. The action plugin fills it in.
    type: str
  archive:
    description: The library as one text. The action plugin fills it in.
    type: str
author: [Slipway maintainers (@slipway)]
"""

EXAMPLES = r"""
- name: Install the agent
  slipway.vps.agent_install:
"""

RETURN = r"""
release:
  description: What identifies the installed library.
  type: str
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.vps.plugins.module_utils._ansible import run_adapter
from ansible_collections.slipway.vps.plugins.module_utils.slipway import agentfiles

SPEC = {"release": {"type": "str"}, "archive": {"type": "str"}}


def main(module: AnsibleModule) -> dict:
    """Install when asked to and needed."""
    release, archive = module.params["release"], module.params["archive"]
    if agentfiles.installed(release):
        return {"changed": False, "release": release, **_facts()}
    if archive and not module.check_mode:
        agentfiles.install(agentfiles.unpack(archive), release)
    return {"changed": True, "release": release, "missing": not archive, **_facts()}


def _facts() -> dict:
    return {"ansible_facts": {"slipway_agent": agentfiles.current()}}


if __name__ == "__main__":
    run_adapter(SPEC, main)
