"""Measure a call's processor time, and assert that it grows with the input, not with its square."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

GROWTH = 4
"""size of the larger input, as a multiple of the smaller"""
MOST = 10.0
"""allowed cost of the larger input, as a multiple: linear work costs 4 times, quadratic work 16 times"""
FLOOR_S = 0.005
"""a shorter measurement means nothing"""
TRIES = 3
"""another process on the machine can spoil some of them, not all"""


def cpu_s(call: Callable[[], object], *expected: type[Exception]) -> float:
    """Seconds of processor time that `call` takes; it may end with an `expected` exception."""
    began = time.thread_time()
    with suppress(*expected):
        call()
    return time.thread_time() - began


def least_cpu_s(call: Callable[[], object], *expected: type[Exception]) -> float:
    """The least of TRIES."""
    return min(cpu_s(call, *expected) for _ in range(TRIES))


def assert_linear(
    call: Callable[[bytes], object], made: Callable[[int], bytes], size: int, *expected: type[Exception]
) -> None:
    """`call` costs about in proportion to the size of `made(size)`."""
    small, large = made(size), made(size * GROWTH)
    costs: list[tuple[float, float]] = []
    for _ in range(TRIES):
        cost = cpu_s(lambda: call(small), *expected), cpu_s(lambda: call(large), *expected)
        if cost[1] <= MOST * cost[0] + FLOOR_S:
            return
        costs.append(cost)
    raise AssertionError(f"{len(small)} and {len(large)} bytes, of {small[:40]!r}: seconds {costs}")


def assert_bounded(call: Callable[[bytes], object], made: Callable[[int], bytes], size: int) -> None:
    """Past the limit that `size` is beyond, `call` costs no more for a longer input."""
    small, large = made(size), made(size * GROWTH)
    costs: list[tuple[float, float]] = []
    for _ in range(TRIES):
        cost = cpu_s(lambda: call(small)), cpu_s(lambda: call(large))
        if cost[1] <= 2 * cost[0] + FLOOR_S:
            return
        costs.append(cost)
    raise AssertionError(f"{len(small)} and {len(large)} bytes, of {small[:40]!r}: seconds {costs}")
