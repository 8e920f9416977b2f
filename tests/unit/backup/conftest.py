# SPDX-License-Identifier: Apache-2.0
"""A PostgreSQL server and a bucket."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from . import quick_initdb
from .fake_s3 import FakeS3
from .postgres import server


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Conninfo of a PostgreSQL server's superuser, without a database name."""
    with server() as conninfo:
        yield conninfo


@pytest.fixture(scope="session")
def quick_programs() -> Iterator[Path]:
    """A folder of PostgreSQL's programs for drills, in which initdb copies what it made before."""
    with quick_initdb.programs() as folder:
        yield folder


@pytest.fixture
def new_database(postgres: str) -> Iterator[Callable[..., str]]:
    """Makes empty databases and gives their conninfo; they are dropped after the test."""
    import psycopg

    made: list[str] = []
    with psycopg.connect(f"{postgres} dbname=postgres", autocommit=True) as admin:

        def make(options: str = "") -> str:
            name = f"slipway_t_{os.urandom(4).hex()}"
            admin.execute(f"CREATE DATABASE {name} {options}".encode())
            made.append(name)
            return f"{postgres} dbname={name}"

        yield make
        for name in made:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def fake() -> Iterator[FakeS3]:
    """An empty bucket that can be told to misbehave."""
    bucket = FakeS3()
    yield bucket
    bucket.close()
