# SPDX-License-Identifier: Apache-2.0
"""The budget as text, and the filters that hand sizing to playbooks."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from ansible.errors import AnsibleFilterError
from slipway.sizing.plan import AppShape, HostShape, plan, render_budget, size

ROOT = Path(__file__).resolve().parents[2]
FACTS = {"ram_mb": 3915, "cores": 2, "disk_total_mb": 40_000, "postgres_major": None}
SIZING = size(HostShape(3915, 2, 40_000, redis=True, apps=(AppShape("notes"), AppShape("shop"))), {"work_mem": "16MB"})


def test_the_lines_shown_add_up_to_the_total_shown() -> None:
    table, _, rest = render_budget(SIZING).partition("───")
    shown = [int(mb) for mb in re.findall(r"(\d+) MB  ", table)]
    total = re.search(r"all of it at once\s+(\d+) MB", rest)
    assert total
    assert sum(shown) == int(total[1]) == SIZING.budget.total_mb
    assert len(shown) == len(SIZING.budget.lines)


def test_the_text_shows_what_was_decided_and_warned_about() -> None:
    text = render_budget(SIZING)
    for expected in (
        "shared_buffers 1024MB",
        "work_mem 16MB",
        "App shop: 1 x 100 requests",
        "maxmemory",
        "4096 MB RAM, 2 cores",
    ):
        assert expected in text
    assert "note: 3915 MB of RAM measured" in text
    assert "warning: work_mem is 16 MB, the rule gives 14 MB" in text


def test_a_budget_that_does_not_fit_says_how_much_is_missing() -> None:
    sizing = plan(HostShape(981, 1, 40_000))
    assert re.search(rf"MISSING\s+{-sizing.budget.free_mb} MB", render_budget(sizing))


@pytest.mark.parametrize("sizing", [SIZING, plan(HostShape(512, 64, 40_000)), plan(HostShape(200_000, 64, 9_000_000))])
def test_the_text_fits_a_terminal(sizing: object) -> None:
    lines = render_budget(sizing).splitlines()  # type: ignore[arg-type]
    assert max(len(line) for line in lines) <= 96
    assert all(line == line.rstrip() for line in lines)


@pytest.fixture(name="filters")
def _filters() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sizing_filters", ROOT / "plugins/filter/sizing.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_filter_gives_plain_data(filters: ModuleType) -> None:
    result = filters.sizing(FACTS, apps=[{"name": "notes", "workers": "auto"}], postgres_major=18)
    assert result["postgres"]["settings"]["io_method"] == "worker"
    assert result["apps"]["notes"]["server_pool"] == result["pgbouncer"]["pool_size"] == 12
    assert "App notes" in filters.sizing_text(FACTS, apps=[{"name": "notes"}])


@pytest.mark.parametrize(
    ("facts", "options", "message"),
    [
        (FACTS, {"overrides": {"work_men": "8MB"}}, "write work_mem instead"),
        ({**FACTS, "ram_mb": 981}, {"apps": [{"name": "notes"}]}, "take a plan of 2048 MB"),
        ({}, {}, "lack ram_mb, cores, disk_total_mb"),
        (FACTS, {"rolle": "shared"}, "rolle"),
    ],
)
def test_the_filter_fails_with_one_message(
    filters: ModuleType, facts: dict[str, object], options: dict[str, object], message: str
) -> None:
    with pytest.raises(AnsibleFilterError, match=message) as caught:
        filters.sizing(facts, **options)
    assert "\n" not in str(caught.value)


def test_the_filters_are_offered_by_name(filters: ModuleType) -> None:
    assert set(filters.FilterModule().filters()) == {"sizing", "sizing_text", "sized_overrides"}


def test_the_example_in_the_docs_is_what_a_user_will_see() -> None:
    text = render_budget(size(HostShape(1981, 1, 40_000, apps=(AppShape("notes"),))))
    assert text in (ROOT / "docs/sizing.md").read_text()
