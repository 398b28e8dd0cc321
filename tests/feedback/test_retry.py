"""When a post is tried again, and when it is given up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.feedback.retry import GONE_S, JITTER, KEEP_TRYING_S, LADDER_S, Answer, next_attempt

FAILED = Answer("500", 500)
MADE_AT = 1_000_000.0


@pytest.mark.parametrize(
    ("attempts", "wait_s"), [(0, 1), (1, 5), (2, 30), (3, 300), (4, 1800), (7, 36_000), (9, 36_000)]
)
def test_the_waits_are_those_of_the_ladder(attempts: int, wait_s: float) -> None:
    assert next_attempt(FAILED, attempts, MADE_AT, MADE_AT + 60, 0.0) == MADE_AT + 60 + wait_s


@pytest.mark.parametrize(
    ("answer", "wait_s"),
    [
        (Answer("429", 429, 17.0), 17.0),
        (Answer("503", 503, 17.0), 17.0),
        (Answer("503", 503, 0.0), 1.0),
        (Answer("429", 429, 1e9), 3600.0),
        (Answer("500", 500, 17.0), 1.0),
        (Answer("410", 410), GONE_S),
        (Answer("timeout"), 1.0),
    ],
)
def test_a_receiver_may_ask_for_a_longer_wait_within_bounds(answer: Answer, wait_s: float) -> None:
    assert next_attempt(answer, 0, MADE_AT, MADE_AT, 0.0) == MADE_AT + wait_s


@given(
    st.integers(0, 10_000),
    st.floats(0, KEEP_TRYING_S * 2),
    st.floats(0, 1),
    st.sampled_from([FAILED, Answer("410", 410), Answer("429", 429, 1e8), Answer("timeout")]),
)
def test_every_failure_within_three_days_is_followed_by_an_attempt(
    attempts: int, age_s: float, chance: float, answer: Answer
) -> None:
    now = MADE_AT + age_s
    due_at = next_attempt(answer, attempts, MADE_AT, now, chance)
    if now >= MADE_AT + KEEP_TRYING_S:
        assert due_at is None
    else:
        assert due_at is not None
        assert now + LADDER_S[0] <= due_at <= now + LADDER_S[-1] * (1 + JITTER)
        assert due_at <= max(MADE_AT + KEEP_TRYING_S, now + LADDER_S[0])


@given(st.lists(st.floats(0, 1), min_size=40, max_size=40))
def test_a_post_that_always_fails_ends_after_three_days(chances: list[float]) -> None:
    at: float | None = MADE_AT
    attempts = 0
    last = MADE_AT
    while at is not None:
        last = at
        at = next_attempt(FAILED, attempts, MADE_AT, at, chances[attempts])
        attempts += 1
    assert KEEP_TRYING_S <= last - MADE_AT <= KEEP_TRYING_S + LADDER_S[0]
    assert attempts <= 20
