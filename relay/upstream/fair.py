"""Who gives up a session for whom, among those of bulk that share an upstream's: everybody alike, and where there are
too few for that, in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Protocol

TURN_S = 5.0
"""where there are fewer places than holders, each keeps its place so long before another who has none gets it"""


class Holder(Protocol):
    """A pool (or another process's pools), as its upstream's budget sees it."""

    express: bool
    reserved: int
    """sessions that are kept for it whatever others do"""

    @property
    def holds(self) -> int:
        """How many places it has."""

    def spare(self) -> bool:
        """Close an idle session for someone else's sake; False: there is none to close now."""

    def room(self) -> None:
        """A place became free: open what is waited for."""


class Holders:
    """Those of one budget; in iteration, who was served last comes last."""

    def __init__(self, turn_s: float = TURN_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._turn_s = turn_s
        self._clock = clock
        self._served_at: dict[Holder, float] = {}
        self._called: set[Holder] = set()

    def __iter__(self) -> Iterator[Holder]:
        return iter(list(self._served_at))

    def join(self, holder: Holder) -> None:
        self._served_at[holder] = self._clock()

    def leave(self, holder: Holder) -> None:
        """Nothing happens when it has left before: a drain may be cut off and begun again."""
        self._served_at.pop(holder, None)
        self._called.discard(holder)

    def served(self, holder: Holder) -> None:
        """It was given a place."""
        self._served_at.pop(holder, None)
        self._served_at[holder] = self._clock()

    def poorest_first(self) -> list[Holder]:
        """Codes, then whoever has the fewest places, then whoever waits longest."""
        return sorted(self, key=lambda one: (not one.express, one.holds))

    def richest_first(self) -> list[Holder]:
        """Whoever of bulk has most places, ..., codes."""
        return sorted(self, key=lambda one: (one.express, -one.holds))

    def call(self, holder: Holder) -> None:
        """Close a session: an idle one now, or the next that ends its work."""
        if not holder.spare():
            self._called.add(holder)

    def is_called(self, holder: Holder) -> bool:
        """Is it to close the session that just ended its work? Asked once for each call."""
        if holder not in self._called:
            return False
        self._called.discard(holder)
        return True

    def call_for(self, waiting: Holder, holds: int) -> None:
        """One of bulk that has so many places waits for one more: call the richest, if it would then have no fewer, or
        if it had its turn."""
        others = [one for one in self if not one.express and one is not waiting]
        richest = max(others, key=lambda one: one.holds, default=None)  # of several the one served longest ago
        if richest is None:
            return
        had_its_turn = holds == 0 < richest.holds and self._clock() - self._served_at[richest] >= self._turn_s
        if richest.holds > holds + 1 or had_its_turn:
            self.call(richest)
