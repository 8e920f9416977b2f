# SPDX-License-Identifier: Apache-2.0
"""What an inventory says of Redis: who wants it, where it lives, and whether the vault holds the passwords. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..sizing.redis import REDIS_LEAST_MB
from .schema import Path, Problem

CLIMB = "ansible-playbook -i <inventory> playbooks/grow/add_redis.yml"


def _wishes(apps: Sequence[Any]) -> list[tuple[int, Mapping[str, Any], list[Any]]]:
    """(place in the list, app, purposes) of the apps that want Redis and are to be there."""
    return [
        (index, app, list(app["redis"]))
        for index, app in enumerate(apps)
        if isinstance(app, Mapping)
        and isinstance(app.get("redis"), (list, tuple))
        and app["redis"]
        and app.get("state") != "absent"
    ]


def check_redis(apps: Sequence[Any], vault: Any, memory_mb: Any = "auto") -> Iterator[Problem]:
    """Purposes named twice, passwords that the vault lacks, and a sum of memory that leaves one server too little."""
    wishes = _wishes(apps)
    for index, app, purposes in wishes:
        name = str(app.get("name", ""))
        at: Path = ("slipway_apps", index, "redis")
        for place, purpose in enumerate(purposes):
            if purpose in purposes[:place]:
                yield Problem(f"'{purpose}' is listed twice", "name each purpose once", (*at, place))
        if name == "default":
            yield Problem(
                "'default' is Redis' own user, which nobody may log in as",
                "give the app another name, or remove redis",
                ("slipway_apps", index, "name"),
            )
        own = vault.get(name) if isinstance(vault, Mapping) else None
        if name and not (isinstance(own, Mapping) and own.get("redis_password")):
            yield Problem(
                f"the app '{name}' wants Redis, but vault_apps.{name}.redis_password is not set",
                "add it to vault.yml (any long random text, such as 'openssl rand -hex 24' gives)",
                at,
            )
    servers = sum(len(purposes) for _, _, purposes in wishes)
    if isinstance(memory_mb, int) and not isinstance(memory_mb, bool) and memory_mb >= REDIS_LEAST_MB:
        least = REDIS_LEAST_MB * servers
        if memory_mb < least:
            yield Problem(
                f"{memory_mb} MB for {servers} servers of Redis",
                f"give them {least} MB or more ({REDIS_LEAST_MB} MB each), or leave it at auto",
                ("slipway_redis_memory_mb",),
            )


def check_redis_hosts(groups: Mapping[str, Sequence[str]]) -> Iterator[Problem]:
    """Redis lives beside the apps on this rung: the group is empty, or the hosts of the group app."""
    redis, apps = sorted(groups.get("redis", ())), sorted(groups.get("app", ()))
    if redis and redis != apps:
        yield Problem(
            f"the group redis has {' '.join(redis)}, the group app {' '.join(apps) or 'none'}",
            "put the hosts of app into redis; a server for Redis alone is a later rung",
        )


def check_redis_wished(groups: Mapping[str, Sequence[str]], apps: Any) -> Iterator[Problem]:
    """Apps that want Redis where no host is to run it."""
    wishes = _wishes(apps) if isinstance(apps, (list, tuple)) else []
    if groups.get("redis") or not wishes:
        return
    for index, app, _ in wishes:
        yield Problem(
            f"the app '{app.get('name', '')}' wants Redis, and no host is in the group redis",
            f"put the hosts of app into the group redis too (hosts.yml), then run: {CLIMB}",
            ("slipway_apps", index, "redis"),
        )
