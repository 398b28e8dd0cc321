"""Times, shares and lists as the doctor's sentences have them. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime


def took(ms: float) -> str:
    """A measured time: `2.3 ms`, `46 ms`, `1.4 s`."""
    if ms < 1000:
        return f"{ms:.1f} ms" if ms < 10 else f"{ms:.0f} ms"
    return f"{ms / 1000:.1f} s"


def span(seconds: float) -> str:
    """A configured time: `10 min`, `2 d`, `300 ms`."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:.0f} {unit}"
    return took(seconds * 1000)


def percent(share: float) -> str:
    """`99.4 %`. Cut off, so that only all of them are 100 %."""
    return f"{math.floor(share * 1000 + 1e-6) / 10:g} %"


def counted(number: int, noun: str) -> str:
    """`1 day`, `1,234 messages`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(names: Sequence[object]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    texts = [str(name) for name in names]
    return " and ".join([part for part in (", ".join(texts[:-1]), texts[-1]) if part]) if texts else ""


def moment(at: float) -> str:
    """`2026-11-29 08:00 UTC`, of seconds since the epoch."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"
