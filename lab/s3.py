# SPDX-License-Identifier: Apache-2.0
"""The S3 host: a real S3 server (Ceph's object gateway, TLS) with a bucket for backups and a key for each purpose.

It keeps everything in memory and begins empty whenever it starts, with the same certificates and keys. Those are copied
to ``.lab/<name>/s3/``: ``ca.pem``, ``access.json`` (mode 0600), and the server's own certificate and key, which a proxy in
front of it (:mod:`lab.fault_proxy`) answers with.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.driver import Driver
from lab.keys import locked
from lab.model import DOMAIN, Host, HostSpec, Lab, LabError

S3_HOST = "s3"
ENDPOINT = f"https://s3.{DOMAIN}"
"""As the other hosts of the lab reach it."""
PITR_BUCKET = "pitr"
"""Beside the bucket of the dumps, as the documents ask for."""
PURPOSES = ("owner", "writer", "reader", "pruner", "evidence", "pitr")
_FILES = Path(__file__).resolve().parent / "files"
_PKI = "/etc/slipway-lab/pki"


@dataclass(frozen=True)
class Access:
    """What a client needs. ``address``: the endpoint as this machine reaches it. ``keys``: purpose -> key id, secret."""

    endpoint: str
    address: str
    region: str
    bucket: str
    ca: Path
    certificate: Path
    private_key: Path
    keys: Mapping[str, Mapping[str, str]]

    def __repr__(self) -> str:
        return f"Access({self.bucket!r}, {self.address!r})"


def spec() -> HostSpec:
    """The S3 host as asked for. Its memory is what backups can take, less half a gigabyte."""
    return HostSpec(name=S3_HOST, image="s3", ram_mb=4096, cores=2, aliases=(f"s3.{DOMAIN}",))


def refresh(driver: Driver, lab: Lab, say: Callable[[str], None]) -> Access | None:
    """Where the lab has a running S3 host: start its server if it does not run, and fetch what clients need."""
    host = next((h for h in driver.hosts(lab) if h.image == "s3" and h.running), None)
    if host is None:
        return None
    with locked(lab.folder / "s3.lock"):
        return _refresh(driver, lab, host, say)


def _refresh(driver: Driver, lab: Lab, host: Host, say: Callable[[str], None]) -> Access:
    driver.exec(host, ["mkdir", "-p", "/etc/slipway-lab"])
    driver.put_file(host, "/usr/local/sbin/lab-s3-keys", (_FILES / "s3_keys.py").read_bytes(), 0o755)
    script = (_FILES / "s3.sh").read_bytes()
    driver.exec(host, ["sh", "-s", "--", *addresses(host)], stdin=script, timeout=120)
    folder = lab.folder / "s3"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    held = json.loads(driver.read_file(host, "/etc/slipway-lab/s3.json"))
    held |= {"endpoint": ENDPOINT, "address": f"https://{host.ip}"}
    _keep(folder / "access.json", json.dumps(held, indent=2).encode())
    for name in ("ca.pem", "server.pem", "server.key"):
        _keep(folder / name, driver.read_file(host, f"{_PKI}/{name}"))
    say(f"the S3 server is up at {host.name}; how to use it is in {folder}")
    return access(lab)


def addresses(host: Host) -> list[str]:
    """What the server's certificate is good for: the host, and the lab network's first address, where a proxy would be."""
    return [each for each in (host.ip, host.ip6, f"{host.ip.rpartition('.')[0]}.1") if each]


def access(lab: Lab) -> Access:
    """How to use the S3 server of ``lab``; raises :class:`LabError` where it has none."""
    folder = lab.folder / "s3"
    try:
        held = json.loads((folder / "access.json").read_bytes())
    except FileNotFoundError:
        remedy = f"make one with: bin/lab up {S3_HOST}:s3 --name {lab.name}"
        raise LabError(f"Lab {lab.name} has no S3 server", remedy=remedy) from None
    return Access(
        held["endpoint"], held["address"], held["region"], held["bucket"], folder / "ca.pem", folder / "server.pem",
        folder / "server.key", held["keys"],
    )  # fmt: skip


def _keep(path: Path, content: bytes) -> None:
    """Write a file for its owner alone."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
