"""An upstream's sessions and rate when two processes share it: the main process owns them, a worker leases.

What a code needs is never waited for: express lanes are in the main process, where the budget is.
"""

from __future__ import annotations

from collections.abc import Callable

from relay.upstream.budget import Budget, Holder
from relay.workers.link import Link


class LeasedBudget:
    """A worker's `Budget`: places come one by one, by a notice each, and go back as soon as nobody here waits."""

    def __init__(self, upstream: str, link: Link) -> None:
        self._upstream = upstream
        self._link = link
        self._holders: list[Holder] = []
        self._free = 0
        self._asked = False
        self._wanted = False

    def join(self, holder: Holder) -> None:
        self._holders.append(holder)

    def leave(self, holder: Holder) -> None:
        self._holders.remove(holder)

    def take(self, holder: Holder, holds: int) -> bool:  # noqa: ARG002
        if self._free:
            self._free -= 1
            return True
        if not self._asked:
            self._asked = True
            self._link.tell("lease", self._upstream)
        return False

    def granted(self) -> None:
        """The main process lends one place more."""
        self._asked = False
        self._free += 1
        self._offer()

    def give_back(self) -> None:
        self._free += 1
        if self._wanted:
            self._wanted = False
        else:
            self._offer()
        self._return()

    def wanted(self) -> None:
        """An express lane waits for a place: close an idle session, or the next one that ends its work."""
        self._wanted = not any(holder.spare() for holder in self._holders)

    def wanted_elsewhere(self, holder: Holder) -> bool:  # noqa: ARG002
        return self._wanted

    def _offer(self) -> None:
        for holder in self._holders:
            if self._free:
                holder.room()
        self._return()

    def _return(self) -> None:
        while self._free:
            self._free -= 1
            self._link.tell("return", self._upstream)


class LeasedRate:
    """A worker's `Rate`: the main process says when."""

    def __init__(self, upstream: str, link: Link) -> None:
        self._upstream = upstream
        self._link = link

    async def pace(self, *, express: bool) -> None:  # noqa: ARG002
        await self._link.ask("pace", self._upstream)


class Tenant:
    """A worker's sessions at one upstream, as the main process's budget sees them (Holder)."""

    express = False
    reserved = 0

    def __init__(self, budget: Budget, tell: Callable[[str], None]) -> None:
        """`tell`: sends `granted` or `wanted` to the worker."""
        self._budget = budget
        self._tell = tell
        self._held = 0
        self._asked = 0
        budget.join(self)

    @property
    def holds(self) -> int:
        return self._held

    def lease(self) -> None:
        """The worker asks for one place more."""
        self._asked += 1
        self.room()

    def returned(self) -> None:
        """The worker gave one back."""
        if self._held:
            self._held -= 1
            self._budget.give_back()

    def spare(self) -> bool:
        """Ask for one back; it comes when it comes."""
        if self._held:
            self._tell("wanted")
        return False

    def room(self) -> None:
        while self._asked and self._budget.take(self, self._held):
            self._asked -= 1
            self._held += 1
            self._tell("granted")

    def gone(self) -> None:
        """The worker died, and its sessions with it."""
        self._asked = 0
        self._budget.leave(self)
        while self._held:
            self._held -= 1
            self._budget.give_back()
