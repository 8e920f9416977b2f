# SPDX-License-Identifier: Apache-2.0
"""Redis on a host: how much each app's cache and queue may keep, and what their processes may take. Pure.

A server of its own for each app and purpose: what one may evict and the other must never lose cannot share a
``maxmemory-policy``, and an app that fills its own takes nothing from another.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .budget import Line, share_out

CACHE, QUEUE = "cache", "queue"
PURPOSES = (CACHE, QUEUE)
"""What an app may want of Redis."""
REDIS_MB, REDIS_LEAST_MB = 256, 32
"""All servers of a host together by the rule, and the least of each."""
PROCESS_MB = 10
"""A server without data and its first clients. Debian's Redis 8 idles at 4 MB of its own (14 MB resident, code included)."""


@dataclass(frozen=True)
class RedisSizing:
    """One server: what it may keep (``maxmemory_mb``) and what its unit may take (``limit_mb``)."""

    app: str
    purpose: str
    maxmemory_mb: int

    @property
    def limit_mb(self) -> int:
        """``maxmemory``, and on top a quarter (fragmentation, clients' buffers), for a queue a half: rewriting its log
        forks, and pages written meanwhile exist twice. And the process itself.
        """
        extra = self.maxmemory_mb // (2 if self.purpose == QUEUE else 4)
        return self.maxmemory_mb + extra + PROCESS_MB

    @property
    def line(self) -> Line:
        """Its line of the budget."""
        share = "a half" if self.purpose == QUEUE else "a quarter"
        name = f"redis {self.purpose} of {self.app}" if self.app else "redis"
        return Line("redis", name, self.limit_mb, f"{self.maxmemory_mb} MB, {share}, {PROCESS_MB}")


def wished(apps: Iterable[tuple[str, tuple[str, ...]]]) -> list[tuple[str, str]]:
    """(app, purpose) of each server, from each app's name and its purposes; one without an app where nobody names any."""
    return [(name, purpose) for name, purposes in apps for purpose in purposes] or [("", CACHE)]


def size_redis(servers: list[tuple[str, str]], left_mb: int, own_mb: int | None = None) -> tuple[RedisSizing, ...]:
    """Each server's share. ``left_mb`` is the memory for apps and Redis, ``own_mb`` the user's own sum of all ``maxmemory``.

    The rule: 256 MB together, at most a quarter of what is left, at least 32 MB each.
    """
    total = own_mb or max(REDIS_LEAST_MB * len(servers), min(REDIS_MB, left_mb // 4))
    return tuple(
        RedisSizing(app, purpose, share)
        for (app, purpose), share in zip(servers, share_out(max(total, len(servers)), len(servers)), strict=True)
    )


def least_redis_mb(servers: list[tuple[str, str]]) -> int:
    """The least memory these servers can live in."""
    return sum(RedisSizing(app, purpose, REDIS_LEAST_MB).limit_mb for app, purpose in servers)
