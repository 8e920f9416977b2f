# SPDX-License-Identifier: Apache-2.0
"""What all climbs share: the plan as a page, prices with their date, the proof, and the record that outlives a crash."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from slipway import journal
from slipway.climb import operator, prices, proof
from slipway.climb.plan import PHASES, Plan, Row, Step, render
from slipway.climb.record import Record, RecordError, Records, line, status
from slipway.errors import InputError, UnknownNameError

from console import judge

ROOT = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
PLAN = Plan(
    "resize", "web1", "Resize to 4096 MB", (Row("postgres shared_buffers", "512MB", "1024MB", "PostgreSQL restarts"), Row("jit", "off", "off")),
    (Step("cut_over", "PostgreSQL restarts", "a second or two"),), "requests wait", "6 USD", "the same playbook", "backup x",
)  # fmt: skip


# -- the plan -----------------------------------------------------------------------------------------------------


def test_the_page_shows_what_changes_what_it_costs_and_the_way_back() -> None:
    text = render(PLAN)
    assert "  > postgres shared_buffers  512MB  1024MB  PostgreSQL restarts" in text
    assert "    jit                        off     off" in text
    for name in (
        "Impact:     requests wait",
        "Proof:      backup x",
        "Price:      6 USD",
        "Back:       the same playbook",
    ):
        assert name in text
    assert "cut_over  PostgreSQL restarts (a second or two)" in text
    assert "nothing was changed" not in text
    assert render(PLAN, only_looks=True).endswith("nothing was changed.")


def test_a_plan_without_steps_says_that_nothing_is_to_do() -> None:
    idle = Plan("resize", "web1", "Resize", (), (), "", "", "")
    assert not idle.due
    assert "Nothing to do" in render(idle)


def test_a_run_that_was_cut_off_is_due_even_where_nothing_differs() -> None:
    cut = Plan("resize", "web1", "Resize", (), (), "", "", "", interrupted="cut_over")
    assert cut.due
    assert "stopped in the phase cut_over" in render(cut)


def test_a_plan_goes_through_json_and_comes_back() -> None:
    assert Plan.from_dict(json.loads(json.dumps(PLAN.to_dict()))) == PLAN


@pytest.mark.parametrize("raw", [{}, {"rows": [{"no": 1}]}, {"steps": 3}])
def test_what_is_no_plan_is_refused(raw: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Plan.from_dict(raw)


def test_a_step_of_no_phase_is_refused() -> None:
    with pytest.raises(InputError):
        Step("cutover", "x")


# -- prices -------------------------------------------------------------------------------------------------------


def price_file() -> Mapping[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "playbooks/vars/prices.yml").read_text())["site_prices"]
    return found


def test_the_price_file_is_whole_and_has_the_climbs_that_there_are() -> None:
    known = prices.parse(price_file())
    assert {path.stem for path in (ROOT / "playbooks/grow").glob("*.yml")} <= known.rungs.keys()
    assert known.sources


def test_figures_say_their_source_and_date_and_when_they_are_too_old() -> None:
    known = prices.parse(price_file())
    last_day = known.dated + timedelta(days=known.good_for_days)
    fresh, old = (prices.line(known, "resize", day) for day in (last_day, last_day + timedelta(days=3)))
    assert str(known.dated) in fresh
    assert "Hetzner" in fresh
    assert "older than they should be" not in fresh
    assert "3 days older than they should be" in old


def test_the_users_own_price_wins_and_a_misspelled_rung_is_refused() -> None:
    known = prices.parse(price_file())
    assert prices.line(known, "resize", date(2030, 1, 1), {"resize": "7.50 EUR"}).startswith("7.50 EUR")
    with pytest.raises(UnknownNameError, match="resize"):
        prices.line(known, "resize", date(2030, 1, 1), {"resise": "7.50 EUR"})


@pytest.mark.parametrize(
    "change",
    [{"dated": "soon"}, {"rungs": {"resize": {"least": 9, "most": 3, "what": "x"}}}, {"rungs": {"resize": 3}}, {"sources": []}, {"x": 1}],
)  # fmt: skip
def test_a_broken_price_file_is_one_message(change: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        prices.parse({**price_file(), **change})


# -- proof --------------------------------------------------------------------------------------------------------


def backup(name: str, age_s: int, **more: Any) -> dict[str, Any]:
    return {"id": name, "age_s": age_s, "proof": "unknown", "problem": "", **more}


def drill(verdict: str, *tried: str, kind: str = "dump") -> dict[str, Any]:
    return {"verdict": verdict, "kind": kind, "tried": [{"backup_id": name} for name in tried]}


def test_the_youngest_proved_backup_stands_for_the_climb() -> None:
    found = proof.judge(
        [backup("a", 100), backup("b", 50), backup("c", 200)], [drill("proved", "a"), drill("proved", "c")], 3600
    )
    assert (found.backup, found.age_s, found.stands) == ("a", 100, True)


@pytest.mark.parametrize(
    ("backups", "drills", "why"),
    [
        ([], [], "no whole backup"),
        ([backup("a", 1, problem="cut off")], [drill("proved", "a")], "no whole backup"),
        ([backup("a", 1)], [], "no backup has passed a drill"),
        ([backup("a", 1)], [drill("inconclusive", "a")], "no backup has passed a drill"),
        ([backup("a", 1)], [drill("proved", "a"), drill("failed", "a")], "no backup has passed a drill"),
        ([backup("a", 1, proof="proved")], [drill("proved", "a", "b")], "no backup has passed a drill"),
        ([backup("a", 1)], [drill("proved", "a", kind="pitr")], "no backup has passed a drill"),
        ([backup("a", 7200)], [drill("proved", "a")], "allowed are 1 h"),
    ],
)
def test_what_is_not_young_whole_and_proved_does_not_stand(backups: list[Any], drills: list[Any], why: str) -> None:
    found = proof.judge(backups, drills, 3600)
    assert not found.stands
    assert why in found.why


def test_a_proof_in_the_store_counts_where_no_drill_is_on_this_host() -> None:
    assert proof.judge([backup("a", 1, proof="proved")], [], 3600).stands


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 10_000), st.booleans()), max_size=6),
    st.lists(st.tuples(st.sampled_from(["proved", "failed", "inconclusive"]), st.integers(0, 9)), max_size=8),
    st.integers(1, 10_000),
)
def test_what_stands_is_always_whole_young_and_proved_by_somebody(
    rows: list[tuple[int, int, bool]], drilled: list[tuple[str, int]], limit: int
) -> None:
    listed = [backup(str(name), age, problem="x" if bad else "") for name, age, bad in rows]
    found = proof.judge(listed, [drill(verdict, str(name)) for verdict, name in drilled], limit)
    if found.stands:
        assert found.age_s <= limit
        assert ("proved", int(found.backup)) in drilled
        assert ("failed", int(found.backup)) not in drilled
        assert any(row["id"] == found.backup and not row["problem"] for row in listed)


def test_the_limit_is_the_tiers_or_the_users_and_never_below_an_hour() -> None:
    assert proof.limit_s("startup") == 24 * 3600
    assert proof.limit_s("enterprise") == proof.LEAST_S == 3600
    assert proof.limit_s("startup", {"rpo_s": 7200}) == 7200
    with pytest.raises(InputError):
        proof.limit_s("start-up")


# -- the record ---------------------------------------------------------------------------------------------------


def records(folder: Path) -> Records:
    return Records(folder / "climbs", folder / "journal.jsonl")


def test_a_climb_is_written_phase_by_phase_and_ends_in_the_journal(tmp_path: Path) -> None:
    kept = records(tmp_path)
    kept.enter("resize", "prove", who="ops", now=NOW, host="web1", plan=PLAN.to_dict())
    kept.enter("resize", "cut_over", who="ops", now=NOW + timedelta(seconds=5))
    done = kept.end("resize", who="ops", now=NOW + timedelta(seconds=9), facts={"held_seconds": 1.2})
    assert [(one.name, one.started[-3:], one.ended[-3:]) for one in done.phases] == [
        ("prove", "00Z", "05Z"),
        ("cut_over", "05Z", "09Z"),
    ]
    assert kept.open_one("resize") is None
    assert kept.all() == [done]
    (line,) = journal.tail(kept.log)
    assert (line["what"], line["climb"], line["result"], line["who"]) == ("climb", "resize", "done", "ops")


def test_a_run_after_a_crash_finds_the_record_and_goes_on_in_it(tmp_path: Path) -> None:
    records(tmp_path).enter("resize", "prove", who="ops", now=NOW, plan={})
    records(tmp_path).enter("resize", "cut_over", who="ops", now=NOW)
    found = records(tmp_path).open_one("resize")
    assert found is not None
    assert (found.phase, PHASES[found.reached]) == ("cut_over", "cut_over")
    again = records(tmp_path).enter("resize", "prove", who="eve", now=NOW + timedelta(hours=1), plan={"other": 1})
    assert again.id == found.id
    assert again.plan == {}
    assert PHASES[again.reached] == "cut_over"
    assert len(records(tmp_path).all()) == 1


def test_a_climb_does_not_begin_before_another_one_has_ended(tmp_path: Path) -> None:
    kept = records(tmp_path)
    kept.enter("resize", "prove", who="ops", now=NOW, plan={})
    assert kept.open_one("add_redis") is None
    assert kept.others("add_redis") == ["resize"]
    with pytest.raises(RecordError, match=r"run playbooks/grow/resize\.yml to its end"):
        kept.enter("add_redis", "prove", who="ops", now=NOW + timedelta(seconds=1), plan={})
    kept.end("resize", who="ops", now=NOW + timedelta(seconds=2))
    kept.enter("add_redis", "prove", who="ops", now=NOW + timedelta(seconds=3), plan={})
    told = status(kept)
    assert told["open"]["climb"] == "add_redis"
    assert [one["climb"] for one in told["done"]] == ["resize"]


def test_a_climb_stays_in_the_hands_of_one_run_until_another_takes_it_knowingly(tmp_path: Path) -> None:
    kept = records(tmp_path)
    ada, eve = "laptop/0a1b2c3d/41/b.1", "ci/99887766/42/b.2"
    kept.enter("resize", "prove", who="ada", now=NOW, plan={}, run=ada)
    kept.enter("resize", "prepare", who="ada", now=NOW, run=ada)
    with pytest.raises(RecordError, match=r"ada runs it from laptop \(phase prepare"):
        kept.enter("resize", "prove", who="eve", now=NOW, plan={}, run=eve)
    taken = kept.enter("resize", "prove", who="eve", now=NOW, plan={}, run=eve, after=ada)
    assert (taken.run, len(kept.all())) == (eve, 1)
    with pytest.raises(RecordError, match="eve runs it from ci"):
        kept.enter("resize", "cut_over", who="ada", now=NOW, run=ada)


def test_two_that_begin_in_the_same_instant_are_told_apart(tmp_path: Path) -> None:
    def begin(run: str) -> str:
        try:
            return records(tmp_path).enter("resize", "prove", who=run, now=NOW, plan={}, run=run).run
        except RecordError:
            return ""

    with ThreadPoolExecutor(8) as pool:
        won = [run for run in pool.map(begin, [f"m/0/{number}/b" for number in range(8)]) if run]
    assert len(won) == 1
    assert [record.run for record in records(tmp_path).all()] == won


def test_a_run_is_alive_as_long_as_its_process_and_no_other_one_of_its_number() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        found = operator.this(process.pid)
        assert operator.Operator.parse(str(found)) == found
        assert operator.alive(str(found)) is True
        assert operator.alive(str(replace(found, began="another"))) is False
        assert operator.alive(str(replace(found, machine="00000000"))) is None, "that machine cannot be asked"
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert operator.alive(str(found)) is False, "a zombie does nothing any more"
    assert operator.alive(str(found)) is False
    assert operator.alive("") is False, "a record from before runs were noted"


def test_the_status_has_a_line_for_what_was_cut_off_and_for_what_was_done_last(tmp_path: Path) -> None:
    kept = records(tmp_path)
    assert line(status(kept)) == ""
    kept.enter("resize", "cut_over", who="ops", now=NOW, plan={})
    assert "resize stopped in the phase cut_over" in line(status(kept))
    kept.end("resize", who="ops", now=NOW)
    assert line(status(kept)) == "climb: the last was resize, done 2026-01-31T12:00:00Z"


def test_no_phase_begins_and_no_climb_ends_that_was_not_opened(tmp_path: Path) -> None:
    kept = records(tmp_path)
    with pytest.raises(RecordError):
        kept.enter("resize", "cut_over", who="ops", now=NOW)
    with pytest.raises(RecordError):
        kept.end("resize", who="ops", now=NOW)
    with pytest.raises(InputError):
        kept.enter("resize", "cutover", who="ops", now=NOW, plan={})
    assert kept.all() == []


@pytest.mark.parametrize("text", ["", "[]", '{"id": "x"}', '{"format": 2, "phases": []}'])
def test_a_record_that_cannot_be_read_is_one_message_with_its_path(tmp_path: Path, text: str) -> None:
    kept = records(tmp_path)
    kept.folder.mkdir()
    (kept.folder / "20260131T120000Z-resize.json").write_text(text)
    with pytest.raises(RecordError, match="Z-resize"):
        kept.all()


@given(st.lists(st.sampled_from(PHASES), min_size=1, max_size=12))
def test_however_often_it_is_cut_off_there_is_one_record_and_it_knows_how_far_it_came(phases: list[str]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        for place, name in enumerate(phases):
            found: Record = records(Path(folder)).enter(
                "resize", name, who="ops", now=NOW + timedelta(seconds=place), plan={}
            )
        assert len(records(Path(folder)).all()) == 1
        assert found.reached == max(PHASES.index(name) for name in phases)
        assert [one.name for one in found.phases if not one.ended] == [phases[-1]]


# -- fab status ---------------------------------------------------------------------------------------------------


def test_a_climb_that_was_cut_off_is_a_warning_with_the_way_on() -> None:
    seen = {"climb": "resize", "phase": "cut_over", "started": "2026-01-31T12:00:00Z", "ended": "", "result": ""}
    (row,) = [row for row in judge.rows_of({"climb": seen}, []) if "climb" in row.label]
    assert (row.level, "in the phase cut_over" in row.text) == ("warn", True)
    assert "playbooks/grow/resize.yml" in row.hint
    done = {**seen, "ended": "2026-01-31T12:01:00Z", "result": "done"}
    (row,) = [row for row in judge.rows_of({"climb": done}, []) if "climb" in row.label]
    assert (row.label, row.level, row.hint) == ("last climb", "quiet", "")
