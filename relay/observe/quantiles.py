"""Percentiles by nearest rank: always a value that was measured."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate


def percentile(ordered: Sequence[float], percent: float) -> float | None:
    """The smallest value that at least `percent` % of `ordered` (ascending) do not exceed; None when it is empty."""
    if not ordered:
        return None
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def percentile_of(counted: Sequence[tuple[float, int]], percent: float) -> float | None:
    """The same for (value, times it occurs) pairs, values ascending."""
    upto = list(accumulate(times for _, times in counted))
    if not upto:
        return None
    return counted[bisect_left(upto, max(1, math.ceil(upto[-1] * percent / 100)))][0]
