# SPDX-License-Identifier: Apache-2.0
"""An Ansible inventory of a lab's hosts: real SSH, host keys checked, no group names of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from typing import Any

from slipway.errors import InputError

from lab.model import OWN_IMAGES, Host, Lab, lab_root
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


def lab_vars(lab: Lab, hosts: Iterable[Host]) -> dict[str, str]:
    """Facts about the lab for its inventory's settings: folder, ACME directory and roots (empty without them)."""
    acme = any(h.image == "services" and h.running for h in hosts)
    return {
        "lab_folder": str(lab.folder),
        "lab_acme_directory": ACME_DIRECTORY if acme else "",
        "lab_ca": str(lab.ca) if acme else "",
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
