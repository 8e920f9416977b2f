# SPDX-License-Identifier: Apache-2.0
"""The fixture ``database``, for test files that name this module in ``pytest_plugins``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.database import Database, tunnel
from tests.integration.world import raise_lab, remove_lab


@pytest.fixture(scope="session")
def database() -> Iterator[Database]:
    """Converged once. A test that changes something converges again without the change at its end."""
    world = raise_lab("db", image="rung0", acme=False, host="db1")
    try:
        made = Database(world)
        made.ok()
        with tunnel(world, 6432) as port:
            made.pooler_port = port
            yield made
    finally:
        remove_lab(world)
