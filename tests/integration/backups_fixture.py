# SPDX-License-Identifier: Apache-2.0
"""The fixture ``backups``, for test files that name this module in ``pytest_plugins``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.backups import Backups
from tests.integration.world import raise_lab, remove_lab

ROWS = """
CREATE TABLE notes (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text NOT NULL);
INSERT INTO notes (body) SELECT 'note ' || n FROM generate_series(1, 1000) n;
CREATE TABLE tags (note_id bigint REFERENCES notes, tag text);
INSERT INTO tags SELECT id, 'tag' FROM notes;
"""


@pytest.fixture(scope="session")
def backups() -> Iterator[Backups]:
    """Converged once, with some rows, and the first backup taken. A test that changes something puts it back."""
    world = raise_lab("backups", image="rung0", acme=False, host="db1")
    try:
        made = Backups(world)
        made.ok()
        assert made.wait_idle("slipway-backup.service") == "success"
        for statement in ROWS.split(";\n"):
            if statement.strip():
                made.sql(f"SET ROLE notes; {statement}")
        yield made
    finally:
        remove_lab(world)
