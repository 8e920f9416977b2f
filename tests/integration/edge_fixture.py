# SPDX-License-Identifier: Apache-2.0
"""The fixture ``edge``, for test files that name this module in ``pytest_plugins``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab import services
from tests.integration.edge import DOMAIN, WWW, Edge
from tests.integration.world import raise_lab, remove_lab


@pytest.fixture(scope="session")
def edge() -> Iterator[Edge]:
    """Converged once, the application running. A test that changes something puts it back."""
    world = raise_lab("edge", image="rung0", host="edge1")
    try:
        assert world.acme is not None
        services.name_hosts(world.driver, world.acme, {DOMAIN: world.host, WWW: world.host})
        made = Edge(world)
        made.ok()
        made.stop_app()
        made.start_app()
        yield made
    finally:
        remove_lab(world)
