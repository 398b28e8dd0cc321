"""An upstream's rate limit: a token bucket, shared by lanes and, in portions, with workers."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Hashable
from typing import NamedTuple, Protocol

BULK_LEAVES = 0.2
"""Bulk mail leaves this share of the bucket to codes, so that a code waits for codes only."""
LENT_FOR_S = 0.1
"""A worker is lent the tokens of this time, and may use them for this time."""
BACK_WITHIN_S = 0.2
"""Unused tokens come back within this time after that."""


class Limiter(Protocol):
    """What limits the messages a second to one upstream."""

    async def pace(self, *, express: bool) -> None:
        """Return when one more message may be sent."""


class Lent(NamedTuple):
    """Tokens that a worker may use."""

    tokens: int
    until: float
    """time.monotonic, which is the same in all processes"""


class Bucket:
    """A token bucket: `rate` tokens a second, at most one second's worth saved up (at least one). Pure: time is an
    argument, in seconds of any steady clock.

    Lent tokens count as saved up until they are used or back. So in any stretch of time no more tokens are used than
    `capacity` and what came in meanwhile.
    """

    __slots__ = ("_at", "_lent", "_tokens", "capacity", "rate")

    def __init__(self, rate: float, now: float, saved: float | None = None) -> None:
        """`saved`: tokens to begin with; default: a full bucket."""
        self.rate = rate
        self.capacity = max(1.0, rate)
        self._tokens = self.capacity if saved is None else saved
        self._at = now
        self._lent: dict[Hashable, Lent] = {}

    def take(self, now: float, *, leave: float = 0.0) -> float:
        """Take one token and return 0.0, or return the seconds until there may be one. `leave`: the share (0 to 1) of
        the bucket that must remain."""
        missing = 1.0 - self._available(now, leave)
        if missing <= 1e-9:
            self._tokens -= 1.0
            return 0.0
        return missing / self.rate

    def lend(self, borrower: Hashable, now: float, *, leave: float = 0.0) -> Lent | float:
        """Lend tokens to a worker that has used up what it had, or return the seconds until there may be a whole
        portion: it isn't to ask for each token."""
        self.give_back(borrower, 0, now)
        portion = max(1, int(self.rate * LENT_FOR_S))
        available = self._available(now, leave)
        tokens = min(portion, math.floor(available + 1e-9))
        if tokens < 1:
            return (portion - available) / self.rate
        lent = self._lent[borrower] = Lent(tokens, now + LENT_FOR_S)
        self._tokens -= tokens
        return lent

    def give_back(self, borrower: Hashable, unused: int, now: float) -> None:
        """The borrower has used all but `unused` tokens. Tokens that come too late are lost: the bucket has filled up
        meanwhile."""
        self._fill(now)
        lent = self._lent.pop(borrower, None)
        if lent is not None:
            self._tokens += min(unused, lent.tokens)

    def _available(self, now: float, leave: float) -> float:
        self._fill(now)
        # At least one token can be taken from a full bucket, whatever must remain.
        return self._tokens - min(leave * self.capacity, self.capacity - 1.0)

    def _fill(self, now: float) -> None:
        if self._lent:
            self._lent = {borrower: lent for borrower, lent in self._lent.items() if now < lent.until + BACK_WITHIN_S}
        filled = self._tokens + max(0.0, now - self._at) * self.rate
        self._tokens = min(self.capacity - sum(lent.tokens for lent in self._lent.values()), filled)
        self._at = now


class RateLimiter:
    """The `Limiter` of the process that owns the rate."""

    def __init__(self, rate: float) -> None:
        """`rate`: messages a second."""
        self._bucket = Bucket(rate, time.monotonic())
        self._bulk_in_turn = asyncio.Lock()

    def change(self, rate: float) -> None:
        """Another rate from now on; the bucket begins empty."""
        if rate != self._bucket.rate:
            self._bucket = Bucket(rate, time.monotonic(), saved=0.0)

    async def pace(self, *, express: bool) -> None:
        if express:
            await self._pace(0.0)
        else:
            async with self._bulk_in_turn:
                await self._pace(BULK_LEAVES)

    async def lend(self, borrower: Hashable) -> Lent:
        """Tokens for a worker's bulk mail, which has used up what it was lent before."""
        self._bucket.give_back(borrower, 0, time.monotonic())
        async with self._bulk_in_turn:
            lent = self._bucket.lend(borrower, time.monotonic(), leave=BULK_LEAVES)
            while not isinstance(lent, Lent):
                await asyncio.sleep(lent)
                lent = self._bucket.lend(borrower, time.monotonic(), leave=BULK_LEAVES)
            return lent

    def give_back(self, borrower: Hashable, unused: int) -> None:
        """The borrower doesn't use so many of the tokens that it was lent."""
        self._bucket.give_back(borrower, unused, time.monotonic())

    async def _pace(self, leave: float) -> None:
        for wait_s in iter(lambda: self._bucket.take(time.monotonic(), leave=leave), 0.0):
            await asyncio.sleep(wait_s)
