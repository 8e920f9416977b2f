# SPDX-License-Identifier: Apache-2.0
"""Sizing: the user's own figures win, with a warning where they break a bound; what cannot be is refused."""

from __future__ import annotations

import pytest
from slipway.errors import InputError, UnknownNameError
from slipway.sizing.plan import AppShape, HostShape, size
from slipway.sizing.settings import parse_value

DISK = 80_000


@pytest.mark.parametrize(
    ("raw", "text"),
    [("12MB", "12MB"), ("12 mb", "12MB"), ("6000kB", "6000kB"), ("2048kB", "2MB"), ("0.01GB", "10486kB")],
)
def test_an_override_wins_in_any_spelling_of_its_unit(raw: str, text: str) -> None:
    assert size(HostShape(8192, 4, DISK), {"work_mem": raw}).settings["work_mem"] == text


def test_yaml_booleans_get_their_meaning_back() -> None:
    settings = size(HostShape(4096, 2, DISK), {"jit": True, "huge_pages": False}).settings
    assert (settings["jit"], settings["huge_pages"]) == ("on", "off")


def test_rules_follow_the_users_figures() -> None:
    plain, own = size(HostShape(8192, 4, DISK)), size(HostShape(8192, 4, DISK), {"shared_buffers": "1GB"})
    assert own.postgres.work_mem_mb > plain.postgres.work_mem_mb
    assert own.postgres.active == plain.postgres.active
    own = size(HostShape(8192, 4, DISK), {"maintenance_work_mem": "90MB"})
    assert own.settings["autovacuum_work_mem"] == "30MB"


def test_the_users_targets_for_work_mem_are_warned_about_with_their_worst_case() -> None:
    sizing = size(HostShape(4096, 2, DISK), {"work_mem": "32MB"}, allow_overcommit=True)
    assert any(
        "work_mem is 32 MB, the rule gives 14 MB" in w and "1152 MB" in w and "28 %" in w for w in sizing.warnings
    )


@pytest.mark.parametrize(
    ("overrides", "warning"),
    [
        ({"shared_buffers": "3500MB"}, "shared_buffers is 3500 MB, more than 40 % of RAM (3276 MB)"),
        ({"max_connections": 15, "pool_size": 20}, "max_connections is 15, below the pool"),
        (
            {"max_connections": 15},
            "max_connections is 15, below what the pool needs: it shrinks to 4 connections instead of 20",
        ),
        ({"max_connections": 25, "pool_size": 20}, "max_connections is 25, too few for the pool"),
        ({"effective_cache_size": "9GB"}, "more than the RAM of 8192 MB"),
        ({"maintenance_work_mem": "1100MB", "autovacuum_work_mem": "64MB"}, "maintenance_work_mem is 1100 MB"),
        ({"autovacuum_work_mem": "400MB"}, "autovacuum may take 1200 MB"),
        ({"max_wal_size": "20GB"}, "more than 8 % of the disk"),
        ({"min_wal_size": "8GB"}, "above max_wal_size"),
        ({"max_slot_wal_keep_size": -1}, "max_slot_wal_keep_size is -1"),
        ({"max_slot_wal_keep_size": "30GB"}, "more than a fifth of the disk"),
        ({"max_parallel_workers_per_gather": 12}, "more than max_worker_processes"),
        ({"huge_pages": "on"}, "Postgres will not start unless"),
        ({"idle_in_transaction_session_timeout": 0}, "for ever"),
    ],
)
def test_an_override_that_breaks_a_bound_wins_with_a_warning(overrides: dict[str, object], warning: str) -> None:
    host = HostShape(8192, 4, DISK)
    assert size(host).warnings == ()
    sizing = size(host, overrides, allow_overcommit=True)
    assert any(warning in text for text in sizing.warnings), sizing.warnings
    for name, value in overrides.items():
        if name in sizing.settings:
            assert parse_value(name, sizing.settings[name]) == parse_value(name, value)


def test_io_uring_is_warned_about() -> None:
    sizing = size(HostShape(8192, 4, DISK, postgres_major=18), {"io_method": "io_uring"})
    assert any("io_uring" in text for text in sizing.warnings)


def test_an_apps_own_figures_are_warned_about_when_unsafe() -> None:
    apps = (AppShape("app", workers=12, memory_mb=100, concurrency=500),)
    warnings = " ".join(size(HostShape(8192, 4, DISK, apps=apps)).warnings)
    assert "100 MB for 12 workers" in warnings
    assert "12 workers on 4 cores" in warnings
    assert "500 requests at once" in warnings


@pytest.mark.parametrize(
    ("name", "meant"), [("work_men", "work_mem"), ("shared_buffer", "shared_buffers"), ("poolsize", "pool_size")]
)
def test_a_misspelled_override_is_refused_with_the_name_that_was_meant(name: str, meant: str) -> None:
    with pytest.raises(UnknownNameError, match=f"'{name}'.*write {meant} instead"):
        size(HostShape(4096, 2, DISK), {name: "64MB"})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"work_mem": 32}, "work_mem is 32.*a number with its unit"),
        ({"work_mem": "much"}, "work_mem is 'much'"),
        ({"work_mem": "-4MB"}, "work_mem is -4MB.*at least 64kB"),
        ({"work_mem": None}, "work_mem is None"),
        ({"max_connections": "many"}, "a whole number"),
        ({"max_connections": 50.5}, "a whole number"),
        ({"max_connections": True}, "a whole number"),
        ({"checkpoint_completion_target": 1.5}, "at least 0, at most 1"),
        ({"checkpoint_timeout": "10s"}, "at least 30s"),
        ({"huge_pages": "perhaps"}, "one of: try, on, off"),
        ({"io_method": "sync"}, "which PostgreSQL 17 does not have"),
        ({"random_page_cost": "nan"}, "a number"),
    ],
)
def test_a_value_that_cannot_be_is_refused(overrides: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        size(HostShape(4096, 2, DISK), overrides)


def test_lz4_is_refused_before_postgres_15() -> None:
    with pytest.raises(InputError, match="PostgreSQL 14 does not know"):
        size(HostShape(4096, 2, DISK, postgres_major=14), {"wal_compression": "lz4"})
