# SPDX-License-Identifier: Apache-2.0
"""What breaks at three in the morning: the app answers again without anybody's help, and no note is lost."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable

import pytest

from tests.integration.world import World

pytestmark = pytest.mark.lab


def container(world: World) -> str:
    """Name of the container that serves the app."""
    names = world.root(["docker", "ps", "--format", "{{.Names}}"]).split()
    (name,) = (one for one in names if "notes" in one)
    return name


def write(world: World) -> str:
    """A note written over HTTPS; its id."""
    note = str(uuid.uuid4())
    body = json.dumps({"id": note, "text": "survives"})
    done = world.curl("/api/notes", "-f", "-H", "Content-Type: application/json", "-d", body)
    assert done.returncode == 0, done.stderr
    return note


def stored(world: World, note: str) -> bool:
    """Whether the note comes back."""
    return world.curl(f"/api/notes/{note}", "-f").returncode == 0


def kill_container(world: World) -> None:
    """Its first process gets SIGKILL from outside, as the kernel's memory killer would send it."""
    pid = world.root(["docker", "inspect", "-f", "{{.State.Pid}}", container(world)]).strip()
    world.root(["kill", "-KILL", pid])


def restart_docker(world: World) -> None:
    """As an upgrade of the package would."""
    world.root("systemctl restart docker.service", timeout=120)


def kill_docker(world: World) -> None:
    """The engine crashes."""
    world.root("systemctl kill --signal=KILL --kill-whom=main docker.service")


def restart_postgres(world: World) -> None:
    """As a change of shared_buffers would."""
    world.root("systemctl restart postgresql@17-main.service", timeout=120)


def kill_postgres(world: World) -> None:
    """The postmaster is killed without a chance to write anything."""
    world.root("kill -KILL $(head -1 /var/lib/postgresql/17/main/postmaster.pid)")


def kill_pgbouncer(world: World) -> None:
    """The pooler crashes."""
    world.root("systemctl kill --signal=KILL --kill-whom=main pgbouncer.service")


def kill_caddy(world: World) -> None:
    """The proxy crashes."""
    world.root("systemctl kill --signal=KILL --kill-whom=main caddy.service")


def restart_host(world: World) -> None:
    """Shut down in order and started again, as after a kernel update."""
    world.driver.restart(world.host)
    world.refresh()


def power_off(world: World) -> None:
    """The plug is pulled."""
    world.driver.kill(world.host)
    world.driver.start(world.host)
    world.refresh()


@pytest.mark.parametrize(
    ("disaster", "seconds"),
    [
        (kill_container, 30),
        (restart_docker, 30),
        (kill_docker, 30),
        (restart_postgres, 30),
        (kill_postgres, 45),
        (kill_pgbouncer, 30),
        (kill_caddy, 20),
        (restart_host, 90),
        (power_off, 90),
    ],
    ids=lambda value: value.__name__ if callable(value) else None,
)
def test_the_app_answers_again_by_itself(converged: World, disaster: Callable[[World], None], seconds: float) -> None:
    world = converged
    before = write(world)
    disaster(world)
    world.wait_until_serving(seconds)
    assert stored(world, before), "a note that was acknowledged is gone"
    assert stored(world, write(world)), "the app answers but does not write"
    assert failed_units(world) == ""


def failed_units(world: World, seconds: float = 20) -> str:
    """Units that stay failed, after a while to come up in."""
    limit = time.monotonic() + seconds
    while True:
        failed = world.root("systemctl list-units --failed --plain --no-legend --no-pager", check=False).strip()
        if not failed or time.monotonic() > limit:
            return failed
        time.sleep(1)


def test_the_host_is_as_the_inventory_says_after_all_that(converged: World) -> None:
    done = converged.playbook("site")
    assert done.returncode == 0, done.stdout[-4000:]
    assert "changed=0" in done.stdout.partition("PLAY RECAP")[2], done.stdout[-4000:]
