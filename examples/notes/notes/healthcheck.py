# SPDX-License-Identifier: Apache-2.0
"""Docker's HEALTHCHECK: exit 0 when the process answers /healthz on its own port."""

from __future__ import annotations

import http.client
import os
import sys


def main() -> int:
    connection = http.client.HTTPConnection("127.0.0.1", int(os.environ.get("PORT") or 8000), timeout=4)
    try:
        connection.request("GET", "/healthz")
        return 0 if connection.getresponse().status == 200 else 1
    except OSError:
        return 1


if __name__ == "__main__":
    sys.exit(main())
