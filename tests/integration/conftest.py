# SPDX-License-Identifier: Apache-2.0
"""Fixtures on lab hosts. ``converged`` is brought up once and shared: leave it as you found it.

A test that breaks the host, or needs its own settings, takes a host of its own (``raise_lab``).
Environment: SLIPWAY_KEEP=1 leaves labs standing after the run, and finds them again in the next one.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.world import World, docker_missing, raise_lab, remove_lab


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked ``lab`` are skipped, with the reason, where no lab can be had."""
    reason = docker_missing()
    if reason:
        for item in items:
            if item.get_closest_marker("lab"):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def converged() -> Iterator[World]:
    """A host that site.yml has converged, with the example application serving over HTTPS."""
    world = raise_lab("it", image="rung0")
    done = world.playbook("site")
    if done.returncode != 0:
        remove_lab(world)
        pytest.fail(f"site.yml failed:\n{done.stdout[-6000:]}\n{done.stderr[-2000:]}", pytrace=False)
    yield world
    remove_lab(world)
