# SPDX-License-Identifier: Apache-2.0
"""The fixture ``grown``, for test files that name this module in ``pytest_plugins``. ``SLIPWAY_LAB`` gives its lab another name."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.integration.grow import Grow
from tests.integration.world import raise_lab, remove_lab


@pytest.fixture(scope="session")
def grown() -> Iterator[Grow]:
    """A host on rung 0, as site.yml made it, with the example application serving over HTTPS."""
    world = raise_lab(os.environ.get("SLIPWAY_LAB") or "grow", image="rung0")
    try:
        done = world.playbook("site")
        if done.returncode != 0:
            pytest.fail(f"site.yml failed:\n{done.stdout[-6000:]}\n{done.stderr[-2000:]}", pytrace=False)
        yield Grow(world)
    finally:
        remove_lab(world)
