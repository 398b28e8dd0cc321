"""`prefer: fastest`: which upstream is asked first, by what was learnt of each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.delivery import fastest
from relay.delivery.fastest import KEPT, LEAST, RECENT_S, End, Pace, Paces, Preference, Sample, rank
from tests.delivery.harness import config, delivering
from tests.support.upstream import Upstream

RANKS: list[tuple[str, dict[str, float], dict[str, float], bool, str]] = [
    # upstreams, p95 to the delivered event, p95 to the 250, explores → the order, why, what was compared
    ("a b", {}, {}, False, "a b learning sent"),
    ("a b", {"a": 9, "b": 2}, {"a": 1, "b": 5}, False, "b a fastest delivered"),
    ("a b", {"a": 2, "b": 2}, {}, False, "a b fastest delivered"),
    ("b a", {"a": 2, "b": 2}, {}, False, "b a fastest delivered"),
    ("a b", {"b": 2}, {"a": 1, "b": 5}, False, "a b fastest sent"),  # a has no events: like is compared with like
    ("a b", {"b": 2}, {"a": 9, "b": 5}, False, "b a fastest sent"),
    ("a b c", {}, {"b": 3, "c": 2}, False, "c b a fastest sent"),  # what isn't known comes last
    ("a b", {"b": 2}, {}, False, "a b learning sent"),
    ("a b c", {"a": 3, "b": 2, "c": 1, "down": 0}, {}, False, "c b a fastest delivered"),
    ("a b c", {}, {"b": 3, "c": 2}, True, "a c b explored sent"),  # the least known goes first
    ("a b", {}, {}, True, "b a explored sent"),
    ("a", {}, {}, True, "a learning sent"),  # no other one to explore
]


def paced(seconds: Mapping[str, float]) -> dict[str, Pace]:
    return {name: Pace(p95_s, LEAST) for name, p95_s in seconds.items()}


@pytest.mark.parametrize(("names", "delivered", "sent", "explores", "expected"), RANKS)
def test_the_fastest_of_the_available_upstreams_is_first(
    names: str, delivered: dict[str, float], sent: dict[str, float], explores: bool, expected: str
) -> None:
    found = rank(names.split(), paced(delivered), paced(sent), explores=explores)
    assert [*found.names, found.why, found.end] == expected.split()


NAMES = st.lists(st.sampled_from("abcdef"), min_size=1, unique=True)
KNOWN = st.dictionaries(st.sampled_from("abcdef"), st.builds(Pace, st.floats(0, 1e6), st.integers(LEAST, KEPT)))


@given(NAMES, KNOWN, KNOWN, st.booleans())
def test_every_available_upstream_is_asked_once_and_no_other(
    names: list[str], delivered: dict[str, Pace], sent: dict[str, Pace], explores: bool
) -> None:
    found = rank(names, delivered, sent, explores=explores)
    assert sorted(found.names) == sorted(names)
    known = delivered if found.end == "delivered" else sent
    best = min((known[name].p95_s for name in names if name in known), default=None)
    if found.why == "fastest":
        assert known[found.names[0]].p95_s == best
    elif found.why == "explored":
        assert found.names[0] != rank(names, delivered, sent).names[0]


class Time:
    now = 1000.0


def learnt(paces: Paces, upstream: str, *after_s: float, provider: str = "gmail", end: End = "sent") -> None:
    paces.learn(Sample("otp", upstream, provider, end, one, paces.now()) for one in after_s)


def test_a_pace_is_of_the_recent_samples_and_needs_some_of_them() -> None:
    paces = Paces(lambda: Time.now)
    learnt(paces, "one", *[50.0] * KEPT)
    learnt(paces, "one", *[1.0] * (KEPT - 1), 8.0)
    assert paces.pace("otp", "one", "gmail", "sent") == Pace(1.0, KEPT)  # one slow message of thirty doesn't tell
    learnt(paces, "two", *[1.0] * (LEAST - 1))
    assert paces.pace("otp", "two", "gmail", "sent") is None
    learnt(paces, "two", 2.0)
    assert paces.pace("otp", "two", "gmail", "sent") == Pace(2.0, LEAST)
    assert [paces.pace("bulk", "two", "gmail", "sent"), paces.pace("otp", "two", "gmx", "sent")] == [None, None]
    assert paces.pace("otp", "two", "gmail", "delivered") is None
    assert paces.known("otp", "two") == {("gmail", "sent"): Pace(2.0, LEAST)}
    late = Paces(lambda: Time.now + RECENT_S + 1)
    late.learn(Sample("otp", "one", "gmail", "sent", 1.0, Time.now) for _ in range(KEPT))
    assert late.pace("otp", "one", "gmail", "sent") is None


def test_domains_are_one_provider_so_that_memory_is_bounded() -> None:
    paces = Paces(lambda: Time.now)
    for number in range(LEAST):
        learnt(paces, "one", 3.0, provider=f"d{number}.example")
    assert paces.known("otp", "one") == {("other", "sent"): Pace(3.0, LEAST)}
    paces.forget(["bulk"])
    assert paces.known("otp", "one") == {}


@pytest.mark.parametrize(("drawn", "explores"), [(0.0, True), (0.049, True), (0.05, False), (0.99, False)])
def test_one_message_in_twenty_explores(drawn: float, explores: bool) -> None:
    assert Preference("otp", Paces(), chance=lambda: drawn).explores() is explores


@pytest.mark.parametrize(
    ("prefer", "explored", "to", "first"),
    [
        ("fastest", 0.0, "u@gmail.com", "two"),
        ("fastest", 0.0, "u@example.net", "one"),  # nothing is known of other providers
        ("fastest", 1.0, "u@gmail.com", "one"),
        ("order", 0.0, "u@gmail.com", "one"),
    ],
)
async def test_a_lane_that_prefers_the_fastest_asks_it_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefer: str, explored: float, to: str, first: str
) -> None:
    monkeypatch.setattr(fastest, "EXPLORED", explored)
    paces = Paces()
    learnt(paces, "one", *[9.0] * LEAST)
    learnt(paces, "two", *[2.0] * LEAST)
    async with (
        Upstream() as one,
        Upstream() as two,
        delivering(tmp_path, config({"one": one, "two": two}, prefer=prefer), paces=paces) as bench,
    ):
        await bench.ended(await bench.send(to), "sent")
        assert (len(one.messages), len(two.messages)) == ((1, 0) if first == "one" else (0, 1))


async def test_a_fast_upstream_that_is_down_is_not_asked(tmp_path: Path) -> None:
    paces = Paces()
    learnt(paces, "gone", *[1.0] * KEPT)
    learnt(paces, "one", *[9.0] * KEPT)
    gone = {"host": "127.0.0.1", "port": 9, "tls": "none"}
    async with (
        Upstream() as one,
        delivering(tmp_path, config({"one": one, "gone": gone}, prefer="fastest"), paces=paces) as bench,
    ):
        for number in range(3):
            await bench.ended(await bench.send(f"u{number}@gmail.com"), "sent")
        assert len(one.messages) == 3
