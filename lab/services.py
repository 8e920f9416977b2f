# SPDX-License-Identifier: Apache-2.0
"""The services host: a certificate authority that speaks ACME, and a registry, for the hosts of one lab.

The authority (pebble) makes a new root whenever it starts. ``.lab/<name>/ca.pem`` collects them all, together with
the root of the services' own certificates: one file for ``curl --cacert``, for Caddy and for Docker clients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from lab.driver import Driver
from lab.model import DOMAIN, SERVICES_HOST, Host, HostSpec, Lab

ACME_DIRECTORY = f"https://acme.{DOMAIN}:14000/dir"
REGISTRY = f"registry.{DOMAIN}:5000"
_SCRIPT = Path(__file__).resolve().parent / "files" / "services.sh"
_PKI = "/etc/slipway-lab/pki"
_NAMES = "/var/lib/slipway-lab/names"
_MARK = "-----BEGIN CERTIFICATE-----"


def spec() -> HostSpec:
    """The services host as asked for."""
    aliases = ("registry", f"registry.{DOMAIN}")
    return HostSpec(name=SERVICES_HOST, image="services", ram_mb=1024, cores=1, aliases=aliases)


def merge_certificates(known: str, more: str) -> str:
    """Both PEM texts as one, each certificate once, the older first."""
    blocks = [_MARK + block.strip() + "\n" for text in (known, more) for block in text.split(_MARK)[1:]]
    return "".join(dict.fromkeys(block.replace(_MARK, _MARK + "\n", 1) for block in blocks))


def merge_names(known: str, more: Mapping[str, Host]) -> str:
    """The names file of the services host (``NAME IPV4 [IPV6]`` a line) with ``more`` in it."""
    lines = {line.split()[0]: line.strip() for line in known.splitlines() if line.strip()}
    for name, host in more.items():
        lines[name] = f"{name} {host.ip} {host.ip6}".strip()
    return "".join(f"{lines[name]}\n" for name in sorted(lines))


def refresh(driver: Driver, lab: Lab, say: Callable[[str], None]) -> None:
    """Where the lab has a running services host: start what does not run, know every host's names, renew ca.pem."""
    hosts = driver.hosts(lab)
    acme = next((h for h in hosts if h.image == "services" and h.running), None)
    if acme is None:
        return
    addresses = [a for a in (acme.ip, acme.ip6) if a]
    driver.exec(acme, ["sh", "-s", "--", *addresses], stdin=_SCRIPT.read_bytes(), timeout=60)
    fresh = driver.exec(acme, ["cat", f"{_PKI}/ca.pem", f"{_PKI}/root.pem"]).stdout
    known = lab.ca.read_text(encoding="ascii") if lab.ca.exists() else ""
    merged = merge_certificates(known, fresh)
    if merged != known:
        lab.ca.write_text(merged, encoding="ascii")
        say(f"the certificate authority is up at {acme.name}; its roots are in {lab.ca}")
    name_hosts(driver, acme, {name: h for h in hosts for name in (f"{h.name}.{DOMAIN}", *h.aliases)})


def name_hosts(driver: Driver, acme: Host, names: Mapping[str, Host]) -> None:
    """Let the certificate authority find each name at its host; the names outlive a restart."""
    known = driver.exec(acme, ["cat", _NAMES], check=False).stdout  # absent until the first name
    merged = merge_names(known, names)
    if merged != known:
        driver.put_file(acme, _NAMES, merged.encode())
        driver.exec(acme, ["/usr/local/sbin/lab-names"], timeout=60)


def inventory_settings(lab: Lab, acme: Host) -> dict[str, str]:
    """The settings that make Caddy ask this lab's certificate authority."""
    return {"slipway_acme_ca": ACME_DIRECTORY, "slipway_acme_ca_root": str(lab.ca)} if acme.running else {}
