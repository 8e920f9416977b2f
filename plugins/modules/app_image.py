#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Adapter: takes in the archive of an image or of its source folder."""

from __future__ import annotations

DOCUMENTATION = r"""
module: app_image
short_description: Sends what an app's image is made of to its host
version_added: "0.1.0"
description:
  - The action plugin of the same name packs the source folder, or builds and saves the image on the control node, sends the
    archive, and this module puts it where the deploy engine looks for it. Nothing is sent for an image that is pulled from a
    registry.
attributes:
  check_mode:
    support: full
    description: Says that it would send, without doing so.
  diff_mode:
    support: none
    description: Nothing to compare.
options:
  app: {description: The app., type: str, required: true}
  reference: {description: The image's name on the host., type: str, required: true}
  image:
    description: The app's image as its inventory says. Only the action plugin reads it.
    type: dict
    default: {}
  src:
    description: Where the archive was sent to. The action plugin fills it in.
    type: path
author: [Slipway maintainers (@slipway)]
"""

EXAMPLES = r"""
- name: Send the image
  slipway.vps.app_image:
    app: notes
    reference: slipway/notes:src-0123456789ab
    image: {source: ship, path: ../app}
"""

RETURN = r""" # """

import os
import shutil

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.vps.plugins.module_utils._ansible import run_adapter
from ansible_collections.slipway.vps.plugins.module_utils.slipway.deploy.images import archive_name
from ansible_collections.slipway.vps.plugins.module_utils.slipway.deploy.releases import Store


def main(module: AnsibleModule) -> dict:
    """Move the archive into the app's folder; older ones that no deploy took go."""
    store = Store(module.params["app"])
    shutil.rmtree(store.incoming, ignore_errors=True)
    store.incoming.mkdir(mode=0o700, parents=True)
    target = store.incoming / archive_name(module.params["reference"])
    partial = target.with_suffix(".part")
    shutil.move(module.params["src"], partial)
    os.chown(partial, 0, 0)
    partial.chmod(0o600)
    partial.replace(target)
    return {"changed": True, "bytes": target.stat().st_size}


if __name__ == "__main__":
    run_adapter(
        {
            "app": {"type": "str", "required": True},
            "reference": {"type": "str", "required": True},
            "image": {"type": "dict", "default": {}},
            "src": {"type": "path"},
        },
        main,
    )
