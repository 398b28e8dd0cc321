"""Limits of a number in a time: `5/1h`, `50/s`.

Apart from `parse`, since the commands load that, and do without dataclasses.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from relay.config.masking import shown
from relay.config.parse import DURATION, RATE, parse_duration

MOST = 100_000
"""of a limit: each message that is counted takes memory"""
_LIMIT = re.compile(rf"([0-9]{{1,9}})/({DURATION.pattern})")
_BUDGET = re.compile(r"([0-9]{1,9})/(s|m|h|d)")


@dataclass(frozen=True, slots=True)
class CountPer:
    """At most `count` in any `period_s` seconds. No named tuple: those have a `count` of their own."""

    count: int
    period_s: float


def parse_rate_limit(value: Any) -> CountPer:
    """`5/1h` → at most 5 in any hour."""
    if isinstance(value, CountPer):
        return value
    found = _LIMIT.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        hint = f"; did you mean {value[:-1]}1{value[-1]}?" if isinstance(value, str) and RATE.fullmatch(value) else ""
        raise ValueError(f"expected a limit such as 5/1h or 20/10m, got {shown(value)}{hint}")
    return _count_per(value, int(found[1]), found[2])


def parse_budget(value: Any) -> CountPer:
    """`50/s` → at most 50 in any second; `5/1h` as `parse_rate_limit`."""
    found = _BUDGET.fullmatch(value) if isinstance(value, str) else None
    return parse_rate_limit(value) if found is None else _count_per(value, int(found[1]), f"1{found[2]}")


def _count_per(value: str, count: int, period: str) -> CountPer:
    if count == 0:
        raise ValueError(f"expected a limit of at least one, got {shown(value)}")
    if count > MOST:
        raise ValueError(f"expected a limit of at most {MOST}, got {shown(value)}")
    return CountPer(count, parse_duration(period, None))
