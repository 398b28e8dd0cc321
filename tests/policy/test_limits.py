"""The limits' decisions against a naive model; the books beside them stay small."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.config.model import LaneLimits
from relay.config.rate_limit import CountPer
from relay.policy.admissions import Admission, Admissions
from relay.policy.limits import (
    NEVER,
    Demand,
    LimitFacts,
    client_key,
    demands_of,
    free_at,
    horizon_s,
    judge,
    mailbox,
    pause_s,
)
from relay.policy.look_alikes import LookAlikes
from relay.policy.requests import hash_of_request
from relay.policy.resends import Resends

SALT = bytes(32)
WINDOWS = st.lists(st.builds(CountPer, st.integers(1, 4), st.integers(1, 20).map(float)), min_size=1, max_size=2)
TIMES = st.lists(st.integers(0, 60).map(float), max_size=12)


def too_many(windows: Sequence[CountPer], times: Sequence[float]) -> bool:
    """The naive model: does any window, wherever it begins, hold more than it may?"""
    return any(
        sum(begin <= one < begin + window.period_s for one in times) > window.count
        for window in windows
        for begin in times
    )


@given(WINDOWS, TIMES, st.integers(0, 60).map(float), st.integers(1, 3))
@settings(max_examples=400)
def test_the_first_free_moment_is_the_naive_models(
    windows: list[CountPer], arrivals: list[float], now: float, times: int
) -> None:
    counted: list[float] = []
    for at in arrivals:  # in any order: what is delayed counts in the future
        if not too_many(windows, [*counted, at]):
            counted = sorted([*counted, at])
    found = free_at(Demand("per_recipient", 1, windows, times=times), counted, now)
    new = [found] * times
    if found == NEVER:
        assert times > min(window.count for window in windows)
        return
    assert not too_many(windows, [*counted, *new])
    earlier = [now + step for step in range(max(0, math.ceil(found - now)))]
    assert all(too_many(windows, [*counted, *[at] * times]) for at in earlier)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=60), WINDOWS)
def test_what_passes_in_turn_never_exceeds_a_window(steps: list[tuple[int, int]], windows: list[CountPer]) -> None:
    books, now = Admissions(), 0.0
    passed: dict[int, list[float]] = {}
    for key, pause in steps:
        now += pause
        demand = Demand("per_client", key, windows)
        verdict = judge([demand], "reject", books.times, now)
        allowed = not too_many(windows, [*passed.get(key, []), now])
        assert (verdict.action is None) is allowed
        if allowed:
            books.add(now, [key])
            passed.setdefault(key, []).append(now)


def test_the_longest_wait_is_named_and_a_delay_beyond_the_end_is_a_refusal() -> None:
    books = Admissions()
    books.add(0.0, [1, 2])
    demands = [Demand("per_recipient", 1, [CountPer(1, 10)]), Demand("per_client", 2, [CountPer(1, 30)])]
    verdict = judge(demands, "reject", books.times, 5.0)
    assert verdict.exceeded is not None
    assert (verdict.exceeded.limit, verdict.exceeded.free_at, verdict.action) == ("per_client", 30, "reject")
    assert judge(demands, "delay", books.times, 5.0, until=31).at == 30
    assert judge(demands, "delay", books.times, 5.0, until=30).action == "reject"
    assert judge(demands, "log", books.times, 5.0).at == 5
    assert judge(demands, "log", books.times, 30.0).action is None


def test_pauses_grow_with_each_repeat_until_a_long_enough_silence() -> None:
    pauses = (30.0, 60.0, 300.0)
    assert [pause_s(pauses, 600, times) for times in ([0], [0, 30], [0, 30, 90], [0, 30, 90, 390])] == [
        30,
        60,
        300,
        300,
    ]
    assert pause_s(pauses, 600, [0, 30, 630]) == 30
    assert pause_s(pauses, 600, [0, 30, 629]) == 300
    assert free_at(Demand("resend_after", 1, (), pauses, 600), [0.0, 30.0], 40) == 90
    limits = LaneLimits(resend_after_s=(30, 60), per_recipient=(CountPer(5, 3600),))
    assert (horizon_s(limits, 600), horizon_s(LaneLimits(), 600)) == (3600, 0)
    assert horizon_s(LaneLimits(resend_after_s=(30, 60, 3600)), 600) == 4800


def test_mailboxes_and_clients_are_compared_as_they_are_meant() -> None:
    assert mailbox("Ann+News@EXAMPLE.net", fold_tags=True) == mailbox("ann@example.net", fold_tags=True)
    assert mailbox("ann+news@example.net", fold_tags=False) != mailbox("ann@example.net", fold_tags=False)
    assert mailbox("+x@example.net", fold_tags=True) == "+x@example.net"
    assert mailbox("a@bücher.example", fold_tags=False) == mailbox("a@XN--BCHER-KVA.example", fold_tags=False)
    assert len({client_key("x", "x", "x"), client_key(None, "x", "x"), client_key(None, None, "x")}) == 3
    facts = LimitFacts("otp", None, "s@x.test", ["a+1@y.test", "a+2@y.test", "b@y.test"], "address x", 600)
    limits = LaneLimits(per_recipient=(CountPer(2, 60),), per_sender=(CountPer(9, 60),), fold_tags=True)
    sender, twice, once = demands_of(facts, limits, SALT)
    assert (sender.times, twice.times, once.times) == (1, 2, 1)
    assert len({sender.key, twice.key, once.key, demands_of(facts, limits, b"x" * 32)[1].key}) == 4


@given(st.lists(st.tuples(st.integers(0, 50), st.lists(st.integers(0, 5), min_size=1, max_size=3)), max_size=60))
def test_the_books_keep_each_time_until_it_expires(entries: list[tuple[int, list[int]]]) -> None:
    books, model = Admissions(), dict[int, list[float]]()
    for at, keys in entries:
        books.add(float(at), keys)
        for key in keys:
            model.setdefault(key, []).append(float(at))
    assert all(list(books.times(key)) == sorted(times) for key, times in model.items())
    books.expire(51)
    while len(books):
        books.expire(51)
    assert not any(len(books.times(key)) for key in model)


def test_the_books_are_bounded_and_what_is_withdrawn_counts_no_more() -> None:
    books = Admissions(most_entries=100)
    for n in range(70_000):
        books.add(float(n), [n, -1])
    assert (len(books), books.forgotten) == (100, 139_900)
    assert (len(books.times(-1)), len(books.times(69_999)), len(books.times(3))) == (50, 1, 0)
    few = Admissions(most_keys=10)
    for n in range(100):
        few.add(float(n), [n, -1])
    assert (len(few), few.forgotten, len(few.times(90)), len(few.times(91))) == (19, 181, 0, 1)
    one = books.add(70_000.0, [7])
    books.remove(one)
    books.remove(one)
    assert not books.times(7)
    books.restore(Admission(one.seq, one.at, one.keys))
    assert list(books.times(7)) == [70_000.0]
    assert books.add(70_001.0, [8]).seq > one.seq


@given(
    st.lists(st.tuples(st.integers(0, 50), st.lists(st.integers(0, 9), min_size=1, max_size=3)), max_size=60),
    st.integers(1, 40),
    st.integers(1, 12),
)
def test_books_that_are_restored_are_those_that_were_written(
    entries: list[tuple[int, list[int]]], most_entries: int, most_keys: int
) -> None:
    written, restored = Admissions(most_entries, most_keys), Admissions(most_entries, most_keys)
    restored.restore_all([written.add(float(at), keys) for at, keys in entries])
    assert (len(restored), restored.forgotten) == (len(written), written.forgotten)
    assert all(list(restored.times(key)) == list(written.times(key)) for key in range(10))
    assert restored.add(60.0, [1, 2]) == written.add(60.0, [1, 2])


def test_lines_and_resends_are_remembered_up_to_a_number() -> None:
    same, limit = LookAlikes(most=2), CountPer(2, 60)
    assert not same.exceed([1], [10], limit, 0)
    assert not same.exceed([1], [10], limit, 1)  # the same recipient again
    assert not same.exceed([1], [11], limit, 2)
    assert same.exceed([1], [12], limit, 3)
    assert not same.exceed([1], [12], limit, 70)
    assert not same.exceed([], [12], limit, 70)
    assert not same.exceed([2, 3], [13], limit, 71)  # which forgets the first line
    assert not same.exceed([1], [14, 15], limit, 72)
    resends = Resends(most=2)
    assert [resends.note(key, at, 10) for key, at in ((1, 0), (1, 9), (1, 19), (2, 19), (3, 19), (1, 20))] == [
        False, True, False, False, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_a_request_is_the_same_however_it_is_divided_and_whatever_its_boundary(size: int) -> None:
    from relay.mail.envelope import Envelope, Recipient
    from relay.mail.message import parse

    def hashed(boundary: str, date: str, text: str = "123456") -> bytes:
        head = f"Date: {date}\r\nContent-Type: multipart/mixed; boundary={boundary}\r\nSubject: x\r\n\r\n".encode()
        body = f"--{boundary}\r\n\r\n{text}\r\n--{boundary}--\r\n".encode()
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
        return hash_of_request(SALT, Envelope("a@x.test", (Recipient("b@y.test"),)), parse(head), pieces)

    assert hashed("abcabd", "now") == hashed("zz", "later")
    assert hashed("abcabd", "now") != hashed("abcabd", "now", text="654321")
