# SPDX-License-Identifier: Apache-2.0
"""Retention: what may never go, by hypothesis, and what goes, by example."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slipway.backup.keeping.retention import Backup, Keeps, Plan, plan, render
from slipway.errors import InputError

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def taken(**ago: float) -> datetime:
    return NOW - timedelta(**ago)


def series(days: int, *, proved: tuple[int, ...] = (), start: int = 0) -> list[Backup]:
    """One backup a day, named by its age in days."""
    return [
        Backup(f"d{n}", taken(days=n, hours=1), proof="proved" if n in proved else "none")
        for n in range(start, start + days)
    ]


proofs = st.sampled_from(["none", "proved", "failed", "inconclusive"])
backup_lists = st.lists(
    st.builds(
        Backup,
        id=st.just(""),
        taken=st.integers(-3 * 24 * 60, 900 * 24 * 60).map(lambda minutes: taken(minutes=minutes)),
        complete=st.booleans() | st.just(True),
        proof=proofs,
        locked_until=st.none() | st.integers(-500, 500).map(lambda days: NOW + days * DAY),
        held=st.sampled_from(["", "", "", "before split_db"]),
    ),
    max_size=60,
).map(lambda found: [replace(b, id=f"b{n}") for n, b in enumerate(found)])
keeps_of = st.builds(
    Keeps,
    recent_hours=st.integers(0, 100),
    daily=st.integers(0, 40),
    weekly=st.integers(0, 10),
    monthly=st.integers(0, 14),
    yearly=st.integers(0, 3),
    minimum=st.integers(1, 10),
    failed_days=st.integers(0, 60),
    stalled_hours=st.integers(1, 2000),
)


def newest_proved(found: list[Backup]) -> Backup | None:
    sure = [b for b in found if b.complete and b.proof == "proved" and b.taken <= NOW]
    return max(sure, key=lambda b: (b.taken, b.id), default=None)


@given(backup_lists, keeps_of)
def test_nothing_goes_unless_something_newer_is_proved(found: list[Backup], keeps: Keeps) -> None:
    sure = newest_proved(found)
    for gone in plan(found, keeps, NOW).removed:
        assert sure is not None
        assert gone.taken < sure.taken
        assert gone != sure


@given(backup_lists, keeps_of)
def test_never_fewer_usable_ones_than_the_minimum(found: list[Backup], keeps: Keeps) -> None:
    kept = plan(found, keeps, NOW).kept
    usable = [b for b in found if b.usable and b.taken <= NOW]
    assert len([b for b in kept if b.usable and b.taken <= NOW]) >= min(keeps.minimum, len(usable))


@given(backup_lists, keeps_of)
def test_what_is_held_locked_or_from_the_future_stays(found: list[Backup], keeps: Keeps) -> None:
    for gone in plan(found, keeps, NOW).removed:
        assert not gone.held
        assert gone.locked_until is None or gone.locked_until <= NOW
        assert gone.taken <= NOW


@given(backup_lists, keeps_of)
def test_a_second_pruning_removes_nothing_more(found: list[Backup], keeps: Keeps) -> None:
    assert plan(plan(found, keeps, NOW).kept, keeps, NOW).removed == ()


@given(backup_lists, keeps_of, st.randoms())
def test_order_does_not_matter_and_every_backup_gets_one_decision_with_a_reason(
    found: list[Backup], keeps: Keeps, chance: object
) -> None:
    shuffled = list(found)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    one, two = plan(found, keeps, NOW), plan(shuffled, keeps, NOW)
    assert one == two
    assert sorted(d.backup.id for d in one.decisions) == sorted(b.id for b in found)
    assert all(d.reasons and all(d.reasons) for d in one.decisions)


@given(backup_lists, keeps_of)
def test_failed_runs_take_nobodys_place(found: list[Backup], keeps: Keeps) -> None:
    """What stays of the usable ones is the same with and without the failed ones in the list."""
    usable = [b for b in found if b.usable]
    with_failed = [b for b in plan(found, keeps, NOW).kept if b.usable]
    assert with_failed == list(plan(usable, keeps, NOW).kept)


@given(backup_lists, keeps_of, st.integers(0, 400))
def test_backups_that_stopped_are_not_pruned_by_the_passing_of_time(
    found: list[Backup], keeps: Keeps, days: int
) -> None:
    usable = [b.taken for b in found if b.usable and b.taken <= NOW + 5 * HOUR / 60]
    later = NOW + days * DAY
    result = plan([b for b in found if b.taken <= NOW], keeps, later)
    if usable and max(usable) < later - timedelta(hours=keeps.stalled_hours):
        assert result.removed == ()


@given(st.integers(1, 500), st.integers(0, 30))
def test_daily_pruning_over_time_keeps_thirty_days_and_a_year_of_months(days: int, drilled_every: int) -> None:
    """Run day after day, not once: what an earlier pruning removed must not be missed by a later one."""
    kept: list[Backup] = []
    start = datetime(2025, 1, 1, 3, tzinfo=UTC)
    for n in range(days):
        at = start + n * DAY
        kept.append(Backup(f"d{n:03}", at, proof="proved" if n % (drilled_every + 1) == 0 else "none"))
        kept = list(plan(kept, Keeps(), at + HOUR).kept)
    held = {b.id for b in kept}
    assert {f"d{n:03}" for n in range(max(0, days - 30), days)} <= held
    months = {(start + n * DAY).strftime("%Y-%m") for n in range(days)}
    assert {b.taken.strftime("%Y-%m") for b in kept} == set(sorted(months)[-12:])


def gone(result: Plan) -> set[str]:
    return {b.id for b in result.removed}


def test_the_default_keeps_thirty_days_then_weeks_and_months() -> None:
    result = plan(series(90, proved=(2,)), Keeps(), NOW)
    assert {f"d{n}" for n in range(30)}.isdisjoint(gone(result))
    assert "d45" in gone(result) or "d46" in gone(result)
    assert {b.taken.strftime("%Y-%m") for b in result.kept} == {"2025-12", "2026-01", "2026-02", "2026-03"}


def test_without_a_proved_one_nothing_goes_and_the_plan_says_why() -> None:
    result = plan(series(90), Keeps(), NOW)
    assert result.removed == ()
    assert result.paused.startswith("no backup is proved")
    assert result.paused in render(result)


def test_stopped_for_weeks_prunes_nothing() -> None:
    result = plan(series(90, proved=(21,), start=20), Keeps(daily=3, weekly=0, monthly=0), NOW)
    assert result.removed == ()
    assert "backups have stopped" in result.paused


def test_only_what_is_older_than_the_newest_proved_one_goes() -> None:
    result = plan(series(20, proved=(10,)), Keeps(recent_hours=1, daily=1, weekly=0, monthly=0, minimum=1), NOW)
    assert gone(result) == {f"d{n}" for n in range(11, 20)}


def test_a_backup_that_failed_its_latest_drill_does_not_shield_its_day() -> None:
    good = Backup("good", taken(days=40, hours=2), proof="proved")
    bad = Backup("bad", taken(days=40, hours=1), proof="failed")
    fresh = Backup("fresh", taken(hours=1), proof="proved")
    result = plan([good, bad, fresh], Keeps(minimum=1), NOW)
    assert gone(result) == {"bad"}


def test_an_unfinished_run_is_kept_for_a_look_and_then_goes() -> None:
    fresh = Backup("fresh", taken(hours=1), proof="proved")
    young, old = (Backup(f"u{n}", taken(days=n), complete=False) for n in (3, 31))
    assert gone(plan([fresh, young, old], Keeps(), NOW)) == {"u31"}


def test_a_proved_one_from_the_future_proves_nothing_for_the_others() -> None:
    """A host whose clock ran ahead must not let its one odd backup end all the honest ones."""
    ahead = Backup("ahead", NOW + 2 * DAY, proof="proved")
    result = plan([ahead, *series(60)], Keeps(daily=1, weekly=0, monthly=0, minimum=1), NOW)
    assert result.removed == ()


def test_an_hour_of_skew_changes_nothing_for_the_rest() -> None:
    ahead = Backup("ahead", NOW + HOUR)
    rest = series(60, proved=(1,))
    assert gone(plan([ahead, *rest], Keeps(), NOW)) == gone(plan(rest, Keeps(), NOW))


def test_the_longer_periods_prefer_a_proved_one() -> None:
    week = [
        Backup(f"w{n}", datetime(2025, 6, 2 + n, tzinfo=UTC), proof="proved" if n == 2 else "none") for n in range(7)
    ]
    fresh = Backup("fresh", taken(hours=1), proof="proved")
    result = plan([*week, fresh], Keeps(daily=1, weekly=2, monthly=0, minimum=1), NOW)
    assert {b.id for b in result.kept} == {"w2", "fresh"}


def test_days_are_those_of_utc_whatever_zone_a_time_is_written_in() -> None:
    zone = timezone(timedelta(hours=13))
    here = [replace(b, taken=b.taken.astimezone(zone)) for b in series(90, proved=(1,))]
    assert gone(plan(here, Keeps(), NOW)) == gone(plan(series(90, proved=(1,)), Keeps(), NOW))


def test_the_view_has_one_line_a_backup_with_its_reason() -> None:
    text = render(plan(series(40, proved=(1,)), Keeps(weekly=0, monthly=0), NOW))
    assert "keep   d1  2026-03-14 11:00Z [proved]  newest proved; one of the newest 7" in text
    assert "remove d31 2026-02-12 11:00Z  no keep asks for it; newer and proved: d1" in text
    assert text.endswith("30 kept, 10 to remove")


def test_the_plain_data_names_ids_and_reasons() -> None:
    data = plan(series(2, proved=(0,)), Keeps(), NOW).to_dict()
    assert [row["id"] for row in data["keep"]] == ["d0", "d1"]
    assert data["remove"] == []


@pytest.mark.parametrize("bad", [{"daily": -1}, {"minimum": 0}, {"weekly": True}, {"stalled_hours": 0}])
def test_keeps_that_make_no_sense_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(InputError, match=next(iter(bad))):
        Keeps(**bad)


def test_a_time_without_a_zone_and_an_id_twice_are_refused() -> None:
    with pytest.raises(InputError, match="no timezone"):
        plan([Backup("a", datetime(2026, 1, 1))], Keeps(), NOW)
    with pytest.raises(InputError, match="listed twice"):
        plan([Backup("a", NOW), Backup("a", NOW)], Keeps(), NOW)
