"""Codes come when a row says: the same moments for every contender."""

from __future__ import annotations

import itertools
import statistics

from bench.arrivals import offsets_s


def test_steady_codes_are_equally_far_apart() -> None:
    assert offsets_s(4, 10) == [0.0, 0.1, 0.2, 0.3]


def test_the_codes_of_a_burst_come_at_the_same_moment() -> None:
    assert offsets_s(7, 10, burst=3) == [0.0] * 3 + [0.3] * 3 + [0.6]


def test_random_codes_are_the_same_for_the_same_seed_only() -> None:
    assert offsets_s(50, 10, seed=1) == offsets_s(50, 10, seed=1)
    assert offsets_s(50, 10, seed=1) != offsets_s(50, 10, seed=2)


def test_random_codes_keep_their_order_and_their_average_rate() -> None:
    found = offsets_s(10_000, 10, seed=1)
    gaps = [later - earlier for earlier, later in itertools.pairwise(found)]
    assert min(gaps) >= 0
    assert 0.095 < statistics.fmean(gaps) < 0.105
    assert 0.095 < statistics.stdev(gaps) < 0.105  # of an exponential distribution it is the mean
