# SPDX-License-Identifier: Apache-2.0
"""The controller's side of ``slipway.vps.preflight``: facts in, one message out. No round trip to the host."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.slipway.vps.plugins.module_utils.slipway.inventory.preflight import Wish, examine, message

DNS_SECONDS = 3.0


def addresses_of(name: str) -> list[str]:
    """The IPv4 and IPv6 addresses that this computer's resolver gives for ``name``; none where it knows none."""
    try:
        found = socket.getaddrinfo(name, None, proto=socket.IPPROTO_TCP)
    except OSError:
        return []
    return sorted({str(entry[4][0]) for entry in found})


def resolve(names: list[str], seconds: float = DNS_SECONDS) -> dict[str, list[str]]:
    """All names at once; those that take longer than ``seconds`` are left out: a slow resolver is no finding."""
    pool = ThreadPoolExecutor(max_workers=8)
    waiting = {name: pool.submit(addresses_of, name) for name in names}
    deadline = time.monotonic() + seconds
    found = {}
    for name, future in waiting.items():
        try:
            found[name] = future.result(timeout=max(0.0, deadline - time.monotonic()))
        except FutureTimeoutError:
            continue
    pool.shutdown(wait=False, cancel_futures=True)
    return found


class ActionModule(ActionBase):
    """Holds a host against the wish, before anything is changed."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False
    _VALID_ARGS = frozenset(
        {"facts", "apps", "overrides", "dedicated", "database", "edge", "check_dns", "address", "allow_overcommit"}
    )

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Fails with every error in one message; warnings are shown and the run goes on."""
        result = super().run(tmp, task_vars)
        args = self._task.args
        apps = [app for app in args.get("apps") or [] if app.get("state", "present") == "present"]
        resolved: dict[str, list[str]] = {}
        addresses: list[str] = []
        if args.get("check_dns") and args.get("edge", True):
            names = [str(domain) for app in apps for domain in app.get("domains") or []]
            own = str(args.get("address") or "")
            found = resolve([*names, own] if own else names)
            addresses = found.pop(own, [])
            resolved = found
        wish = Wish(
            apps=apps,
            overrides=args.get("overrides") or {},
            dedicated=bool(args.get("dedicated")),
            database=args.get("database"),
            edge=bool(args.get("edge", True)),
            resolved=resolved,
            addresses=addresses,
            allow_overcommit=bool(args.get("allow_overcommit")),
        )
        findings = examine(args["facts"], wish, controller_now=time.time())
        warnings = [str(finding) for finding in findings if finding.level == "warning"]
        if warnings:
            result["warnings"] = warnings
        text = message(findings)
        if text:
            result.update(failed=True, msg=text)
        return result
