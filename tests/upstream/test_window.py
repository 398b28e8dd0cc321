"""How much an upstream is given at once: the window alone, its clock in hand."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from relay.mail.reply import Reply
from relay.upstream.results import Phase
from relay.upstream.window import (
    CAP_FOR_AT_MOST_S,
    CAP_FOR_S,
    FORGET_S,
    INITIAL_WINDOW,
    PAUSES_S,
    SAMPLES_PER_ROUND,
    Window,
    is_throttling_text,
    throttles,
)

QUICK_S = 0.02


def well(window: Window, now: float, messages: int, reply_s: float = QUICK_S) -> float:
    """So many messages go through an upstream that takes whatever it is given; returns the time after them."""
    for _ in range(messages):
        now += 0.001
        in_use = window.sessions(now)
        window.opened(in_use)
        window.succeeded(now, in_use, reply_s)
    return now


class History(RuleBasedStateMachine):
    """Whatever an upstream says, in whatever order."""

    @initialize(ceiling=st.integers(1, 40), start=st.integers(1, 40))
    def begin(self, ceiling: int, start: int) -> None:
        self.window = Window(ceiling, start)
        self.now = 1000.0

    @rule(seconds=st.floats(0.0, 2.0) | st.floats(0.0, 1000.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(in_use=st.integers(1, 40), reply_s=st.none() | st.floats(0.0, 30.0))
    def a_message_is_accepted(self, in_use: int, reply_s: float | None) -> None:
        before = self.window.limit
        self.window.succeeded(self.now, in_use, reply_s)
        assert self.window.limit <= before + 1

    @rule(reply_s=st.floats(0.0, 30.0), times=st.integers(1, 40))
    def many_are_accepted(self, reply_s: float, times: int) -> None:
        for _ in range(times):
            self.window.succeeded(self.now, self.window.sessions(self.now), reply_s)

    @rule()
    def it_throttles(self) -> None:
        before = self.window.limit
        self.window.throttled(self.now)
        assert self.window.room(self.now) == 0
        assert self.window.limit >= before // 2
        assert self.window.resume_at <= self.now + max(PAUSES_S)

    @rule(held=st.integers(1, 50))
    def it_refuses_one_more_session(self, held: int) -> None:
        self.window.refused(self.now, held)
        assert self.window.sessions(self.now) <= held + 1

    @rule(held=st.integers(1, 50))
    def it_lets_in_so_many(self, held: int) -> None:
        self.window.opened(held)

    @invariant()
    def it_stays_between_one_and_the_ceiling(self) -> None:
        window = self.window
        assert 1 <= window.limit <= window.ceiling
        assert 1 <= window.sessions(self.now) <= window.limit
        assert 0 <= window.room(self.now) <= window.sessions(self.now)
        if window.room(self.now) == 0:
            assert self.now < window.resume_at

    def teardown(self) -> None:
        """From wherever it came, it climbs back to its ceiling where the upstream is well again."""
        window = self.window
        now = self.now + max(*PAUSES_S, CAP_FOR_AT_MOST_S, 2 * FORGET_S)
        # A round may have begun with other replies; the floor is forgotten one round at a time.
        now = well(window, now, 3 * SAMPLES_PER_ROUND) + 2 * FORGET_S
        now = well(window, now, 2 * SAMPLES_PER_ROUND + window.ceiling**2)
        assert window.limit == window.room(now) == window.ceiling


History.TestCase.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestHistory = History.TestCase


def test_it_begins_small_and_doubles_until_the_upstream_throttles() -> None:
    window = Window(64)
    assert window.limit == INITIAL_WINDOW
    now = well(window, 1.0, INITIAL_WINDOW)
    assert window.limit == 2 * INITIAL_WINDOW
    well(window, now, 2 * INITIAL_WINDOW)
    assert window.limit == 4 * INITIAL_WINDOW


def test_after_trouble_it_climbs_by_one_a_window() -> None:
    window = Window(64, 16)
    window.throttled(1.0)
    assert window.limit == 8
    now = well(window, window.resume_at, 9)
    assert window.limit == 9
    well(window, now, 10)
    assert window.limit == 10


def test_a_window_that_isnt_used_doesnt_grow() -> None:
    window = Window(64)
    for _ in range(100):
        window.succeeded(1.0, INITIAL_WINDOW - 1, QUICK_S)
    assert window.limit == INITIAL_WINDOW


def test_what_was_under_way_when_it_was_cut_neither_cuts_again_nor_ends_the_pause() -> None:
    window = Window(64, 32)
    window.throttled(1.0)
    for _ in range(10):
        window.throttled(1.5)
        window.succeeded(1.6, 32, QUICK_S)
    assert window.limit == 16
    assert window.resume_at == 1.0 + PAUSES_S[0]
    assert window.room(1.7) == 0


def test_each_pause_is_longer_than_the_last_and_ends_with_a_single_message() -> None:
    window, now, pauses = Window(64, 64), 1.0, []
    for _ in range(len(PAUSES_S) + 2):
        window.throttled(now)
        pauses.append(window.resume_at - now)
        now = window.resume_at
        assert window.room(now) == 1
    assert pauses == [*PAUSES_S, PAUSES_S[-1], PAUSES_S[-1]]
    window.succeeded(now, 1, QUICK_S)
    assert window.room(now) == window.limit
    window.throttled(now)
    assert window.resume_at == now + PAUSES_S[0]


def test_a_refused_session_is_believed_and_one_more_is_tried_later_and_later() -> None:
    window, now = Window(10, 10), 1.0
    for believed_s in (CAP_FOR_S, 2 * CAP_FOR_S, 4 * CAP_FOR_S):
        window.refused(now, 3)
        assert window.sessions(now) == window.sessions(now + believed_s - 0.1) == 3
        now += believed_s
        assert window.sessions(now) == 4
    for held in range(4, 11):
        window.opened(held)
    assert window.sessions(now) == 10


def test_sessions_that_are_refused_together_count_once() -> None:
    window = Window(10, 10)
    for held in (9, 7, 5):
        window.refused(1.0, held)
    assert window.sessions(1.0) == 5
    assert window.sessions(1.0 + CAP_FOR_S) == 6


@given(st.lists(st.booleans(), min_size=200, max_size=200).filter(lambda spikes: sum(spikes) < 100))
def test_slow_replies_among_quick_ones_change_nothing(spikes: list[bool]) -> None:
    # Every round has a quick one.
    window, now = Window(8, 8), 1.0
    for at, spike in enumerate(spikes):
        now += 0.01
        window.succeeded(now, 8, 5.0 if spike and at % SAMPLES_PER_ROUND else QUICK_S)
    assert window.limit == 8


def test_an_upstream_that_gets_slow_gets_half_and_no_more_until_it_is_quick_again() -> None:
    window = Window(32, 32)
    now = well(window, 1.0, SAMPLES_PER_ROUND)
    now = well(window, now, SAMPLES_PER_ROUND, 0.5)
    assert window.limit == 16
    now = well(window, now, 10 * SAMPLES_PER_ROUND, 0.5)
    assert window.limit == 16  # all within a second: one cut
    now = well(window, now + 2.0, SAMPLES_PER_ROUND, 0.5)
    assert window.limit == 8
    assert window.room(now) == 8  # slow is no reason for a pause
    well(window, now, SAMPLES_PER_ROUND + 9)
    assert window.limit == 9


@pytest.mark.parametrize(("quick_s", "slow_s"), [(0.001, 0.09), (0.2, 0.5), (2.0, 5.0)])
def test_little_is_not_slow_and_neither_is_a_little_more(quick_s: float, slow_s: float) -> None:
    window = Window(8, 8)
    now = well(window, 1.0, 5 * SAMPLES_PER_ROUND, quick_s)
    well(window, now, 20 * SAMPLES_PER_ROUND, slow_s)
    assert window.limit == 8


def test_an_upstream_that_stays_slow_is_taken_as_it_is() -> None:
    window = Window(8, 8)
    now = well(window, 1.0, 5 * SAMPLES_PER_ROUND)
    for _ in range(5):
        now = well(window, now + 2.0, SAMPLES_PER_ROUND, 0.5)
    assert window.limit == 1
    for _ in range(3):
        now = well(window, now + FORGET_S, SAMPLES_PER_ROUND, 0.5)
    well(window, now, 200, 0.5)
    assert window.limit == 8


@pytest.mark.parametrize("takes", [1, 3, 7, 20])
def test_it_settles_near_what_the_upstream_takes(takes: int) -> None:
    window, now, sent, throttled, seconds = Window(50), 1.0, 0, 0, 600
    for _ in range(seconds * 10):  # ten round trips a second
        room = window.room(now)
        for nth in range(room):
            if nth < takes:
                window.succeeded(now, room, QUICK_S)
                sent += 1
            else:
                window.throttled(now)
                throttled += 1
        now += 0.1
    assert window.limit <= 2 * takes
    assert sent >= 0.8 * takes * seconds * 10
    assert throttled <= 50


SAYS_SO: list[tuple[Reply, bool]] = [
    (Reply(454, "Throttling failure: Maximum sending rate exceeded."), True),
    (Reply(454, "4.7.0 Throttling failure: Daily message quota exceeded"), True),
    (Reply(421, "4.7.0 Too many concurrent SMTP connections"), True),
    (Reply(421, "Too many connections, slow down"), True),
    (Reply(450, "4.5.127 Message rejected. Excessive message rate from sender"), True),
    (Reply(432, "4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded"), True),
    (Reply(451, "4.7.1 Rate limit exceeded"), True),
    (Reply(451, "Authentication failed: Maximum credits exceeded"), True),
    (Reply(452, "4.5.3 Too many recipients"), False),
    (Reply(452, "4.2.2 mailbox quota exceeded"), False),
    (Reply(450, "4.2.1 The user you are trying to contact is receiving mail at a rate that exceeds"), False),
    (Reply(451, "4.3.0 try again later"), False),
    (Reply(421, "4.3.2 closing"), False),
    (Reply(450, "4.7.1 Greylisted"), False),
    (Reply(550, "5.7.0 Too many connections"), False),
]


@pytest.mark.parametrize(("reply", "says"), SAYS_SO, ids=str)
def test_the_text_of_a_reply_may_say_that_it_is_too_much(reply: Reply, says: bool) -> None:
    assert is_throttling_text(reply) is says


THROTTLES: list[tuple[str, Phase, bool, bool]] = [
    ("421 4.7.0 try later", "mail", False, True),
    ("421 4.4.2 idle for too long", "mail", True, False),
    ("421 too many messages on this connection, rate limit", "mail", True, True),
    ("450 4.7.1 busy", "mail", False, True),
    ("451 4.3.0 later", "mail", True, True),
    ("452 4.3.1 insufficient system storage", "mail", True, True),
    ("454 throttled", "mail", True, True),
    ("451 4.1.8 sender's domain not found", "mail", False, False),
    ("450 4.2.1 greylisted", "rcpt", False, False),
    ("450 4.7.1 greylisted", "rcpt", False, False),
    ("450 4.7.1 rate limit exceeded", "rcpt", False, True),
    ("454 4.7.0 Throttling failure", "rcpt", True, True),
    ("421 4.3.2 closing", "rcpt", True, True),
    ("454 Throttling failure: Maximum sending rate exceeded.", "dot", True, True),
    ("452 4.2.2 full", "dot", True, False),
    ("451 4.6.0 content filter unavailable", "dot", True, False),
]


@pytest.mark.parametrize(("said", "phase", "kept", "less"), THROTTLES)
def test_a_4yz_asks_for_less_or_is_about_one_message(said: str, phase: Phase, kept: bool, less: bool) -> None:
    code, _, text = said.partition(" ")
    assert throttles(Reply(int(code), text), phase, kept=kept) is less
