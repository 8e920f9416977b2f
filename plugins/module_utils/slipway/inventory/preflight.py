# SPDX-License-Identifier: Apache-2.0
"""Whether a host can become what the inventory asks for, decided before anything is changed. Pure.

In go what ``host_info`` saw and the wish; out come findings. An error ends the run, a warning is shown and the run goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..errors import SlipwayError
from ..sizing.plan import size_from_facts

TESTED = {"debian": ("13",)}
# Written for (apt, systemd, the same package names), not yet run through the tests.
UNTESTED = {"ubuntu": ("24.04", "26.04")}
ARCHITECTURES = {"x86_64": True, "aarch64": False}  # whether tested
PUBLIC_PORTS = {"80": "caddy", "443": "caddy"}
CLOCK_LIMIT_SECONDS = 120
# Base system and packages 3 GB, five releases of an app 1.5 GB, WAL, logs and a small database.
DISK_LEAST_MB = 9 * 1024
FIRST_RUN_FREE_MB, LATER_FREE_MB = 2048, 512


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be: what was found, what was expected, how to mend it."""

    level: Literal["error", "warning"]
    found: str
    expected: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        return str(SlipwayError(self.found, self.expected, self.remedy))


@dataclass(frozen=True)
class Wish:
    """What shall run there. ``apps`` as in ``slipway_apps``; ``overrides`` are the user's own PostgreSQL figures.

    ``resolved`` maps each domain to the addresses DNS gives for it (none: unknown name); ``addresses`` are the host's own.
    Both empty: DNS is not looked at. ``database``: the facts of the database's own host, where it is another one.
    """

    apps: Sequence[Mapping[str, Any]] = ()
    overrides: Mapping[str, Any] = field(default_factory=dict)
    dedicated: bool = False
    database: Mapping[str, Any] | None = None
    edge: bool = True
    resolved: Mapping[str, Sequence[str]] = field(default_factory=dict)
    addresses: Sequence[str] = ()
    allow_overcommit: bool = False


def examine(facts: Mapping[str, Any], wish: Wish, *, controller_now: float) -> list[Finding]:
    """Every finding, errors first. ``controller_now`` is the operator's clock when the facts were taken (epoch seconds)."""
    found = [
        *_system(facts),
        *_rights(facts),
        *_clock(facts, controller_now),
        *_disk(facts),
        *_memory(facts, wish),
        *(_ports(facts) if wish.edge else ()),
        *_names(wish),
    ]
    return sorted(found, key=lambda finding: finding.level)


def _system(facts: Mapping[str, Any]) -> Iterator[Finding]:
    system = facts.get("os") or {}
    name, version = str(system.get("id", "")), str(system.get("version_id", ""))
    shown = system.get("pretty") or f"{name} {version}".strip() or "an unknown system"
    if version not in TESTED.get(name, ()):
        if version in UNTESTED.get(name, ()):
            yield Finding("warning", f"{shown} is written for but not tested", "Debian 13")
        else:
            yield Finding(
                "error", f"The host runs {shown}", "Debian 13 (trixie); Ubuntu 24.04 LTS works untested",
                "re-install the server with Debian 13 at your provider's console",
            )  # fmt: skip
    arch = str(facts.get("arch", ""))
    if arch not in ARCHITECTURES:
        yield Finding(
            "error",
            f"The host's processor is of type '{arch}'",
            "x86_64 (or aarch64, untested)",
            "take another server type",
        )
    elif not ARCHITECTURES[arch]:
        yield Finding("warning", f"Processors of type {arch} are not tested; your images must be built for them")
    if facts.get("container") and not facts.get("lab"):
        yield Finding(
            "warning",
            "The host is a container (OpenVZ, LXC), where Docker and kernel settings may not work",
            "a virtual machine",
        )


def _rights(facts: Mapping[str, Any]) -> Iterator[Finding]:
    if facts.get("uid", 0) != 0:
        yield Finding(
            "error", "The user that logged in has no root rights", "sudo without a password",
            "log in as root once, or add the user to sudoers: <user> ALL=(ALL) NOPASSWD: ALL",
        )  # fmt: skip


