# SPDX-License-Identifier: Apache-2.0
"""``fab backups``, ``fab drills`` and their lines in ``fab status``: what is wrong is seen, and said with the way out."""

from __future__ import annotations

from typing import Any

import pytest

from console import backups, probe
from console.style import Style

NOW = 1_800_000_000.0
SEEN: dict[str, Any] = {
    "takes": True, "drills": True, "identity_here": True, "in_folder": True, "now": NOW,
    "backup": {"newest_timestamp_seconds": NOW - 3600, "interval_seconds": 43200.0, "rpo_target_seconds": 86400.0, "last_run_good": 1.0},
    "drill": {"newest_proof_timestamp_seconds": NOW - 86400, "interval_seconds": 604800.0, "verdict_proved": 1.0, "rto_seconds": 42.0},
}  # fmt: skip
PLAIN = Style(colour=False)


def rows(**changes: Any) -> dict[str, tuple[str, str]]:
    """Label to (text, level) for what was seen with some parts changed."""
    seen = {
        **SEEN,
        **{key: {**SEEN[key], **value} if isinstance(value, dict) else value for key, value in changes.items()},
    }
    return {row.label: (row.text, row.level) for row in backups.backup_rows(seen)}


def test_what_is_well_is_said_so() -> None:
    found = rows()
    assert found["backup"] == ("1 h old, in a folder of this host", "good")
    assert found["proof"] == ("proved 1 d ago, back in 42 s", "good")
    assert "with the key" in found["drills run"][0]


@pytest.mark.parametrize(
    ("changes", "label", "level"),
    [
        ({"backup": {"newest_timestamp_seconds": 0.0}}, "backup", "bad"),
        ({"backup": {"newest_timestamp_seconds": NOW - 60000}}, "backup", "bad"),
        ({"backup": {"last_run_good": 0.0}}, "backup", "warn"),
        ({"backup": {"unlisted_databases": 1.0}}, "backup", "warn"),
        ({"drill": {"verdict_proved": 0.0}}, "proof", "warn"),
        ({"drill": {"verdict_proved": 0.0, "verdict_failed": 1.0}}, "proof", "bad"),
        ({"drill": {"verdict_proved": 0.0, "verdict_inconclusive": 1.0}}, "proof", "warn"),
        ({"drill": {"newest_proof_timestamp_seconds": NOW - 15 * 86400}}, "proof", "bad"),
        ({"drill": {"targets_missed": 1.0}}, "proof", "warn"),
    ],
)
def test_what_is_wrong_is_seen(changes: dict[str, Any], label: str, level: str) -> None:
    assert rows(**changes)[label][1] == level


def test_where_the_key_is_not_is_said_too() -> None:
    assert "not on this host" in rows(identity_here=False)["drills run"][0]
    assert "neither" in rows(identity_here=False, drills=False)["drills run"][0]


def test_a_host_that_does_neither_has_no_lines() -> None:
    assert list(backups.backup_rows(None)) == []


def test_metrics_are_read_as_prometheus_would() -> None:
    text = '# HELP x y\nslipway_drill_rto_seconds 28.7\nslipway_drill_verdict{verdict="proved"} 0\nslipway_drill_verdict{verdict="failed"} 1\n'
    assert probe.metrics(text, "slipway_drill_") == {"rto_seconds": 28.7, "verdict_failed": 1.0}


def test_bars_begin_at_zero_so_that_a_drop_shows() -> None:
    assert backups.sparkline([100, 100, 10]) == "██▂"
    assert backups.sparkline([]) == ""
    assert backups.sparkline([0, 0]) == "▁▁"


BACKUP = {
    "id": "b1",
    "taken": "2026-01-31T02:15:00Z",
    "bytes": 12_300_000,
    "age_s": 3600,
    "proof": "proved",
    "held": "",
    "problem": "",
}


def test_backups_on_one_screen() -> None:
    seen = {
        "backups": {"source": "the manifests in /b", "notes": [], "backups": [BACKUP, {**BACKUP, "id": "b0", "problem": "no manifest"}]},
        "check": {"good": True, "problems": [], "warnings": ["smaller than before"], "age_s": 3600, "limit_s": 57600},
    }  # fmt: skip
    text, good = backups.render_backups("web1", seen, PLAIN)
    assert good
    assert "12.3 MB" in text
    assert "damaged" in text
    assert "! smaller than before" in text


def test_backups_that_are_too_old_are_not_good() -> None:
    seen = {
        "backups": {"source": "s", "backups": []},
        "check": {"good": False, "problems": ["There is no whole backup."]},
    }
    text, good = backups.render_backups("web1", seen, PLAIN)
    assert not good
    assert "✗ There is no whole backup." in text


RECOVERY = {"tier": "startup", "rto_ms": 4205, "rto_target_ms": 14_400_000, "rpo_now_ms": 1_001_778, "rpo_worst_ms": 43_200_420,
            "rpo_target_ms": 86_400_000, "misses": []}  # fmt: skip
DRILL = {"drill_id": "d", "started": "2026-01-31T04:30:00Z", "finished": "2026-01-31T04:31:00Z", "verdict": "proved",
         "started_by": "timer", "recovery": RECOVERY, "backup": "b1", "reasons": []}  # fmt: skip


def test_drills_on_one_screen() -> None:
    failed = {**DRILL, "verdict": "failed", "recovery": None, "reasons": ["counts: public.orders has 3 rows"]}
    text, good = backups.render_drills("web1", {"drills": [DRILL, DRILL, failed]}, PLAIN)
    assert good
    assert "back in 4.2 s (target 4 h)" in text
    assert "counts: public.orders" in text
    assert "██" in text


def test_a_last_drill_that_failed_is_not_good() -> None:
    assert not backups.render_drills("web1", {"drills": [{**DRILL, "verdict": "failed"}]}, PLAIN)[1]
    assert not backups.render_drills("web1", {"drills": []}, PLAIN)[1]


def test_a_server_cannot_paint_the_screen() -> None:
    text, _ = backups.render_drills("web1", {"drills": [{**DRILL, "started_by": "\x1b[2Jtimer"}]}, PLAIN)
    assert "\x1b" not in text
