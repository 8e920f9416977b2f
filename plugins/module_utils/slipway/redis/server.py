# SPDX-License-Identifier: Apache-2.0
"""One server of Redis for one purpose of one app, as files: settings, users, unit. Pure.

Sources: Debian's ``redis-server@.service`` (sandbox, ``/etc/redis/redis-%i.conf``), redis.conf of Redis 8, its manual's
pages on ACL, eviction, persistence and administration.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..sizing.redis import QUEUE

SETTINGS = "/etc/redis"
DATA = "/var/lib/redis"
UNITS = "/etc/systemd/system"
KNOWN = "/etc/slipway/redis.json"
"""What the agent reads: the servers of this host, with the password of the user that may look at their numbers."""
PACKAGE_UNIT = "redis-server.service"
"""What Debian's package starts by itself: no password, one for everybody. Masked."""
WATCHER = "slipway"
REPLAY_MB = 256
MANAGED = "# Managed by Slipway (role redis): changes made here are overwritten.\n"
POLICIES = {"cache": "allkeys-lru", QUEUE: "noeviction"}
# Everything but what looks into or changes the server; then what clients and job libraries ask for at their start.
APP_RIGHTS = "~* &* +@all -@dangerous -@admin +info"
# An app may empty its own cache, as frameworks do. A queue is never emptied at one word.
PURPOSE_RIGHTS = {"cache": " +flushdb", QUEUE: ""}
WATCHER_RIGHTS = "resetkeys resetchannels -@all +ping +info"


@dataclass(frozen=True)
class Server:
    """One server. ``limit_mb`` is the most that its unit may take, ``password`` that of the app's user."""

    app: str
    purpose: str
    port: int
    maxmemory_mb: int
    limit_mb: int
    password: str = field(repr=False)

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> Server:
        """From a plain mapping; keys it does not know are passed over."""
        return cls(
            app=str(raw["app"]),
            purpose=str(raw["purpose"]),
            port=int(raw["port"]),
            maxmemory_mb=int(raw["maxmemory_mb"]),
            limit_mb=int(raw["limit_mb"]),
            password=str(raw["password"]),
        )

    @property
    def name(self) -> str:
        """Of its files and folders, and behind the @ of its unit."""
        return f"{self.app}-{self.purpose}"

    @property
    def unit(self) -> str:
        """Its systemd unit."""
        return f"redis-server@{self.name}.service"

    @property
    def policy(self) -> str:
        """What happens when its memory is full."""
        return POLICIES[self.purpose]

    @property
    def kept(self) -> bool:
        """Whether it keeps its data on disk."""
        return self.purpose == QUEUE

    @property
    def watch_password(self) -> str:
        """Of the user that may ask for the server's numbers and nothing else. The app, which could work it out, may ask for
        them by itself.
        """
        return hashlib.sha256(f"slipway-watch:{self.password}".encode()).hexdigest()

    @property
    def ceiling_mb(self) -> int:
        """Where the kernel ends it. Of a queue that is above what is counted: its log is replayed at each start, and may hold
        what the queue held when it was fuller, or larger; killed over that it would never start again.
        """
        return self.limit_mb + (REPLAY_MB if self.kept else 0)

    @property
    def folder(self) -> str:
        """Where its data is."""
        return f"{DATA}/{self.name}"

    @property
    def settings_path(self) -> str:
        """Its redis.conf."""
        return f"{SETTINGS}/redis-{self.name}.conf"

    @property
    def users_path(self) -> str:
        """Its ACL file."""
        return f"{SETTINGS}/slipway-{self.name}.acl"

    @property
    def drop_in_path(self) -> str:
        """What Slipway adds to Debian's unit."""
        return f"{UNITS}/{self.unit}.d/10-slipway.conf"

    @property
    def paths(self) -> list[str]:
        """The files that it reads at its start alone."""
        return [self.settings_path, self.users_path, self.drop_in_path]

    def public(self) -> dict[str, Any]:
        """Plain data, without its password."""
        return {
            "name": self.name,
            "app": self.app,
            "purpose": self.purpose,
            "port": self.port,
            "policy": self.policy,
            "maxmemory_mb": self.maxmemory_mb,
            "limit_mb": self.limit_mb,
        }