def _clock(facts: Mapping[str, Any], controller_now: float) -> Iterator[Finding]:
    now = facts.get("now")
    if now is None or abs(float(now) - controller_now) <= CLOCK_LIMIT_SECONDS:
        return
    seconds = round(abs(float(now) - controller_now))
    side = "behind" if float(now) < controller_now else "ahead of"
    yield Finding(
        "error", f"The host's clock is {seconds} s {side} this computer's", f"at most {CLOCK_LIMIT_SECONDS} s: certificates and logs depend on it",
        "set the wrong one of the two: sudo timedatectl set-ntp true",
    )  # fmt: skip


def _disk(facts: Mapping[str, Any]) -> Iterator[Finding]:
    total, free = int(facts.get("disk_total_mb", 0)), int(facts.get("disk_free_mb", 0))
    if total < DISK_LEAST_MB:
        yield Finding(
            "error",
            f"The host's disk has {total} MB",
            f"at least {DISK_LEAST_MB} MB",
            "take a plan with a disk of 10 GB or more",
        )
        return
    first = not facts.get("postgres_major")
    least = FIRST_RUN_FREE_MB if first else LATER_FREE_MB
    if free < least:
        yield Finding(
            "error", f"Only {free} MB of the disk are free", f"at least {least} MB" + (" for the packages" if first else ""),
            "see what takes the room: sudo du -xh / --max-depth=3 | sort -h | tail -20",
        )  # fmt: skip


def _memory(facts: Mapping[str, Any], wish: Wish) -> Iterator[Finding]:
    if wish.database is not None and not wish.database:
        return  # the apps' pools follow from the database's host, which this run has not seen
    role = "dedicated" if wish.dedicated else "apps" if wish.database else "shared"
    # A disk that is too small has been found already; here it shall not hide what is wrong with the memory.
    enough = {**facts, "disk_total_mb": max(int(facts.get("disk_total_mb", 0)), DISK_LEAST_MB)}
    try:
        sizing = size_from_facts(
            enough,
            role=role,
            apps=wish.apps,
            overrides=wish.overrides,
            allow_overcommit=wish.allow_overcommit,
            database=wish.database,
        )
    except SlipwayError as error:
        yield Finding("error", error.found, error.expected, error.remedy)
        return
    for warning in sizing.warnings:
        yield Finding("warning", str(warning))


def _ports(facts: Mapping[str, Any]) -> Iterator[Finding]:
    taken: dict[str, list[str]] = {}
    for port, owner in PUBLIC_PORTS.items():
        process = (facts.get("ports") or {}).get(port)
        if process and process != owner:
            taken.setdefault(str(process), []).append(port)
    for process, ports in taken.items():
        many = "s" if len(ports) > 1 else ""
        yield Finding(
            "error", f"Port{many} {' and '.join(ports)} of the host {'are' if many else 'is'} taken by {process}", "them free for Caddy" if many else "it free for Caddy",
            _free_port(process, ports[0]),
        )  # fmt: skip


def _free_port(process: str, port: str) -> str:
    services = {
        "nginx": "nginx",
        "apache2": "apache2",
        "lighttpd": "lighttpd",
        "haproxy": "haproxy",
        "traefik": "traefik",
    }
    if process in services:
        return f"on the host: sudo systemctl disable --now {services[process]}"
    if process == "docker-proxy":
        return f"a container publishes it; find and stop it: sudo docker ps --filter publish={port}"
    return f"see what it is, and stop it: sudo ss -ltnp 'sport = :{port}'"


def _names(wish: Wish) -> Iterator[Finding]:
    for domain, addresses in wish.resolved.items():
        if not wish.addresses or set(addresses) & set(wish.addresses):
            continue
        pointing = f"points to {', '.join(sorted(addresses))}" if addresses else "is not known to DNS yet"
        yield Finding(
            "warning", f"{domain} {pointing}", f"{', '.join(wish.addresses)}, unless a CDN stands in front",
            "set its DNS record; its certificate comes by itself within minutes after that",
        )  # fmt: skip


def message(findings: Iterable[Finding]) -> str:
    """All errors as one text for a person; empty where there is none."""
    errors = [str(finding) for finding in findings if finding.level == "error"]
    if not errors:
        return ""
    head = (
        "This host is not ready, and nothing has been changed:"
        if len(errors) == 1
        else f"This host is not ready ({len(errors)} things), and nothing has been changed:"
    )
    return "\n".join([head, *(f"  - {error}" for error in errors)])
