# SPDX-License-Identifier: Apache-2.0
"""Verdicts: proved only when everything required ran and passed; RTO and RPO against the tiers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slipway.backup import compare as c
from slipway.backup.codec import FormatError
from slipway.backup.compare import Difference
from slipway.backup.verdict import (
    REQUIRED,
    Check,
    Steps,
    clock_check,
    from_comparison,
    judge,
    recovery,
    span,
)
from slipway.errors import InputError

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)
ALL = [Check(name, "passed") for name in REQUIRED]
statuses = st.sampled_from(["passed", "failed", "skipped", "not applicable"])
names = st.sampled_from([*REQUIRED, "assertions", "something new"])
any_checks = st.lists(st.builds(Check, names, statuses, actual=st.just("because")), max_size=20)


@given(any_checks, st.booleans())
def test_proved_means_that_every_required_check_ran_and_that_nothing_failed_or_was_left_out(
    checks: list[Check], with_all: bool
) -> None:
    checks = checks + (ALL if with_all else [])
    result = judge(checks)
    passed = {each.name for each in checks if each.status == "passed"}
    clean = all(e.status == "passed" or (e.status == "not applicable" and e.name not in REQUIRED) for e in checks)
    assert (result.verdict == "proved") == (set(REQUIRED) <= passed and clean)
    assert (result.verdict == "failed") == any(each.status == "failed" for each in checks)
    assert bool(result.reasons) == (result.verdict != "proved")


@given(any_checks, st.randoms())
def test_the_order_of_checks_does_not_matter(checks: list[Check], chance: object) -> None:
    shuffled = list(checks)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert judge(shuffled).verdict == judge(checks).verdict


@pytest.mark.parametrize("name", REQUIRED)
def test_each_required_check_that_is_forgotten_or_could_not_run_makes_it_inconclusive(name: str) -> None:
    others = [each for each in ALL if each.name != name]
    assert judge(others).verdict == "inconclusive"
    assert judge(others).reasons == (f"{name} was not run",)
    skipped = judge([*others, Check(name, "skipped", actual="no pg_amcheck here")])
    assert (skipped.verdict, skipped.reasons) == ("inconclusive", (f"{name} could not run: no pg_amcheck here",))
    assert judge([*others, Check(name, "not applicable")]).verdict == "inconclusive"


def test_nothing_checked_proves_nothing() -> None:
    assert judge([]).verdict == "inconclusive"
    assert judge([], required=()).verdict == "inconclusive"


def test_one_failure_among_the_databases_counts() -> None:
    result = judge([*ALL, Check("counts", "failed", actual="notes: 9 rows, expected 10")])
    assert (result.verdict, result.reasons) == ("failed", ("counts: notes: 9 rows, expected 10",))


def test_a_check_without_a_known_status_or_a_reason_is_refused() -> None:
    with pytest.raises(FormatError, match="status 'ok'"):
        Check("counts", "ok")
    with pytest.raises(FormatError, match="without a reason"):
        Check("counts", "skipped")


@pytest.mark.parametrize(
    ("kind", "check"),
    [(c.ROWS, "counts"), (c.CONTENT, "content"), (c.LARGE_OBJECTS, "content"), (c.SEQUENCE, "sequences"),
     (c.SENTINEL, "sentinel"), (c.ROLE, "globals"), (c.TABLESPACE, "globals"), (c.DATABASE, "catalog"),
     (c.TABLE, "catalog"), (c.SCHEMA, "catalog"), (c.EXTENSION, "catalog"), (c.ACCESS, "catalog"),
     (c.SETTING, "catalog"), (c.COLLATION, "catalog")],
)  # fmt: skip
def test_each_kind_of_difference_fails_its_check_and_no_other(kind: str, check: str) -> None:
    checks = from_comparison([Difference(kind, "notes", "x", "1", "2")], sentinel_stamped=True)
    assert [each.name for each in checks if each.status == "failed"] == [check]
    assert [each.status for each in checks].count("passed") == 5


def test_every_kind_of_difference_has_a_check() -> None:
    for kind in c.KINDS:
        checks = from_comparison([Difference(kind, "", "x", "1", "2")], sentinel_stamped=True)
        assert [each for each in checks if each.status != "passed"], kind


def test_what_could_not_be_compared_is_skipped_and_a_real_difference_wins_over_it() -> None:
    odd, real = Difference(c.INCOMPARABLE, "n", "t", "v1", "v2"), Difference(c.CONTENT, "n", "t", "1", "2")
    status = {e.name: e.status for e in from_comparison([odd], sentinel_stamped=True)}
    assert status["content"] == "skipped"
    status = {e.name: e.status for e in from_comparison([odd, real], sentinel_stamped=False)}
    assert (status["content"], status["sentinel"]) == ("failed", "skipped")


def test_many_differences_are_counted_and_not_all_listed() -> None:
    many = [Difference(c.ROWS, "n", f"t{n}", "1", "2") for n in range(300)]
    (counts,) = [e for e in from_comparison(many, sentinel_stamped=True) if e.name == "counts"]
    assert counts.actual.endswith("and 290 more")


def test_a_snapshot_from_the_future_leaves_the_clock_check_open() -> None:
    assert clock_check(NOW, NOW).status == "passed"
    assert clock_check(NOW + timedelta(minutes=4), NOW).status == "passed"
    ahead = clock_check(NOW + timedelta(hours=1), NOW)
    assert ahead.status == "skipped"
    assert "3600 s in the future" in ahead.actual


STEPS = Steps(60_000, 5_000, 120_000, 30_000)
HOUR = timedelta(hours=1)


def measured(
    tier: str = "startup", interval: timedelta = 12 * HOUR, age: timedelta = 2 * HOUR
) -> tuple[int, int, int, int]:
    taken = NOW - age
    found = recovery(tier, STEPS, drilled=NOW, taken=taken, finished=taken + timedelta(minutes=10), interval=interval)
    return found.rto_ms, found.rpo_now_ms, found.rpo_worst_ms, len(found.misses)


def test_rto_is_the_sum_of_the_steps_and_rpo_the_interval_and_the_duration_at_worst() -> None:
    assert measured() == (215_000, 7_200_000, (12 * 60 + 10) * 60_000, 0)


def test_a_daily_dump_misses_24_hours_by_its_own_duration() -> None:
    assert measured(interval=24 * HOUR)[3] == 1


def test_the_age_of_an_older_backup_that_had_to_be_taken_is_the_effective_rpo() -> None:
    assert measured(age=50 * HOUR)[1:] == (50 * 3_600_000, 50 * 3_600_000, 1)


def test_no_dump_reaches_an_rpo_of_zero() -> None:
    found = recovery("enterprise", STEPS, drilled=NOW, taken=NOW, finished=NOW, interval=timedelta(minutes=1))
    assert found.misses == ("RPO 1 min 00 s at worst (now 0), target 0: dumps alone cannot reach it",)


def test_slow_restores_miss_their_target() -> None:
    slow = Steps(0, 0, 3_600_001, 0)
    found = recovery("growth", slow, drilled=NOW, taken=NOW, finished=NOW, interval=timedelta(minutes=30))
    assert found.misses == ("RTO 1 h, target 1 h: restore takes too long",)


def test_unknown_tiers_and_impossible_times_are_refused() -> None:
    with pytest.raises(InputError, match="one of: startup, growth, enterprise"):
        measured("gold")
    with pytest.raises(InputError, match="ended before it began"):
        recovery("growth", STEPS, drilled=NOW, taken=NOW, finished=NOW - HOUR, interval=HOUR)
    with pytest.raises(InputError):
        measured(interval=timedelta(0))


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "0"),
        (1400, "1.4 s"),
        (59_999, "60.0 s"),
        (60_000, "1 min 00 s"),
        (3_600_000, "1 h"),
        (3_900_000, "1 h 05 min"),
    ],
)
def test_spans_read_well(milliseconds: int, text: str) -> None:
    assert span(milliseconds) == text
