# SPDX-License-Identifier: Apache-2.0
"""An Ansible inventory of a lab's hosts: real SSH, host keys checked, no group names of its own."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Mapping
from typing import Any

from slipway.errors import InputError

from lab import s3
from lab.model import OWN_IMAGES, Host, Lab, LabError, lab_root
from lab.services import ACME_DIRECTORY

RUNG0_GROUPS = ("edge", "app", "db")
"""Where one host is everything: the groups of the playbooks it belongs to."""


def parse_groups(texts: Iterable[str]) -> dict[str, list[str]]:
    """``["db=db1,db2"]`` as ``{"db": ["db1", "db2"]}``; raises :class:`InputError`."""
    groups: dict[str, list[str]] = {}
    for text in texts:
        name, equals, hosts = text.partition("=")
        if not (name and equals and hosts):
            raise InputError(f"'{text}' is no group", "GROUP=HOST,HOST")
        groups.setdefault(name, []).extend(hosts.split(","))
    return groups


def host_vars(lab: Lab, host: Host, user: str) -> dict[str, str]:
    """How Ansible reaches ``host``; without ``user`` that is left to whoever connects."""
    return {
        "ansible_host": host.ip,
        **({"ansible_user": user} if user else {}),
        "ansible_ssh_private_key_file": str(lab.key),
        "ansible_ssh_common_args": f'-o UserKnownHostsFile="{lab.known_hosts}" -o IdentitiesOnly=yes',
        "ansible_python_interpreter": "/usr/bin/python3",
    }


def backup_store(lab: Lab, hosts: Iterable[Host]) -> dict[str, str]:
    """Where backups go, as an inventory says it: the bucket of the lab's S3 server where it runs, else a folder of the host.

    By its address, since this machine knows none of the lab's names. Its keys are in a file of the lab's folder.
    """
    if any(h.image == "s3" and h.running for h in hosts):
        with contextlib.suppress(LabError):  # it runs, but was never set up
            found = s3.access(lab)
            return {
                "endpoint": found.address,
                "region": found.region,
                "bucket": found.bucket,
                "ca_file": str(found.ca),
            }
    return {"path": "/var/backups/slipway"}


def lab_vars(lab: Lab, hosts: Iterable[Host]) -> dict[str, Any]:
    """Facts about the lab for its inventory's settings: folder, ACME directory and roots (empty without them), store."""
    hosts = list(hosts)
    acme = any(h.image == "services" and h.running for h in hosts)
    return {
        "lab_folder": str(lab.folder),
        "lab_acme_directory": ACME_DIRECTORY if acme else "",
        "lab_ca": str(lab.ca) if acme else "",
        "lab_backup_store": backup_store(lab, hosts),
    }


def build(lab: Lab, hosts: Iterable[Host], groups: Mapping[str, list[str]], *, user: str = "root") -> dict[str, Any]:
    """The inventory as an Ansible inventory script prints it.

    Without ``groups``, every host but the lab's own is in all groups of rung 0. The services host and the S3 server are
    left out: they are part of the lab and not of the system under test.
    """
    hosts = list(hosts)
    ours = [h for h in hosts if h.image not in OWN_IMAGES]
    chosen = dict(groups) or {g: [h.name for h in ours] for g in RUNG0_GROUPS}
    return {
        "_meta": {"hostvars": {h.name: host_vars(lab, h, user) for h in ours}},
        "all": {"hosts": [h.name for h in ours], "vars": lab_vars(lab, hosts)},
        **{name: {"hosts": members} for name, members in chosen.items()},
    }


def as_yaml_tree(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The same in the shape of an inventory file (JSON is YAML): ``all: {hosts: ..., children: ...}``."""
    children = {k: {"hosts": dict.fromkeys(v["hosts"])} for k, v in tree.items() if k not in ("_meta", "all")}
    return {"all": {"hosts": tree["_meta"]["hostvars"], "vars": tree["all"]["vars"], "children": children}}


def lab_folders() -> set[str]:
    """Names of labs that have files, whether or not a host of theirs is left."""
    root = lab_root()
    return {f.name for f in root.iterdir() if (f / "id_ed25519").exists()} if root.exists() else set()


def remove_folder(lab: Lab) -> None:
    """Remove keys and whatever else the lab keeps on this machine."""
    shutil.rmtree(lab.folder, ignore_errors=True)
