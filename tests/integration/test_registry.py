# SPDX-License-Identifier: Apache-2.0
"""An app from a registry: trusted by the inventory, pulled by the host, kept as a release of the digest that was pulled."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest

from lab.services import REGISTRY
from tests.integration.world import World, recap

pytestmark = pytest.mark.lab


def status(world: World) -> dict[str, Any]:
    """What the engine on the host says of the app."""
    said = json.loads(world.root(["/usr/local/sbin/slipway", "app", "status", "--json"]))
    return next(one for one in said["apps"] if one["app"] == "notes")


@pytest.fixture
def registry(converged: World) -> Iterator[World]:
    """The inventory trusts the lab's registry, which holds the image that serves now as notes:1.0."""
    settings = copy.deepcopy(converged.settings)
    trust = {"docker_registries": [{"host": REGISTRY, "ca": converged.ca.read_text()}]}
    app = {**settings["slipway_apps"][0], "image": {"source": "registry", "name": f"{REGISTRY}/notes", "tag": "1.0"}}
    serving = converged.root(["docker", "ps", "--filter", "label=slipway.app=notes", "--format", "{{.Image}}"]).split()[
        0
    ]
    converged.write_inventory(**trust)
    done = converged.playbook("site", "--tags", "docker")
    assert done.returncode == 0, done.stdout[-3000:]
    reference = f"{REGISTRY}/notes:1.0"
    converged.root(["docker", "tag", serving, reference])
    converged.root(["docker", "push", reference], timeout=300)
    converged.root(["docker", "rmi", reference])
    converged.write_inventory(**trust, slipway_apps=[app])
    yield converged
    converged.write_inventory()
    done = converged.playbook("deploy")
    assert done.returncode == 0, done.stdout[-3000:]


def test_the_host_pulls_what_the_inventory_names_and_a_second_run_does_not(registry: World) -> None:
    before = status(registry)
    done = registry.playbook("site")
    assert done.returncode == 0, done.stdout[-4000:]
    after = status(registry)
    assert after["release"] != before["release"]
    assert registry.status() == 200
    digests = registry.root(
        ["docker", "image", "inspect", "--format", "{{json .RepoDigests}}", f"{REGISTRY}/notes:1.0"]
    )
    assert f"{REGISTRY}/notes@sha256:" in digests
    again = registry.playbook("site")
    assert (again.returncode, recap(again).get("changed")) == (0, 0), again.stdout[-3000:]
