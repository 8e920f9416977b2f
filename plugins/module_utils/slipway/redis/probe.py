# SPDX-License-Identifier: Apache-2.0
"""Proof, on the running servers, that apps can use their Redis and nobody else's, and can do no harm there."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from ..commands import run
from ..postgres.server import check_listening
from .client import Door, RedisError, Runner, denied, first
from .server import Server

READY_SECONDS = 15.0
# Tried as the app. Each is harmless, or a mistake, where the server would carry it out after all: FLUSHALL and SHUTDOWN
# then object to their argument.
REFUSED: tuple[tuple[str, ...], ...] = (
    ("CONFIG", "GET", "dir"),
    ("CONFIG", "SET", "maxmemory-policy", "no-such-policy"),
    ("ACL", "LIST"),
    ("FLUSHALL", "NO-SUCH-MODE"),
    ("SHUTDOWN", "NO-SUCH-MODE"),
    ("DEBUG", "HELP"),
    ("MODULE", "LIST"),
    ("KEYS", "slipway:none"),
    ("CLIENT", "LIST"),
    ("REPLICAOF", "NO-SUCH-HOST", "NO-PORT"),
    ("SLOWLOG", "LEN"),
)
# Redis has its own lock on the two most dangerous, which it looks at before anybody's rights.
NOT_ALLOWED = ("NOPERM", "ERR DEBUG command not allowed", "ERR MODULE command not allowed")
PROBE_KEY = "slipway:probe"


def prove(
    servers: Iterable[Server], listen: Sequence[str], *, inside: dict[str, int] | None = None, runner: Runner = run
) -> list[str]:
    """Everything that can be said of the running servers, as sentences. ``inside``: app -> a process of its container,
    through whose network its servers are asked. Raises RedisError, ServerError.
    """
    all_servers = list(servers)
    told = []
    for server in all_servers:
        _wait(server, Door(listen[0], server.port, 0, runner))
        if runner is run:
            check_listening(server.port, list(listen), f"Redis {server.name}")
        process = (inside or {}).get(server.app, 0)
        # From a container loopback is the container's own.
        door = Door(listen[-1] if process else listen[0], server.port, process, runner)
        _usable(server, door)
        _settings(server, door)
        refused = _harmless(server, door)
        strangers = _closed(server, door, [other for other in all_servers if other.app != server.app])
        told.append(
            f"{server.name}: {server.maxmemory_mb} MB, {server.policy}, {'kept on disk' if server.kept else 'in memory alone'}; "
            f"{refused} dangerous commands and {strangers} strangers refused"
        )
    return told


def _wait(server: Server, door: Door) -> None:
    """Until a server that was just started has read its data."""
    until = time.monotonic() + READY_SECONDS
    while True:
        try:
            answer = door.ask("PING", user=server.app, password=server.password)
            if not denied(answer, ["LOADING"]):
                return
        except RedisError:
            if time.monotonic() > until:
                raise
        if time.monotonic() > until:
            raise RedisError(f"Redis {server.name} still reads its data after {READY_SECONDS:g} s")
        time.sleep(0.2)


def _usable(server: Server, door: Door) -> None:
    mark = f"{time.time_ns()}"
    for words, expected in (
        (("PING",), "PONG"),
        (("ACL", "WHOAMI"), server.app),
        (("SET", PROBE_KEY, mark, "EX", "60"), "OK"),
        (("GET", PROBE_KEY), mark),
        (("DEL", PROBE_KEY), "1"),
    ):
        answer = door.ask(*words, user=server.app, password=server.password)
        if server.kept and denied(answer, ["OOM"]):
            # A full queue refuses writes, as it should (right after a start also while what its log deleted is being freed).
            return
        if answer != expected:
            raise RedisError(
                f"App {server.app} asked its {server.purpose} in Redis for {words[0]} and got: {first(answer)}",
                f"'{expected}'",
                f"look at 'journalctl -u {server.unit}' on the host, then run the playbook again",
            )


def _settings(server: Server, door: Door) -> None:
    numbers = door.numbers(user=server.app, password=server.password)
    wished = {
        "maxmemory": str(server.maxmemory_mb * 1024 * 1024),
        "maxmemory_policy": server.policy,
        "aof_enabled": "1" if server.kept else "0",
    }
    other = [
        f"{name} is {numbers.get(name)}, expected {value}"
        for name, value in wished.items()
        if numbers.get(name) != value
    ]
    if other:
        raise RedisError(
            f"Redis {server.name} runs with other settings than it was given: {'; '.join(other)}",
            f"the values of {server.settings_path}",
            f"run 'systemctl restart {server.unit}' on the host",
        )


def _harmless(server: Server, door: Door) -> int:
    """The dangerous commands, all tried and refused; how many."""
    for words in REFUSED:
        answer = door.ask(*words, user=server.app, password=server.password)
        if not denied(answer, NOT_ALLOWED):
            raise RedisError(
                f"App {server.app} may use {' '.join(words[:2])} on Redis {server.name}, which answered: {first(answer)}",
                "NOPERM, as its user has no right to it",
                f"look at {server.users_path}; 'systemctl restart {server.unit}' makes the server read it",
            )
    return len(REFUSED)


def _closed(server: Server, door: Door, others: Sequence[Server]) -> int:
    """Nobody without a password gets in, nor another app with its own; how many were tried."""
    tries = [("without a password", "", ""), ("the user default", "default", "no-such-password")]
    tries += [(f"app {other.app}", other.app, other.password) for other in others]
    tries += [
        (f"app {other.app} as {server.app}", server.app, other.password)
        for other in others
        if other.password != server.password
    ]
    for who, user, password in tries:
        answer = door.ask("GET", PROBE_KEY, user=user, password=password)
        if not denied(answer, ["NOAUTH", "WRONGPASS"]):
            raise RedisError(
                f"Redis {server.name} lets in {who}: {first(answer)}",
                "NOAUTH or WRONGPASS",
                f"look at {server.users_path}; 'systemctl restart {server.unit}' makes the server read it",
            )
    return len(tries)
