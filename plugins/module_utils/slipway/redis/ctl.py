# SPDX-License-Identifier: Apache-2.0
"""``slipway redis``: how the servers of this host are, for people, and for Prometheus once a minute."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..backup import metrics
from ..backup.config import METRICS
from ..backup.metrics import Metric
from ..commands import run
from ..errors import SlipwayError
from .client import Door, Runner, keys
from .server import KNOWN, WATCHER

# Metric, of INFO, and what it says.
GAUGES = (
    ("used_memory_bytes", "used_memory", "Memory that its data and clients take."),
    ("maxmemory_bytes", "maxmemory", "What it may take before it evicts, or refuses writes."),
    ("resident_bytes", "used_memory_rss", "What its process takes."),
    ("connected_clients", "connected_clients", "Clients that are connected."),
    ("evicted_keys", "evicted_keys", "Keys evicted for room since it started."),
    ("expired_keys", "expired_keys", "Keys that ran out since it started."),
    ("keyspace_hits", "keyspace_hits", "Reads that found their key since it started."),
    ("keyspace_misses", "keyspace_misses", "Reads that did not."),
    ("uptime_seconds", "uptime_in_seconds", "Since it started."),
)


def look(known: Mapping[str, Any], runner: Runner = run) -> list[dict[str, Any]]:
    """Each server as plain data: ``app``, ``purpose``, ``up``, and either INFO's numbers or the reason."""
    found = []
    for one in known.get("servers", ()):
        seen: dict[str, Any] = {"app": one["app"], "purpose": one["purpose"], "up": False, "numbers": {}, "reason": ""}
        door = Door(str(known["address"]), int(one["port"]), 0, runner)
        try:
            seen["numbers"] = door.numbers(user=WATCHER, password=str(one["watch_password"]))
            seen["up"] = True
        except SlipwayError as error:
            seen["reason"] = error.found
        found.append(seen)
    return found


def gauges(seen: Sequence[Mapping[str, Any]]) -> list[Metric]:
    """What Prometheus reads. Pure."""
    labels = [{"app": str(one["app"]), "purpose": str(one["purpose"])} for one in seen]
    made = [
        Metric(
            "slipway_redis_up",
            "Whether it answers.",
            [(label, int(one["up"])) for label, one in zip(labels, seen, strict=True)],
        )
    ]
    for name, source, text in GAUGES:
        values = [
            (label, float(one["numbers"][source]))
            for label, one in zip(labels, seen, strict=True)
            if source in one["numbers"]
        ]
        made.append(Metric(f"slipway_redis_{name}", text, values))
    made.append(
        Metric(
            "slipway_redis_keys",
            "Keys it holds.",
            [(label, keys(one["numbers"])) for label, one in zip(labels, seen, strict=True) if one["up"]],
        )
    )
    return made


def line(one: Mapping[str, Any]) -> str:
    """One server in a line."""
    name = f"redis {one['purpose']} of {one['app']}"
    if not one["up"]:
        return f"{name:<28} DOWN     {one['reason']}"
    numbers = one["numbers"]
    used, most = int(numbers["used_memory"]), int(numbers.get("maxmemory", 0))
    share = f", {100 * used // most} % of {most // 2**20} MB" if most else ""
    return (
        f"{name:<28} up       {keys(numbers)} keys, {used / 2**20:.1f} MB{share}, {numbers.get('evicted_keys', '0')} evicted, "
        f"{numbers.get('connected_clients', '?')} clients"
    )


def known(path: Path = Path(KNOWN)) -> dict[str, Any]:
    """What the role has written down of this host's servers; nothing where it was never here."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return found


def summary(told: Mapping[str, Any] | None = None, runner: Runner = run) -> list[dict[str, Any]]:
    """Each server in what a plan compares: ``name``, ``up``, ``maxmemory_mb``, ``keys``, ``reason``."""
    return [
        {
            "name": f"{one['app']}-{one['purpose']}",
            "up": one["up"],
            "maxmemory_mb": int(one["numbers"].get("maxmemory", 0)) // 2**20,
            "keys": keys(one["numbers"]),
            "reason": one["reason"],
        }
        for one in look(known() if told is None else told, runner)
    ]


def add(commands: Any) -> None:
    """The words of this command."""
    verbs = commands.add_parser("redis", help="the servers of Redis").add_subparsers(dest="verb", required=True)
    status = verbs.add_parser("status", help="how each server is")
    status.add_argument("--json", action="store_true", help="for programs")
    verbs.add_parser("metrics", help="write down their numbers for Prometheus (started by a timer)")


def main(arguments: argparse.Namespace) -> int:
    """Look at every server; 1 where one does not answer."""
    seen = look(known())
    if arguments.verb == "metrics":
        for complaint in metrics.write(METRICS, "redis", lambda: gauges(seen)):
            print(f"<4>{complaint}", flush=True)
        for one in seen:
            if not one["up"]:
                print(f"<3>{line(one)}", flush=True)
        # What is down is in the metrics; a unit that failed each minute would say no more.
        return 0
    if arguments.json:
        print(json.dumps({"redis": seen}, indent=1), flush=True)
    else:
        for one in seen:
            print(line(one), flush=True)
    return 0 if all(one["up"] for one in seen) else 1