def settings_text(server: Server, listen: Iterable[str]) -> str:
    """The server's redis.conf."""
    persistence = (
        # Written once a second: what a power loss may cost.
        ["appendonly yes", "appendfsync everysec", "auto-aof-rewrite-min-size 16mb", "aof-load-truncated yes"]
        if server.kept
        else ["appendonly no"]
    )
    lines = [
        f"bind {' '.join(listen)}",
        f"port {server.port}",
        "protected-mode yes",
        "daemonize no",
        f"pidfile /run/redis-{server.name}/redis-server.pid",
        "# No file: the log goes to the journal.",
        'logfile ""',
        "loglevel notice",
        "tcp-backlog 128",
        "tcp-keepalive 60",
        f"dir {server.folder}",
        f"aclfile {server.users_path}",
        "enable-protected-configs no",
        "enable-debug-command no",
        "enable-module-command no",
        f"maxmemory {server.maxmemory_mb}mb",
        f"maxmemory-policy {server.policy}",
        "# Clients' buffers together: whoever takes most is cut off, before the unit's limit is met.",
        "maxmemory-clients 10%",
        "disable-thp yes",
        "# A child that writes the disk goes first when memory is short, never the server.",
        "oom-score-adj relative",
        "oom-score-adj-values 0 200 800",
        'save ""',
        *persistence,
    ]
    return MANAGED + "\n".join(lines) + "\n"


def users_text(server: Server) -> str:
    """The ACL file, which takes no comments: nobody without a password, the app, and who watches.

    The user default is off, so nobody can be it; its rights stay, because a queue's log is replayed as that user: without
    them Redis refuses every transaction and script in it, and their data would be gone after a restart.
    """
    return (
        "user default off resetpass ~* &* +@all\n"
        f"user {server.app} on #{_hashed(server.password)} {APP_RIGHTS}{PURPOSE_RIGHTS[server.purpose]}\n"
        f"user {WATCHER} on #{_hashed(server.watch_password)} {WATCHER_RIGHTS}\n"
    )


def _hashed(password: str) -> str:
    return hashlib.sha256(password.encode()).hexdigest()


def drop_in_text(server: Server) -> str:
    """What goes beyond the sandbox of Debian's own unit: its memory, its folder alone, and its return after a crash."""
    return (
        f"{MANAGED}[Unit]\nDescription=Redis: {server.purpose} of {server.app}\nAfter=network-online.target\n"
        "StartLimitIntervalSec=0\n\n"
        "[Service]\n"
        "# Debian's unit lets every server write to the folders of all, and to their settings.\n"
        "ReadWritePaths=\n"
        f"ReadWritePaths=-{server.folder}\n"
        f"MemoryMax={server.ceiling_mb}M\n"
        f"OOMScoreAdjust={0 if server.kept else 200}\n"
        "RestartSec=1\n"
        "TimeoutStopSec=60\n"
        "UMask=0077\n"
    )


def files(servers: Iterable[Server], listen: Iterable[str]) -> list[dict[str, Any]]:
    """Every server's files and folders, as ``slipway.vps.managed_files`` takes them, and what the agent reads of them all."""
    addresses, wanted = list(listen), list(servers)
    found: list[dict[str, Any]] = []
    for server in wanted:
        found += [
            {"path": server.folder, "state": "directory", "owner": "redis", "group": "redis", "mode": "0700"},
            {
                "path": server.settings_path,
                "content": settings_text(server, addresses),
                "group": "redis",
                "mode": "0640",
            },
            {
                "path": server.users_path,
                "content": users_text(server),
                "group": "redis",
                "mode": "0640",
                "secret": True,
            },
            {"path": server.drop_in_path.rpartition("/")[0], "state": "directory"},
            {"path": server.drop_in_path, "content": drop_in_text(server)},
        ]
    return [*found, {"path": KNOWN, "content": known_text(wanted, addresses), "mode": "0600", "secret": True}]


def known_text(servers: Iterable[Server], listen: Iterable[str]) -> str:
    """The agent's file."""
    told = [{**one.public(), "watch_password": one.watch_password} for one in servers]
    return json.dumps({"address": next(iter(listen), "127.0.0.1"), "servers": told}, indent=1) + "\n"
