"""Durations as a person reads them. Pure."""

from __future__ import annotations

NOTHING = "-"
_UNITS = (
    (10, 1, "ms", 1),
    (1000, 1, "ms", 0),
    (60_000, 1000, "s", 1),
    (3_600_000, 60_000, "min", 0),
    (86_400_000, 3_600_000, "h", 1),
)
"""below so many milliseconds: milliseconds in the unit, its name, digits"""


def duration(ms: float | None) -> str:
    """`0.4 ms`, `41 ms`, `2.0 s`, `5 min`, `3.0 h`, `2.0 d`; `-` for None."""
    if ms is None:
        return NOTHING
    for below_ms, unit_ms, unit, digits in _UNITS:
        if ms < below_ms:
            return f"{ms / unit_ms:.{digits}f} {unit}"
    return f"{ms / 86_400_000:.1f} d"
