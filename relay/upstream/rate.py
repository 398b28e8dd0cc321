"""A token bucket: pure, time comes in as an argument (seconds, any steady clock)."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import NamedTuple

BULK_LEAVES = 0.2
"""Bulk mail leaves this share of an upstream's bucket to codes, so that a full rate never makes one wait."""
LENT_FOR_S = 0.1
"""what another process is lent at once: as many tokens as come in this time, for this time"""

BACK_WITHIN_S = 0.2
"""what wasn't used comes back so soon behind its time"""


class Lent(NamedTuple):
    """Tokens in another process's hands."""

    tokens: int
    until: float
    """none of them is used from then on"""


class Bucket:
    """`rate` tokens a second, at most a second's worth saved up (at least one). What is lent and may be used or come
    back counts as saved up: so in any stretch of time no more are used than `capacity` and what came meanwhile."""

    __slots__ = ("_at", "_lent", "_tokens", "capacity", "rate")

    def __init__(self, rate: float, now: float, saved: float | None = None) -> None:
        """`saved`: the tokens to begin with; by default as many as can be."""
        self.rate = rate
        self.capacity = max(1.0, rate)
        self._tokens = self.capacity if saved is None else saved
        self._at = now
        self._lent: dict[Hashable, Lent] = {}

    def take(self, now: float, *, leave: float = 0.0) -> float:
        """Take one token and return 0.0, or take nothing and return the seconds until there may be one. `leave`: the
        share (0..1) of the bucket that must remain."""
        missing = 1.0 - self._above(now, leave)
        if missing <= 1e-9:
            self._tokens -= 1.0
            return 0.0
        return missing / self.rate

    def lend(self, client: Hashable, now: float, *, leave: float = 0.0) -> Lent | float:
        """Tokens for another process, which has none any more; where there are none, the seconds until there may be as
        many as it is lent at most: it isn't to come back for each."""
        self.returned(client, 0, now)
        most = max(1, int(self.rate * LENT_FOR_S))
        above = self._above(now, leave)
        there = math.floor(above + 1e-9)
        if there < 1:
            return (most - above) / self.rate
        lent = self._lent[client] = Lent(min(there, most), now + LENT_FOR_S)
        self._tokens -= lent.tokens
        return lent

    def returned(self, client: Hashable, tokens: int, now: float) -> None:
        """So many of those that `client` was lent are not used, and the others are. Those that come back too late are
        lost: the bucket has filled meanwhile."""
        self._fill(now)
        lent = self._lent.pop(client, None)
        if lent is not None:
            self._tokens += min(tokens, lent.tokens)

    def _above(self, now: float, leave: float) -> float:
        """The tokens that may be taken."""
        self._fill(now)
        # A share that left nothing to take would be a standstill.
        return self._tokens - min(leave * self.capacity, self.capacity - 1.0)

    def _fill(self, now: float) -> None:
        if self._lent:
            self._lent = {client: one for client, one in self._lent.items() if now < one.until + BACK_WITHIN_S}
        self._tokens += max(0.0, now - self._at) * self.rate
        self._at = now
        self._cap()

    def _cap(self) -> None:
        self._tokens = min(self.capacity - sum(one.tokens for one in self._lent.values()), self._tokens)
