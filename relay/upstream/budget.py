"""How many sessions an upstream may have in all, and how many messages a second, shared out among its lanes."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

from relay.upstream.bucket import BULK_LEAVES, Bucket


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


class Budget(Protocol):
    """The sessions of one upstream: no more than its `max` are open or opening at once."""

    def join(self, holder: Holder) -> None: ...

    def leave(self, holder: Holder) -> None:
        """A holder that has no session any more."""

    def take(self, holder: Holder, holds: int) -> bool:
        """A place for one more session of `holder`, which has `holds` already."""

    def give_back(self) -> None:
        """A session is gone."""

    def wanted_elsewhere(self, holder: Holder) -> bool:
        """Should `holder` close its session rather than keep it?"""


class Rate(Protocol):
    """The messages a second of one upstream."""

    async def pace(self, *, express: bool) -> None:
        """Return when one more may be sent."""


class WholeBudget:
    """A `Budget` that is all in this process.

    Bulk can never be felt by a code: what express lanes reserve is never lent, and where `max` leaves nothing to
    reserve, a bulk session is closed as soon as an express lane waits.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.open = 0
        self._holders: list[Holder] = []
        self._express_waiting = False

    def join(self, holder: Holder) -> None:
        self._holders.append(holder)

    def leave(self, holder: Holder) -> None:
        if holder in self._holders:  # a drain may be cut off and begun again
            self._holders.remove(holder)

    def take(self, holder: Holder, holds: int) -> bool:
        if self.open < self.limit and (self.open < self._open_to(holder) or (holds == 0 and self._all_is_reserved())):
            self.open += 1
            return True
        if holder.express:
            self._express_waiting = not any(
                other.spare() for other in self._holders if other is not holder and not other.express
            )
        elif holds == 0:
            # Idle sessions, kept warm, would starve it for good; a code takes the place back with the next message.
            any(other.spare() for other in self._holders if other.express)
        return False

    def give_back(self) -> None:
        self.open -= 1
        for holder in sorted(self._holders, key=lambda one: not one.express):
            if self.open >= self.limit:
                return
            holder.room()

    def wanted_elsewhere(self, holder: Holder) -> bool:
        if holder.express or not self._express_waiting:
            return False
        self._express_waiting = False
        return True

    def _open_to(self, holder: Holder) -> int:
        """All places but those that others have a right to and don't use."""
        return self.limit - sum(
            max(0, one.reserved - one.holds) for one in self._holders if one.express and one is not holder
        )

    def _all_is_reserved(self) -> bool:
        """Then each may have one, and bulk gives its own up when a code waits."""
        return sum(one.reserved for one in self._holders if one.express) >= self.limit


class WholeRate:
    """A `Rate` that is all in this process. Bulk leaves codes their share of it, so a code waits only for codes."""

    def __init__(self, rate: float) -> None:
        self._bucket = Bucket(rate, time.monotonic())

    async def pace(self, *, express: bool) -> None:
        leave = 0.0 if express else BULK_LEAVES
        for wait_s in iter(lambda: self._bucket.take(time.monotonic(), leave=leave), 0.0):
            await asyncio.sleep(wait_s)
