#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Adapter: ask the reverse proxy for its domains, on loopback."""

from __future__ import annotations

DOCUMENTATION = r"""
module: caddy_verify
short_description: Verify that Caddy answers for its domains
version_added: "0.1.0"
description:
  - Plain HTTP has to lead to HTTPS, and HTTPS to present a certificate that names the domain and has not run out.
  - The first certificate of a domain may take the authority a while, so it waits.
  - Who issued the certificate is reported but not judged.
attributes:
  check_mode:
    support: full
    description: Never changes anything; in check mode it does nothing, since Caddy may not be there yet.
options:
  domains:
    description: The domains to ask for.
    type: list
    elements: str
    required: true
  seconds:
    description: How long to wait in all.
    type: float
    default: 90
author: [Slipway maintainers (@slipway)]
"""

EXAMPLES = r"""
- name: Verify that the example is served
  slipway.vps.caddy_verify:
    domains: [notes.example.com]
"""

RETURN = r"""
certificates:
  description: For each domain its issuer and the end of its validity.
  type: list
  elements: dict
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.vps.plugins.module_utils._ansible import run_adapter
from ansible_collections.slipway.vps.plugins.module_utils.slipway.caddy import probe as caddy_probe

SPEC = {
    "domains": {"type": "list", "elements": "str", "required": True},
    "seconds": {"type": "float", "default": 90},
}


def main(module: AnsibleModule) -> dict:
    """Ask, or in check mode do nothing."""
    if module.check_mode:
        return {"changed": False, "certificates": []}
    found = caddy_probe.verify(module.params["domains"], module.params["seconds"])
    return {"changed": False, "certificates": [one.to_dict() for one in found]}


if __name__ == "__main__":
    run_adapter(SPEC, main)
