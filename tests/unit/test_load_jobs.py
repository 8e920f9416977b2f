# SPDX-License-Identifier: Apache-2.0
"""The ledger of background jobs finds what was lost, done twice and cut off, and the client fails where the server does."""

from __future__ import annotations

from collections.abc import Callable

from tests.load import Target
from tests.load.jobs import Enqueuer, Ledger, outcome
from tests.unit.waiting import until


def database(rows: list[str], begun: int) -> Callable[[str], str]:
    """Answers as ``psql -At`` would."""
    return lambda query: str(begun) if "begun" in query else "\n".join(rows)


def test_what_was_done_once_is_well() -> None:
    found = outcome(Ledger(["a", "b"]), database(["a|1|R1", "b|1|R2", "other|1|R1"], 3), 0)
    assert (found.lost, found.repeated, found.cut_off) == ([], [], 0)
    assert found.by_release == {"R1": 1, "R2": 1}


def test_a_job_that_is_missing_or_not_done_is_lost() -> None:
    assert outcome(Ledger(["a", "b", "c"]), database(["a|1|R1", "b|0|"], 1), 0).lost == ["b", "c"]


def test_a_job_done_twice_is_repeated() -> None:
    assert outcome(Ledger(["a"]), database(["a|2|R1"], 2), 0).repeated == ["a"]


def test_a_beginning_that_came_to_nothing_was_cut_off() -> None:
    assert outcome(Ledger(["a"]), database(["a|1|R1"], 2), 0).cut_off == 1


def test_a_server_that_does_not_answer_is_a_failure_and_not_retried() -> None:
    with Enqueuer(Target("https://notes.example.com:9", "127.0.0.1"), rate=1000) as jobs:
        until(lambda: jobs.ledger.failed, "a failure")
    assert jobs.ledger.acknowledged == []
    assert "ConnectionRefusedError" in jobs.ledger.failed[0]
