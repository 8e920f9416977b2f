# SPDX-License-Identifier: Apache-2.0
"""The container that serves an app, as a process whose network can be entered: to ask as the app itself would."""

from __future__ import annotations

from collections.abc import Iterable

from ..deploy import compose
from ..deploy.docker import Docker
from ..deploy.releases import Store
from .client import RedisError


def processes(apps: Iterable[str], docker: Docker | None = None) -> dict[str, int]:
    """App -> process id of its serving container. Raises RedisError where one does not serve."""
    docker = docker or Docker()
    found = {}
    for app in sorted(apps):
        current = Store(app).load().current
        running = docker.inspect(compose.container(app, current.colour)) if current else None
        if running is None or not running.running:
            raise RedisError(
                f"App {app} does not serve, so nobody can say whether it reaches its Redis",
                "a running release",
                f"look at 'slipway app status {app}' on the host",
            )
        found[app] = running.pid
    return found
