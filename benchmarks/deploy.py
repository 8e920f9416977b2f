# SPDX-License-Identifier: Apache-2.0
"""``python -m benchmarks.deploy``: what clients notice of a deploy, a rollback and a deploy that fails its gate.

200 requests/s of GET and POST all the while, half HTTP/1.1 with keep-alive, half HTTP/2, by clients that never retry;
20 s requests and WebSockets in flight. The same scenario is asserted in tests/integration/test_deploy_under_load.py.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict

from benchmarks.common import Figure, Result, busy, progress
from tests.integration.world import raise_lab, remove_lab
from tests.load import Plan
from tests.load.scenario import STALLED_MS, Run, deploys_under_load

LAB = "bench"


def figures(run: Run) -> list[Figure]:
    """The figures of a run; everything that must be nothing has the bound 0."""
    report, found = run.report, run.found
    kept = [seconds for switch in run.switches for seconds in run.socket_seconds(switch)]
    across = [one for switch in run.switches for one in run.slow_across(switch)]
    rows = [
        Figure("requests answered", report.ok, ""),
        Figure("requests failed", len(report.failed), "", 0),
        Figure("requests planned but not sent", report.planned - report.sent, "", 0),
        Figure("requests that waited for 20 s and more", sum(one >= STALLED_MS for one in report.latencies), "", 0),
        Figure("POSTs acknowledged", found.acknowledged, ""),
        Figure("POSTs lost", len(found.lost), "", 0),
        Figure("POSTs stored twice", len(found.duplicated), "", 0),
        Figure("20 s requests in flight at a switch", len(across), ""),
        Figure("of these failed", sum(bool(one.error) for one in across), "", 0),
        Figure(
            "WebSockets cut before the drain time was over", sum(one < run.drain_seconds - 1 for one in kept), "", 0
        ),
        Figure("latency, median", report.percentile(0.5), "ms"),
        Figure("latency, 99th percentile", report.percentile(0.99), "ms"),
        Figure("latency, worst", report.percentile(1.0), "ms"),
    ]
    for phase in run.phases.values():
        during = report.between(int(phase.started), phase.ended)
        rows.append(Figure(f"{phase.name}: wall time", phase.ended - phase.started, "s"))
        rows.append(Figure(f"{phase.name}: failed requests", during["failed"], "", 0))
        rows.append(Figure(f"{phase.name}: worst latency", during["worst_ms"], "ms"))
    return rows


def main(argv: list[str] | None = None) -> int:
    """Run; 0 when every bound is met, 1 when one is missed, 2 when it could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.deploy", description=__doc__)
    parser.add_argument("--rate", type=float, default=200.0, help="requests/s over both protocols")
    options = parser.parse_args(argv)
    result = Result("deploy")
    noise = busy()
    world = raise_lab(LAB, image="rung0")
    try:
        progress("site.yml ...")
        done = world.playbook("site", timeout=1800)
        if done.returncode != 0:
            progress(f"site.yml failed:\n{done.stdout[-4000:]}\n{done.stderr[-1000:]}")
            return 2
        plan = Plan(rate=options.rate, seconds=None, slow_every=4.0, websockets=2)
        run = deploys_under_load(world, plan, progress)
    finally:
        remove_lab(world)
    wrong = [phase for phase in run.phases.values() if (phase.code == 0) == (phase.name == "failing deploy")]
    if wrong or len(run.switches) != 2:
        for phase in wrong:
            progress(f"{phase.name} ended with {phase.code}:\n{phase.output[-3000:]}")
        progress(f"{len(run.switches)} switches were seen instead of 2: this measured something else")
        return 2
    result.figures = figures(run)
    result.notes = [
        *filter(None, [noise or busy()]),
        f"{options.rate:g} requests/s for {run.report.seconds:.0f} s without a pause over all three, drain time"
        f" {run.drain_seconds:g} s; latency from the scheduled start, so waiting counts.",
        "An app that starts takes CPU time from the one that serves: the worst latency is of a machine with few cores.",
    ]
    result.detail = {
        "slowest": [asdict(one) for one in run.report.slowest],
        "summary": run.report.summary(),
        "failed": [asdict(one) for one in run.report.failed[:50]],
    }
    return result.finish()


if __name__ == "__main__":
    sys.exit(main())
