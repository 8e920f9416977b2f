# SPDX-License-Identifier: Apache-2.0
"""The services host: a certificate authority that speaks ACME, and a registry, for the hosts of one lab."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lab.driver import Driver
from lab.model import SERVICES_HOST, Host, HostSpec, Lab


def spec() -> HostSpec:
    """The services host as asked for."""
    return HostSpec(name=SERVICES_HOST, image="services", ram_mb=1024, cores=1)


def start(driver: Driver, lab: Lab, host: Host, say: Callable[[str], None]) -> None:
    """Configure and start the services; does nothing where they run."""


def name_hosts(driver: Driver, acme: Host, names: Mapping[str, Host]) -> None:
    """Let the certificate authority find each name at its host."""
