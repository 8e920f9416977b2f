#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Adapter: the settings of the bucket that backups lie in, and proof by trying of what each key may do."""

from __future__ import annotations

DOCUMENTATION = r"""
module: s3_bucket_guard
short_description: Guard the bucket that backups lie in
version_added: "0.1.0"
description:
  - Checks and sets versions, Object Lock and the lifecycle of a bucket at Backblaze B2 or any other S3 store. Rules of the
    lifecycle that others made stay; one that would make away with backups is an error.
  - Then tries what each key may do, with objects of a few bytes below C(<host>/setup-check/) that it removes again. The writer
    must not read, list or destroy, nobody but the pruner may destroy, and nobody may break a lock. With I(lock_mode) two probes of a few bytes, one of them
    sent in parts, are locked for a minute; they stay that long, and the next run or pruning removes them. A store that forgets a lock is named.
  - Runs on the control node with boto3. The owner's key is needed here alone and goes to no server.
attributes:
  check_mode: {support: full, description: Shows what would be set. Keys are not tried, since that writes.}
  diff_mode: {support: full, description: Shows the settings before and after.}
options:
  endpoint: {description: The S3 endpoint., type: str, required: true}
  region: {description: Its region., type: str, required: true}
  bucket: {description: The bucket's name. It must be there., type: str, required: true}
  ca_file: {description: File with the root certificate of a store with a private authority., type: str, default: ""}
  host: {description: Folder of the bucket to try the keys in. Needed with I(keys)., type: str, default: ""}
  owner: {description: A key that may do everything in this bucket. Never the account's master key., type: dict, required: true, suboptions: &key {key_id: {description: Its id., type: str, required: true}, secret: {description: Its secret., type: str, required: true}}}
  keys:
    description: The keys to try, by purpose. Those left out are not tried, and named as such.
    type: dict
    default: {}
    suboptions:
      writer: {description: Writes backups., type: dict, suboptions: *key}
      reader: {description: Reads them for drills and restores., type: dict, suboptions: *key}
      pruner: {description: Destroys old ones., type: dict, suboptions: *key}
      evidence: {description: Writes copies of the drills' evidence., type: dict, suboptions: *key}
  revoked: {description: Old keys that must open nothing any more. One that still does is an error that names its id., type: list, elements: dict, default: [], suboptions: *key}
  object_lock: {description: Whether Object Lock has to be on. It can never be switched off again., type: bool, default: false}
  default_lock_mode: {description: The lock of what is written without one of its own., type: str, choices: [none, governance, compliance], default: none}
  default_lock_days: {description: How long., type: int, default: 0}
  lock_mode: {description: Try also that a lock of this kind can be set and not broken., type: str, choices: [none, governance, compliance], default: none}
  abort_uploads_days: {description: Unfinished uploads are removed after that. 0 for no such rule., type: int, default: 3}
  remove_hidden_days: {description: Versions hidden or written over are removed after that. 0 for no such rule., type: int, default: 0}
author: [Slipway maintainers (@slipway)]
"""

EXAMPLES = r"""
- name: Guard the bucket
  slipway.vps.s3_bucket_guard:
    endpoint: https://s3.eu-central-003.backblazeb2.com
    region: eu-central-003
    bucket: my-backups
    host: db1
    owner: "{{ vault_backup_owner }}"
    keys: {writer: "{{ vault_backup_writer }}", reader: "{{ vault_backup_reader }}"}
    object_lock: true
    lock_mode: governance
  delegate_to: localhost
"""

RETURN = r"""
settings: {description: The bucket's settings as they are now., type: dict, returned: success}
verified: {description: "What was tried, and what came of it; null where nothing was tried.", type: dict, returned: success}
"""

import secrets
from collections.abc import Callable
from datetime import UTC, datetime

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.vps.plugins.module_utils._ansible import run_adapter
from ansible_collections.slipway.vps.plugins.module_utils.slipway.backup.stores import bucket, keycheck
from ansible_collections.slipway.vps.plugins.module_utils.slipway.backup.stores.s3 import Bucket, S3Store
from ansible_collections.slipway.vps.plugins.module_utils.slipway.errors import InputError, SlipwayError


