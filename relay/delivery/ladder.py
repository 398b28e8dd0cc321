"""The retry ladder: when a step of it is due. Pure."""

from __future__ import annotations

from collections.abc import Sequence

JITTER = 0.2
"""a retry comes up to this share later than its ladder says, so that what failed together doesn't return together"""


def retry_at(now: float, ladder_s: Sequence[float], step: int, chance: float) -> float:
    """When the ladder's `step` (from 0; the last repeats) is due. `chance`: 0..1, where in the jitter it falls."""
    return now + ladder_s[min(step, len(ladder_s) - 1)] * (1.0 + JITTER * chance)
