"""How many messages a session may have under way, and for how long an upstream that can't take that gets one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.upstream.depth import ONE_AT_A_TIME_FOR_S, Depth


def test_the_configured_depth_holds_until_the_upstream_is_upset() -> None:
    depth = Depth(4)
    assert depth.now(0.0) == depth.now(1e9) == 4


@pytest.mark.parametrize("upsets", range(6))
def test_each_upset_costs_more_time_than_the_one_before(upsets: int) -> None:
    depth, now = Depth(4), 1_000.0
    for nth in range(upsets + 1):
        assert depth.now(now) == 4
        assert depth.upset(now)
        lasts_s = ONE_AT_A_TIME_FOR_S[min(nth, len(ONE_AT_A_TIME_FOR_S) - 1)]
        assert depth.now(now) == depth.now(now + lasts_s - 1) == 1
        now += lasts_s


def test_what_is_known_is_not_learnt_again() -> None:
    depth = Depth(4)
    assert depth.upset(100.0)
    assert not depth.upset(100.0)
    assert not depth.upset(100.0 + ONE_AT_A_TIME_FOR_S[0] - 1)
    assert depth.now(100.0 + ONE_AT_A_TIME_FOR_S[0]) == 4, "messages that were under way together count once"


@given(most=st.integers(1, 16), steps=st.lists(st.tuples(st.floats(0, 100_000), st.booleans()), max_size=60))
def test_it_is_one_or_what_is_configured(most: int, steps: list[tuple[float, bool]]) -> None:
    depth, now, learnt = Depth(most), 0.0, 0
    for later, upset in steps:
        now += later
        known = depth.now(now) == 1 and learnt > 0
        if upset and depth.upset(now):
            learnt += 1
            assert not known or most == 1
        assert depth.now(now) in (1, most)
        assert depth.now(now + ONE_AT_A_TIME_FOR_S[-1]) == most