def _mode(name: str) -> str:
    return "" if name == "none" else name.upper()


def _refuse_old(given: dict, store: Callable[[dict], S3Store]) -> None:
    alive = []
    for key in given["revoked"]:
        tries = keycheck.revoked(store(key), given["host"], f"{secrets.token_hex(6)}")
        alive += [f"{key['key_id']} may still {each.what}" for each in tries if each.found == keycheck.ALLOWED]
    if alive:
        raise SlipwayError(
            f"Old keys still open the bucket {given['bucket']}: {'; '.join(alive)}", "none of them does",
            "delete them at the provider (b2 key delete ID), give it a minute, and run this again",
        )  # fmt: skip


def main(module: AnsibleModule) -> dict:
    """Settings first, then the trying."""
    given = module.params
    try:
        import boto3  # noqa: F401
    except ImportError:
        raise SlipwayError("This Python has no boto3", "it on the control node", "run bin/setup") from None

    def store(key: dict) -> S3Store:
        about = (given["bucket"], given["endpoint"], given["region"], key["key_id"], key["secret"])
        return S3Store(Bucket(*about, ca=given["ca_file"]))

    wish = bucket.Wish(
        given["object_lock"], _mode(given["default_lock_mode"]), given["default_lock_days"], given["abort_uploads_days"],
        given["remove_hidden_days"],
    )  # fmt: skip
    keys = {purpose: store(key) for purpose, key in (given["keys"] or {}).items() if key}
    if (keys or given["revoked"]) and not given["host"]:
        raise InputError("there are keys to try and no host", "host, a folder of the bucket to try them in")
    owner = store(given["owner"])
    before, after = bucket.converge(owner, wish, dry_run=module.check_mode)
    if found := bucket.dangers(after):
        raise SlipwayError(f"In the bucket {given['bucket']} {'; '.join(found)}", "backups stay", "remove that rule")
    verdict = None
    if keys and not module.check_mode:
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
        tried = keycheck.verify(owner, keys, given["host"], name, mode=_mode(given["lock_mode"]))
        if tried.wrong:
            raise SlipwayError(
                f"Keys of {given['bucket']} have other rights than they should. {'; '.join(tried.wrong)}", "",
                "make those keys anew as docs/backblaze_b2.md says, and take the old ones out",
            )  # fmt: skip
        verdict = tried.to_dict()
    if given["revoked"] and not module.check_mode:
        _refuse_old(given, store)
        keycheck.sweep(owner, given["host"])
    return {
        "changed": before != after,
        "settings": after.shown(),
        "verified": verdict,
        "diff": {"before": before.shown(), "after": after.shown()},
    }


if __name__ == "__main__":
    KEY = {
        "key_id": {"type": "str", "required": True, "no_log": False},
        "secret": {"type": "str", "required": True, "no_log": True},
    }
    MODES = {"type": "str", "choices": ["none", "governance", "compliance"], "default": "none"}
    run_adapter(
        {
            "endpoint": {"type": "str", "required": True},
            "region": {"type": "str", "required": True},
            "bucket": {"type": "str", "required": True},
            "ca_file": {"type": "str", "default": ""},
            "host": {"type": "str", "default": ""},
            "owner": {"type": "dict", "required": True, "options": KEY},
            "keys": {
                "type": "dict",
                "default": {},
                "no_log": False,
                "options": {
                    purpose: {"type": "dict", "options": KEY} for purpose in ("writer", "reader", "pruner", "evidence")
                },
            },
            "revoked": {"type": "list", "elements": "dict", "default": [], "no_log": False, "options": KEY},
            "object_lock": {"type": "bool", "default": False},
            "default_lock_mode": MODES,
            "default_lock_days": {"type": "int", "default": 0},
            "lock_mode": MODES,
            "abort_uploads_days": {"type": "int", "default": 3},
            "remove_hidden_days": {"type": "int", "default": 0},
        },
        main,
    )
