"""How many sessions an express lane keeps open, and why."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.upstream.warm import AHEAD, HALVED_AFTER_S, ON_DEMAND_FOR_S, HighWater, WarmTarget

MANY = 1_000


def test_at_first_one_is_needed_and_one_is_ahead() -> None:
    warm = WarmTarget("auto", 10).now(0.0, MANY)
    assert warm.sessions == 1 + AHEAD
    assert warm.reason == "auto: recent bursts needed 1 at once, and 1 is ahead"


def test_a_number_holds_whatever_bursts_need() -> None:
    target = WarmTarget(2, 10)
    target.note(0.0, 8)
    assert target.now(1.0, MANY) == (2, "configured")


def test_a_burst_asks_for_as_many_as_it_needed_and_one_more() -> None:
    target = WarmTarget("auto", 10)
    assert target.note(0.0, 4)
    assert target.now(1.0, MANY).sessions == 4 + AHEAD
    assert not target.note(2.0, 4), "no more than before"
    assert target.note(3.0, 5)


def test_a_burst_is_forgotten_by_halves() -> None:
    target = WarmTarget("auto", 20)
    target.note(0.0, 8)
    levels = [target.now(halves * HALVED_AFTER_S + 1.0, MANY).sessions for halves in range(6)]
    assert levels == [8 + AHEAD, 4 + AHEAD, 2 + AHEAD, 1 + AHEAD, 1 + AHEAD, 1 + AHEAD]


@pytest.mark.parametrize(
    ("most", "allowed", "sessions", "why"),
    [(5, MANY, 5, "sessions.max is 5"), (10, 3, 3, "the upstream allows 3"), (1, MANY, 1, "sessions.max is 1")],
)
def test_the_limits_of_both_sides_hold_and_are_named(most: int, allowed: int, sessions: int, why: str) -> None:
    target = WarmTarget("auto", most)
    target.note(0.0, 9)
    warm = target.now(0.0, allowed)
    assert warm.sessions == sessions
    assert warm.reason.endswith(f"; {why}")


@given(bursts=st.lists(st.tuples(st.floats(0, 3_000), st.integers(1, 50)), max_size=40), most=st.integers(1, 20))
def test_it_stays_within_its_bounds_and_fades(bursts: list[tuple[float, int]], most: int) -> None:
    target, now, peak = WarmTarget("auto", most), 0.0, 1
    for later, messages in bursts:
        now += later
        before = target.now(now, MANY).sessions
        asks = target.note(now, messages)
        after, peak = target.now(now, MANY).sessions, max(peak, min(messages, most))
        assert 1 <= before <= after <= min(most, peak + AHEAD), "a burst never asks for less"
        assert after >= min(most, messages + AHEAD), "what was just needed is kept"
        if asks:
            assert after > before or after == most
        assert 1 <= target.reserved(after) <= max(after, 1)
    assert target.now(now + 20 * HALVED_AFTER_S, MANY).sessions == min(most, 1 + AHEAD)


@given(notes=st.lists(st.tuples(st.floats(0, 3_000), st.integers(1, 50)), max_size=40))
def test_the_high_water_mark_only_falls_between_bursts(notes: list[tuple[float, int]]) -> None:
    mark, now = HighWater(), 0.0
    for later, messages in notes:
        assert mark.level(now + later) <= mark.level(now)
        now += later
        level = mark.level(now)
        assert mark.note(now, messages) == (messages > math.ceil(level))
        assert mark.level(now) == max(level, messages)


def test_bulk_keeps_half_of_the_sessions_unless_a_number_says_otherwise() -> None:
    auto = WarmTarget("auto", 10)
    assert [auto.reserved(warm) for warm in (0, 1, 3, 5, 9)] == [1, 1, 3, 5, 5]
    assert [WarmTarget("auto", 1).reserved(warm) for warm in (0, 1)] == [1, 1]
    assert WarmTarget(8, 10).reserved(2) == 8


def test_one_close_at_once_is_no_habit_and_two_are() -> None:
    target = WarmTarget("auto", 10)
    assert not target.closed_at_once(100.0, 99.5, 0.2)
    assert target.now(100.0, MANY).sessions == 2
    assert target.closed_at_once(101.0, 100.5, 0.2)
    warm = target.now(101.0, MANY)
    assert warm == (0, "on demand: the upstream closed idle sessions after 200 ms")
    assert target.now(101.0 + ON_DEMAND_FOR_S, MANY).sessions == 2, "it is tried again"


def test_sessions_that_are_closed_together_are_one_sign() -> None:
    target = WarmTarget(4, 10)
    for _ in range(4):
        assert not target.closed_at_once(100.0, 99.5, 0.2)
    assert target.now(100.0, MANY).sessions == 4


def test_a_session_that_stays_open_takes_the_sign_back() -> None:
    target = WarmTarget(1, 10)
    target.closed_at_once(100.0, 99.5, 0.2)
    target.stayed_open()
    assert not target.closed_at_once(102.0, 101.5, 0.2)
    assert target.closed_at_once(103.0, 102.5, 0.2)
