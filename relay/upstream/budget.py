"""How many sessions an upstream may have in all, shared out among the lanes that use it."""

from __future__ import annotations

from typing import Protocol


class Holder(Protocol):
    """A pool, as its upstream's budget sees it."""

    express: bool
    reserved: int
    """sessions that are kept for it whatever others do"""

    def spare(self) -> bool:
        """Close an idle session for someone else's sake; False: there is none to close."""

    def room(self) -> None:
        """A place became free: open what is waited for."""


class Budget:
    """`max` of the configuration, strictly: no more sessions than that are open or opening at once.

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

    def take(self, holder: Holder, holds: int) -> bool:
        """A place for one more session of `holder`, which has `holds` already."""
        if self.open < self.limit and holds < self._ceiling(holder):
            self.open += 1
            return True
        if holder.express:
            self._express_waiting = not any(
                other.spare() for other in self._holders if other is not holder and not other.express
            )
        return False

    def give_back(self) -> None:
        """A session is gone."""
        self.open -= 1
        for holder in sorted(self._holders, key=lambda one: not one.express):
            if self.open >= self.limit:
                return
            holder.room()

    def wanted_elsewhere(self, holder: Holder) -> bool:
        """Should `holder` close its session rather than keep it: an express lane waits for the place."""
        if holder.express or not self._express_waiting:
            return False
        self._express_waiting = False
        return True

    def _ceiling(self, holder: Holder) -> int:
        if holder.express:
            others = sum(one.reserved for one in self._holders if one.express and one is not holder)
        else:
            others = sum(one.reserved for one in self._holders if one.express)
        return max(1, self.limit - others)
