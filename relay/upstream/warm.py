"""How many sessions an express lane keeps open at an upstream (`sessions.warm`). Pure; times are time.monotonic."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

HALVED_AFTER_S = 600.0
"""A burst of a code's usual life ago counts half."""
AHEAD = 1
"""one more than recent bursts needed is open, for the code that comes while all are in use"""
ON_DEMAND_FOR_S = 600.0
"""after this the upstream is tried with warm sessions again"""
CLOSES_AT_ONCE_S = 1.0
"""An upstream that closes sessions which were idle for less can't keep one warm."""


class Warm(NamedTuple):
    """The sessions that are kept open, and why."""

    sessions: int
    reason: str


class HighWater:
    """The most messages at once, fading with time: halved every `HALVED_AFTER_S`."""

    __slots__ = ("_at", "_most")

    def __init__(self) -> None:
        self._most = 1.0
        self._at = 0.0

    def note(self, now: float, messages: int) -> bool:
        """So many messages are under way. True: more than before, in whole messages."""
        level = self.level(now)
        if messages >= level:
            self._most, self._at = float(messages), now
        return messages > math.ceil(level)

    def level(self, now: float) -> float:
        """At least 1."""
        return max(1.0, self._most * math.pow(0.5, (now - self._at) / HALVED_AFTER_S))


class WarmTarget:
    """How many sessions are to be open, by configuration, recent bursts, and what the upstream allows."""

    def __init__(self, warm: int | Literal["auto"], most: int) -> None:
        """`most`: `sessions.max`."""
        self._configured = warm
        self._most = most
        self._high_water = HighWater()
        self._closed_after_s = 0.0
        self._ends = 0
        """sessions in a row that were closed at once"""
        self._counts_from = 0.0
        self._on_demand_until = 0.0

    def note(self, now: float, messages: int) -> bool:
        """So many messages are under way. True: that asks for more sessions than before."""
        return self._high_water.note(now, min(messages, self._most))

    def closed_at_once(self, now: float, opened_at: float, after_s: float) -> bool:
        """The upstream closed a session that was idle for `after_s` seconds only. True: from now on sessions are opened
        on demand. Sessions that were closed together are one sign, two signs are a habit."""
        if opened_at < self._counts_from or now < self._on_demand_until:
            return False
        self._ends, self._counts_from = self._ends + 1, now
        if self._ends < 2:
            return False
        self._ends, self._on_demand_until, self._closed_after_s = 0, now + ON_DEMAND_FOR_S, after_s
        return True

    def stayed_open(self) -> None:
        """A session was idle for longer than that."""
        self._ends = 0

    def now(self, now: float, allowed: int) -> Warm:
        """`allowed`: sessions that the upstream allows at once, as far as is known."""
        if now < self._on_demand_until:
            return Warm(0, f"on demand: the upstream closed idle sessions after {self._closed_after_s * 1000:.0f} ms")
        if self._configured == "auto":
            level = math.ceil(self._high_water.level(now))
            wanted, reason = level + AHEAD, f"auto: recent bursts needed {level} at once, and {AHEAD} is ahead"
        else:
            wanted, reason = self._configured, "configured"
        if wanted > min(self._most, allowed):
            wanted = min(self._most, allowed)
            reason += f"; sessions.max is {wanted}" if wanted == self._most else f"; the upstream allows {wanted}"
        return Warm(wanted, reason)

    def reserved(self, warm: int) -> int:
        """Sessions that no bulk lane may use: with `auto`, at most half of them all."""
        if self._configured == "auto":
            return min(max(1, warm), max(1, self._most // 2))
        return max(1, self._configured)
