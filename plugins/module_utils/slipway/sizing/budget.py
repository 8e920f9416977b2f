# SPDX-License-Identifier: Apache-2.0
"""What everything on a host may use together, line by line in MB, against its RAM. Pure.

Resident sizes of the services (base system, Docker engine, Caddy, PgBouncer) are Debian 13's own packages, idle with a
margin for work; what Slipway can limit (Postgres, app containers, Redis) is counted at its limit.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import SlipwayError

PLANS_MB = (512, *(1024 * gb for gb in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)))
"""RAM of the plans that VPS sellers offer."""
PLAN_SHORTFALL = 0.12


def plan_ram_mb(measured_mb: int) -> int:
    """RAM of the plan a host was sold as, in MB (1981 -> 2048).

    A VPS reports less than its nominal size, because firmware, kernel and crash dump area keep a part of it: 2 % to 8 %
    at most sellers. A size more than 12 % below the next plan is taken as it is.
    """
    plan = next((plan for plan in PLANS_MB if plan >= measured_mb), measured_mb)
    return plan if measured_mb >= plan * (1 - PLAN_SHORTFALL) else measured_mb


@dataclass(frozen=True)
class Line:
    """One line of the budget. ``group`` is the service it belongs to, ``detail`` says how the figure came about."""

    group: str
    name: str
    mb: int
    detail: str = ""


@dataclass(frozen=True)
class Budget:
    """All lines, against ``ram_mb`` (the plan's RAM)."""

    ram_mb: int
    lines: tuple[Line, ...]

    @property
    def total_mb(self) -> int:
        """What all lines take together."""
        return sum(line.mb for line in self.lines)

    @property
    def free_mb(self) -> int:
        """What is left for the page cache; negative where the budget does not fit."""
        return self.ram_mb - self.total_mb

    @property
    def fits(self) -> bool:
        """Whether everything fits in RAM at once."""
        return self.total_mb <= self.ram_mb

    def group_mb(self, group: str) -> int:
        """What one service takes."""
        return sum(line.mb for line in self.lines if line.group == group)


class DoesNotFitError(SlipwayError):
    """The budget is larger than the RAM. ``budget`` has the lines."""

    def __init__(self, found: str, expected: str, remedy: str, budget: Budget) -> None:
        super().__init__(found, expected, remedy)
        self.budget = budget

    def __reduce__(self) -> tuple[type[DoesNotFitError], tuple[str, str, str, Budget]]:
        return type(self), (self.found, self.expected, self.remedy, self.budget)


def system_lines(plan_mb: int, measured_mb: int) -> list[Line]:
    """Kernel and base system: what the machine keeps back, then systemd, sshd, journald, auditd, bans, updates."""
    lines = []
    if plan_mb > measured_mb:
        lines.append(Line("system", "kept by firmware and kernel", plan_mb - measured_mb, "sold minus measured RAM"))
    lines.append(Line("system", "kernel and base system", 160 + plan_mb // 64, "160 + RAM/64"))
    return lines


def docker_mb(apps: int, jobs: int = 0) -> int:
    """dockerd and containerd 110 MB, and a shim and port proxies of 12 MB for each app and for one second colour.

    ``jobs``: background containers, those of the second colour counted in; a shim each.
    """
    return 110 + 12 * (apps + 1 + jobs) if apps else 110


CADDY_MB = 64
WAL_BUFFERS_MAX_MB = 16
POSTGRES_REST_MB = 64
"""Postmaster, background processes, lock tables and WAL buffers: the constant 64 of the work_mem rule."""


def pgbouncer_mb(max_client_conn: int) -> int:
    """8 MB, and 10 kB for each client (its state and a packet buffer)."""
    return 8 + -(-max_client_conn // 100)


def share_out(total: int, parts: int) -> list[int]:
    """``total`` in ``parts`` whole shares that differ by at most one, the larger first."""
    return [total // parts + (1 if i < total % parts else 0) for i in range(parts)]


def bar(mb: int, whole_mb: int, width: int) -> str:
    """A bar of ``width`` cells for ``mb`` of ``whole_mb``; what is more than nothing shows at least one cell."""
    cells = min(width, round(width * mb / whole_mb)) if whole_mb > 0 else 0
    return "█" * (max(1, cells) if mb > 0 else 0)
