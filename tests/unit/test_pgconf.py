# SPDX-License-Identifier: Apache-2.0
"""Whether a setting runs as it was written, in the units of pg_settings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slipway.postgres.conf import Running, differences, explain, same


def row(setting: str, unit: str = "", vartype: str = "integer", context: str = "user", source: str = "") -> Running:
    return Running(setting, unit, vartype, context, source=source)


@pytest.mark.parametrize(
    ("wished", "running"),
    [
        ("512MB", row("65536", "8kB")),
        ("1GB", row("131072", "8kB")),
        ("14MB", row("14336", "kB")),
        ("85MB", row("87040", "kB")),
        ("819MB", row("819", "MB")),
        ("15min", row("900", "s")),
        ("10min", row("600000", "ms")),
        ("30s", row("30", "s")),
        ("-1", row("-1", "ms")),
        ("0", row("0", "ms")),
        ("0.9", row("0.9", vartype="real")),
        ("1.1", row("1.1", vartype="real")),
        ("200", row("200")),
        ("off", row("off", vartype="bool")),
        ("False", row("off", vartype="bool")),
        ("try", row("try", vartype="enum")),
        ("on", row("on", vartype="enum")),
        ("TLSv1.2", row("TLSv1.2", vartype="enum")),
        ("%q%u@%d ", row("%q%u@%d ", vartype="string")),
    ],
)
def test_the_same_value_in_other_units_is_the_same(wished: str, running: Running) -> None:
    assert same(wished, running)


@pytest.mark.parametrize(
    ("wished", "running"),
    [
        ("512MB", row("65535", "8kB")),
        ("512", row("65536", "8kB")),  # a bare number counts in the setting's own unit
        ("14MB", row("14", "kB")),
        ("15min", row("15", "s")),
        ("15min", row("15", "kB")),
        ("on", row("off", vartype="bool")),
        ("maybe", row("on", vartype="bool")),
        ("lz4", row("pglz", vartype="enum")),
        ("-1", row("1", "ms")),
        ("a", row("A", vartype="string")),
    ],
)
def test_another_value_is_not_the_same(wished: str, running: Running) -> None:
    assert not same(wished, running)


@given(st.integers(min_value=1, max_value=2**20))
def test_any_whole_number_of_mb_is_found_again_in_pages(number: int) -> None:
    assert same(f"{number}MB", row(str(number * 128), "8kB"))
    assert not same(f"{number}MB", row(str(number * 128 + 1), "8kB"))
    assert same(row(str(number * 128), "8kB").shown, row(str(number * 128), "8kB"))


def test_differences_name_the_unknown_and_say_what_needs_a_restart() -> None:
    running = {
        "shared_buffers": row("16384", "8kB", context="postmaster"),
        "work_mem": row("4096", "kB"),
        "jit": row("off", vartype="bool"),
    }
    found = differences({"shared_buffers": "512MB", "work_mem": "8MB", "jit": "off", "no_such": "1"}, running)
    assert [(item.name, item.needs_restart) for item in found] == [
        ("no_such", False),
        ("shared_buffers", True),
        ("work_mem", False),
    ]


def test_the_message_tells_how_to_undo_alter_system() -> None:
    auto = "/var/lib/postgresql/17/main/postgresql.auto.conf"
    left = differences({"work_mem": "8MB"}, {"work_mem": row("4096", "kB", source=auto)})
    message = str(explain(left, "/etc/x.conf"))
    assert "work_mem is '4MB'" in message
    assert auto in message
    assert "ALTER SYSTEM RESET work_mem" in message
