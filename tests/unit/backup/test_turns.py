# SPDX-License-Identifier: Apache-2.0
"""Turns: how many work at once, in which order, and that nobody waits for one that is gone."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slipway.backup.stopping import Stop
from slipway.backup.taking.turns import Turns


def nothing() -> None:
    """Nothing ends the waiting."""


@given(st.integers(1, 5), st.lists(st.integers(0, 30), max_size=30))
def test_as_many_as_there_is_room_for_are_first_in_the_order_of_lining_up(count: int, leaving: list[int]) -> None:
    turns = Turns(count, nothing)
    line = [turns.line_up() for _ in range(20)]
    gone: set[int] = set()
    for place in leaving:
        if place < len(line):
            line[place].leave()
            gone.add(place)
        left = [each for each in range(len(line)) if each not in gone]
        came = [each for each in left if turns.come(line[each], 0)]
        assert came == left[:count]


def test_one_that_waits_goes_on_when_another_leaves() -> None:
    turns = Turns(1, nothing)
    first, second = turns.line_up(), turns.line_up()
    seen: list[str] = []

    def work() -> None:
        with second.taken():
            second.wait()
            seen.append("second")

    thread = threading.Thread(target=work)
    thread.start()
    with first.taken():
        first.wait()
        seen.append("first")
    thread.join(10)
    assert seen == ["first", "second"]


def test_a_place_in_the_line_keeps_others_waiting_before_anybody_waits_in_it() -> None:
    turns = Turns(1, nothing)
    slow, quick = turns.line_up(), turns.line_up()
    assert not turns.come(quick, 0)
    assert turns.come(slow, 0)


def test_waiting_ends_with_the_run() -> None:
    stop = Stop()
    turns = Turns(1, stop.check)
    turns.line_up()
    stop.because(RuntimeError("over"))
    with pytest.raises(RuntimeError, match="over"):
        turns.line_up().wait()
