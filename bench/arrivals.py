"""When codes come: at a steady pace, at random, or in bursts. Pure."""

from __future__ import annotations

import itertools
import random


def offsets_s(count: int, rate: float, *, burst: int = 1, seed: int | None = None) -> list[float]:
    """Seconds from the start of the load to each of `count` codes, in order.

    `rate`: codes a second, on average. `burst`: so many come at the same moment, `burst / rate` seconds after the
    burst before. `seed`: single codes of a Poisson process; the same seed gives the same times in every run.
    """
    if seed is None:
        return [number // burst * burst / rate for number in range(count)]
    chance = random.Random(seed)
    return list(itertools.accumulate(chance.expovariate(rate) for _ in range(count)))
