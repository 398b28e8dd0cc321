"""Bands of delivery time: excellent, good, acceptable, poor, failed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

Band = Literal["excellent", "good", "acceptable", "poor", "failed"]
BANDS: tuple[Band, ...] = get_args(Band)

EDGES_S: tuple[tuple[float, Band], ...] = (
    (10.0, "excellent"),
    (30.0, "good"),
    (60.0, "acceptable"),
    (120.0, "poor"),
)
"""Each band ends just below its edge; `failed` is everything from the last edge on."""

NEVER_ARRIVED = ("bounced", "expired")
"""States of recipients that count as `failed`, too: no code arrived."""


def band(duration_s: float) -> Band:
    """The band of a delivery time."""
    for edge_s, name in EDGES_S:
        if duration_s < edge_s:
            return name
    return "failed"


def tally(durations_s: Iterable[float]) -> dict[Band, int]:
    """Deliveries in each band; every band is a key."""
    counts = dict.fromkeys(BANDS, 0)
    for duration_s in durations_s:
        counts[band(duration_s)] += 1
    return counts
