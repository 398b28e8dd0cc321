"""Rate limits: `5/1h`. Apart from `parse`, since the commands load that, and do without dataclasses."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from relay.config.masking import shown
from relay.config.parse import DURATION, RATE, parse_duration

_LIMIT = re.compile(rf"([0-9]{{1,9}})/({DURATION.pattern})")


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
    if int(found[1]) == 0:
        raise ValueError(f"expected a limit of at least one, got {shown(value)}")
    return CountPer(int(found[1]), parse_duration(found[2], None))
