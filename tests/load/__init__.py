# SPDX-License-Identifier: Apache-2.0
"""A load client that never retries and counts every failure.

Made to prove that a deploy loses nothing: a fixed rate of requests that does not slow down when the server does
(open loop), HTTP/1.1 with keep-alive and HTTP/2 side by side, every stored note's id remembered for comparison with
the database, long requests and WebSockets in flight all the while.

    python -m tests.load https://notes.example.com --address 192.0.2.10 --ca lab-ca.pem --seconds 60

In tests and benchmarks: `BackgroundLoad` runs the client in a process of its own while something else happens.
"""

from .background import BackgroundLoad
from .model import Failure, Reconciliation, Report, Response, ledger_query, parse_ledger, reconcile
from .runner import Load, Plan
from .target import Target

__all__ = [
    "BackgroundLoad",
    "Failure",
    "Load",
    "Plan",
    "Reconciliation",
    "Report",
    "Response",
    "Target",
    "ledger_query",
    "parse_ledger",
    "reconcile",
]
