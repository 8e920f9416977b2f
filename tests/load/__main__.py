# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.load URL``: run the load, print what happened; exit 0 when nothing failed, 1 when something did."""

from __future__ import annotations

import argparse
import asyncio
import signal
import ssl
import sys
from pathlib import Path

from .model import Report
from .runner import CLIENTS, Load, Plan
from .target import Target


def parse(argv: list[str]) -> argparse.Namespace:
    """Command line -> options; the defaults are the issue's: 200 requests/s for 60 s, both protocols."""
    plan = Plan()
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__)
    parser.add_argument("url", help="https://name[:port] of the notes application")
    parser.add_argument("--address", help="IP address to connect to instead of resolving the name")
    parser.add_argument("--ca", help="PEM file of the authority to trust instead of the machine's own")
    parser.add_argument("--seconds", type=float, default=plan.seconds, help="length; 0 runs until SIGINT or SIGTERM")
    parser.add_argument("--rate", type=float, default=plan.rate, help="requests/s over all protocols")
    parser.add_argument("--protocols", default=",".join(plan.protocols), help="of " + ", ".join(CLIENTS))
    parser.add_argument("--posts", type=float, default=plan.posts, help="share of POSTs, 0 to 1")
    parser.add_argument("--connections", type=int, default=plan.connections, help="most that HTTP/1.1 opens")
    parser.add_argument("--h2-connections", type=int, default=plan.h2_connections, help="what HTTP/2 keeps open")
    parser.add_argument("--slow-every", type=float, default=plan.slow_every, help="start a slow request every N s")
    parser.add_argument("--slow-seconds", type=float, default=plan.slow_seconds)
    parser.add_argument("--websockets", type=int, default=plan.websockets, help="WebSockets to hold open")
    parser.add_argument("--json", metavar="FILE", help="write the whole report there (- for stdout)")
    options = parser.parse_args(argv)
    options.protocols = tuple(options.protocols.split(","))
    if unknown := set(options.protocols) - set(CLIENTS):
        parser.error(f"unknown protocol {', '.join(sorted(unknown))}: expected of {', '.join(CLIENTS)}")
    if options.rate <= 0 or min(options.connections, options.h2_connections) < 1 or not 0 <= options.posts <= 1:
        parser.error("--rate must be above 0, --connections at least 1, --posts between 0 and 1")
    return options


async def run(options: argparse.Namespace) -> Report:
    """Run until the plan or a signal ends it."""
    load = Load(
        Target(options.url.rstrip("/"), options.address, options.ca),
        Plan(
            rate=options.rate,
            seconds=options.seconds or None,
            protocols=options.protocols,
            posts=options.posts,
            connections=options.connections,
            h2_connections=options.h2_connections,
            slow_every=options.slow_every,
            slow_seconds=options.slow_seconds,
            websockets=options.websockets,
        ),
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, load.stop)
    if options.json and options.json != "-":
        Path(f"{options.json}.started").touch()
    return await load.run()


def render(report: Report) -> str:
    """The report as a person reads it."""
    lines = [
        f"{report.ok} of {report.planned} requests answered in {report.seconds:.1f} s, {len(report.failed)} failed",
        "latency ms: "
        + ", ".join(
            f"{n} {report.percentile(s):.1f}" for n, s in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("max", 1.0))
        ),
        "protocols: " + ", ".join(f"{n} {c}" for n, c in sorted(report.by_protocol.items())),
        f"POSTs acknowledged: {len(report.acknowledged)} (ledger {report.ledger})",
    ]
    lines += [f"release {name}: {count}" for name, count in report.releases.items()]
    lines += [f"FAILED {kind}: {count}" for kind, count in sorted(report.kinds.items())]
    lines += [f"  {one.method} {one.path} {one.kind} {one.detail}" for one in report.failed[:5]]
    if report.slow:
        lines.append(f"slow requests: {len(report.slow) - len(report.slow_failed)} completed")
        lines += [f"FAILED slow: {one.error}" for one in report.slow_failed]
    lines += [
        f"WebSocket: {one.seconds:.1f} s, {one.ticks} ticks, ended by {one.ended_by} {one.detail}"
        for one in report.sockets
    ]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    options = parse(sys.argv[1:] if argv is None else argv)
    try:
        report = asyncio.run(run(options))
    except (OSError, ssl.SSLError, ValueError) as error:
        print(f"the load cannot run: {error}", file=sys.stderr)
        return 2
    if options.json == "-":
        print(report.to_json())
    elif options.json:
        part = Path(f"{options.json}.part")
        part.write_text(report.to_json())
        part.rename(options.json)
    if options.json != "-":
        print(render(report))
    return 0 if report.clean else 1


if __name__ == "__main__":
    sys.exit(main())
