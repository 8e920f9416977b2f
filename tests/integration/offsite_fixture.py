# SPDX-License-Identifier: Apache-2.0
"""The fixture ``offsite``, for test files that name this module in ``pytest_plugins``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import cli, s3
from lab.driver import get_driver
from lab.model import HostSpec, Lab
from tests.integration.offsite import MAIL_PORT, SINK, WEB_PORT, Offsite
from tests.integration.world import World, example_settings, quiet, remove_lab

ROWS = (
    "CREATE TABLE notes (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text NOT NULL)",
    "INSERT INTO notes (body) SELECT 'note ' || n FROM generate_series(1, 1000) n",
)


@pytest.fixture(scope="session")
def offsite() -> Iterator[Offsite]:
    """Converged once by site.yml, at its loudest and watched, with some rows. A test that changes something puts it back."""
    lab, driver = Lab("offsite"), get_driver()
    specs = [
        HostSpec(name="db1", image="rung0", ram_mb=2048),
        HostSpec(name="drill1", image="rung0", ram_mb=2048),
        s3.spec(),
    ]
    db, drill, store = cli.up(driver, lab, specs, quiet)
    world = World(lab, driver, db, None)
    try:
        world.settings = example_settings(lab, None)
        access = s3.access(lab)
        made = Offsite(world, drill, store, access, {name: dict(key) for name, key in access.keys.items()})
        driver.put_file(
            store, "/usr/local/sbin/alarm-sink", (Path(__file__).parent / "alarm_sink.py").read_bytes(), 0o755
        )
        run = ["systemd-run", "--quiet", "--unit=alarm-sink", "python3", "/usr/local/sbin/alarm-sink", SINK]
        made.root([*run, str(WEB_PORT), str(MAIL_PORT)], on=store)
        made.write_inventory()
        with made.watched():
            made.first = made.ok("site", "-vvv", "--diff")
            made.wait_idle("slipway-backup.service", db, 120)
            world.sql("CREATE DATABASE notes", "postgres")
            for statement in ROWS:
                world.sql(statement)
            made.ok("take_backup", "-vvv")
        yield made
    finally:
        remove_lab(world)
