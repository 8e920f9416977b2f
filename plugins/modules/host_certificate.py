#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Adapter: a host's own key with a certificate that it signed itself."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_certificate
short_description: Make a key and a self-signed certificate where they are missing, and return the certificate
version_added: "0.2.0"
description:
  - Makes the key on the host, readable by its owner alone. It is in no argument, result, log or diff. The certificate is public,
    and what another host trusts; it is no authority, so that its key vouches for this certificate and nothing else.
  - Makes both anew where they are no pair, stand for another name, or end within 30 days.
attributes:
  check_mode: {support: full, description: "Makes nothing; the text of a certificate that would be made is empty."}
  diff_mode: {support: full, description: Says why it is made.}
options:
  key: {description: "Where the key lies. Its folder must be there, and hold the certificate too.", type: path, required: true}
  path: {description: Where the certificate lies., type: path, required: true}
  common_name: {description: Common name of its subject., type: str, required: true}
  names: {description: Names and addresses that it stands for., type: list, elements: str, default: []}
  owner: {description: Owner of both files., type: str, default: root}
  group: {description: Group of both files., type: str, default: root}
author: [Slipway maintainers (@slipway)]
"""

EXAMPLES = r"""
- name: Make the pooler's certificate
  slipway.vps.host_certificate:
    key: /etc/pgbouncer/client.key
    path: /etc/pgbouncer/client.crt
    common_name: pgbouncer
  register: made
"""

RETURN = r"""
certificate: {description: The certificate as PEM text., type: str, returned: success}
reason: {description: Why it was made; empty where nothing was., type: str, returned: success}
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.vps.plugins.module_utils._ansible import run_adapter
from ansible_collections.slipway.vps.plugins.module_utils.slipway.host.certificate import Certificate, converge


def main(module: AnsibleModule) -> dict:
    """Make what is missing."""
    params = module.params
    wish = Certificate(
        Path(params["key"]),
        Path(params["path"]),
        params["common_name"],
        tuple(params["names"]),
        params["owner"],
        params["group"],
    )
    reason, text = converge(wish, dry_run=module.check_mode)
    header = {"before_header": params["path"], "after_header": params["path"]}
    return {
        "changed": bool(reason),
        "reason": reason,
        "certificate": text,
        "diff": [{**header, "before": "", "after": f"(a certificate with a new key: {reason})\n"}] if reason else [],
    }


if __name__ == "__main__":
    run_adapter(
        {
            "key": {"type": "path", "required": True, "no_log": False},
            "path": {"type": "path", "required": True},
            "common_name": {"type": "str", "required": True},
            "names": {"type": "list", "elements": "str", "default": []},
            "owner": {"type": "str", "default": "root"},
            "group": {"type": "str", "default": "root"},
        },
        main,
    )
