# SPDX-License-Identifier: Apache-2.0
"""``python -m notes``: serve until SIGTERM, then finish what is in flight."""

from __future__ import annotations

import os
import sys

import uvicorn

from . import logs
from .settings import SettingError, from_environment


def main() -> int:
    try:
        settings = from_environment(os.environ)
    except SettingError as error:
        print(f"notes cannot start: {error}", file=sys.stderr)
        return 2
    logs.configure(settings)
    uvicorn.run(
        "notes.app:create_app",
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        # Requests are logged by the application, once and as JSON, when ACCESS_LOG asks for it.
        access_log=False,
        log_config=None,
        proxy_headers=True,
        # The port is published on loopback alone, so whoever connects is the proxy.
        forwarded_allow_ips=settings.trusted_proxies,
        server_header=False,
        timeout_graceful_shutdown=settings.grace_seconds,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
