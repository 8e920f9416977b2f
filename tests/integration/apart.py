# SPDX-License-Identifier: Apache-2.0
"""A lab whose database has a host of its own: ``app1`` (edge, app) and ``db1`` (db), joined by WireGuard in user space."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from slipway.network.plan import Settings, address_of

from lab import inventory
from lab.model import Host, HostSpec
from tests.integration.world import World, raise_lab

APP, DATABASE = "app1", "db1"
GROUPS = {"edge": [APP], "app": [APP], "db": [DATABASE]}
ALONE = {"edge": [APP], "app": [APP], "db": [APP]}
# What a container lacks and every machine has: the node that wireguard-go opens.
TUN = (
    "[Unit]\nBefore=slipway-private-network.service\n[Service]\nType=oneshot\nRemainAfterExit=yes\n"
    "ExecStart=/bin/sh -c 'mkdir -p /dev/net; test -e /dev/net/tun || mknod /dev/net/tun c 10 200'\n"
    "[Install]\nWantedBy=multi-user.target\n"
)


def private(name: str) -> str:
    """A host's address in the tunnel."""
    return address_of(name, Settings().subnet)


@dataclass
class Apart(World):
    """``host`` is the apps' host, ``db`` the database's; ``shape`` says which host is in which group."""

    shape: dict[str, list[str]] = field(default_factory=lambda: dict(GROUPS))

    @property
    def db(self) -> Host:
        """The database's host, its addresses as they are now."""
        return next(one for one in self.driver.hosts(self.lab) if one.name == DATABASE)

    def write_inventory(self, **changes: Any) -> Path:
        """As the base does, with both hosts in the groups of ``shape``."""
        settings = {**copy.deepcopy(self.settings), "slipway_private_network": {"kind": "wireguard"}, **changes}
        folder = self.inventory / "group_vars" / "all"
        folder.mkdir(parents=True, exist_ok=True)
        hosts = [one for one in (self.host, self.db) if any(one.name in listed for listed in self.shape.values())]
        tree = inventory.as_yaml_tree(inventory.build(self.lab, hosts, self.shape))
        (self.inventory / "hosts.yml").write_text(yaml.safe_dump(tree))
        (folder / "main.yml").write_text(yaml.safe_dump(settings))
        return self.inventory

    def sql(self, query: str, database: str = "notes") -> str:
        """A query as the superuser on the database's host; tuples only, unaligned."""
        return self.root(
            ["runuser", "-u", "postgres", "--", "psql", "-XAtq", "-d", database, "-c", query], host=self.db
        ).strip()


def raise_apart(name: str, *, ram_mb: int = 2048, shape: dict[str, list[str]] | None = None) -> Apart:
    """Make (or find) the lab with both hosts and its services; the apps' host without the image's PostgreSQL unless it is in db."""
    shape = shape or dict(GROUPS)
    beside = [HostSpec(name=DATABASE, image="rung0", ram_mb=ram_mb, cores=2)]
    world = raise_lab(name, image="rung0", ram_mb=ram_mb, host=APP, beside=beside)
    apart = Apart(**vars(world), shape=shape)
    for host in (apart.host, apart.db):
        apart.driver.put_file(host, "/etc/systemd/system/lab-tun.service", TUN.encode())
        apart.root("systemctl daemon-reload && systemctl enable --now --quiet lab-tun.service", host=host)
    if APP not in shape["db"]:
        apart.root("DEBIAN_FRONTEND=noninteractive apt-get -qq purge --yes postgresql-17 postgresql-client-17")
    apart.write_inventory()
    return apart
