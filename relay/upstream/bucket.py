"""A token bucket: pure, time comes in as an argument (seconds, any steady clock)."""

from __future__ import annotations

BULK_LEAVES = 0.2
"""Bulk mail leaves this share of an upstream's bucket to codes, so that a full rate never makes one wait."""


class Bucket:
    """`rate` tokens a second, at most a second's worth saved up (at least one)."""

    __slots__ = ("_at", "_tokens", "capacity", "rate")

    def __init__(self, rate: float, now: float, saved: float | None = None) -> None:
        """`saved`: the tokens to begin with; by default as many as can be."""
        self.rate = rate
        self.capacity = max(1.0, rate)
        self._tokens = self.capacity if saved is None else saved
        self._at = now

    def take(self, now: float, *, leave: float = 0.0) -> float:
        """Take one token and return 0.0, or take nothing and return the seconds until there may be one. `leave`: the
        share (0..1) of the bucket that must remain."""
        self._tokens = min(self.capacity, self._tokens + max(0.0, now - self._at) * self.rate)
        self._at = now
        # A share that left nothing to take would be a standstill.
        floor = min(leave * self.capacity, self.capacity - 1.0)
        missing = floor + 1.0 - self._tokens
        if missing <= 1e-9:
            self._tokens -= 1.0
            return 0.0
        return missing / self.rate
