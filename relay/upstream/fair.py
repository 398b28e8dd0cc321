"""Fair sharing of an upstream's bulk sessions: max-min, and round-robin when there are fewer sessions than clients."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Protocol

TURN_S = 5.0
"""when there are fewer sessions than clients, a client keeps its session for this long before another gets it"""


class QuotaClient(Protocol):
    """A pool, or the pools of a worker, as the upstream's quota sees them."""

    express: bool
    reserved: int
    """sessions kept for this client whatever the others do"""

    @property
    def session_count(self) -> int:
        """Sessions of the quota that it has, open or opening."""

    def close_idle(self) -> bool:
        """Close an idle session so that another client can open one. False: it can't close one now."""

    def on_capacity(self) -> None:
        """A session became free: acquire what is needed."""


class QuotaClients:
    """The clients of one quota. Iteration is in the order in which they were last served."""

    def __init__(self, turn_s: float = TURN_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._turn_s = turn_s
        self._clock = clock
        self._served_at: dict[QuotaClient, float] = {}
        self._reclaimed: set[QuotaClient] = set()

    def __iter__(self) -> Iterator[QuotaClient]:
        return iter(list(self._served_at))

    def join(self, client: QuotaClient) -> None:
        self._served_at[client] = self._clock()

    def leave(self, client: QuotaClient) -> None:
        """May be called again: a drain that was interrupted is repeated."""
        self._served_at.pop(client, None)
        self._reclaimed.discard(client)

    def served(self, client: QuotaClient) -> None:
        """Note that the client got a session."""
        self._served_at.pop(client, None)
        self._served_at[client] = self._clock()

    def fewest_sessions_first(self) -> list[QuotaClient]:
        """Express clients, then by number of sessions; of equals the one that was served longest ago comes first."""
        return sorted(self, key=lambda one: (not one.express, one.session_count))

    def most_sessions_first(self) -> list[QuotaClient]:
        """Bulk clients by number of sessions, then express clients."""
        return sorted(self, key=lambda one: (one.express, -one.session_count))

    def reclaim(self, client: QuotaClient) -> None:
        """Make the client close a session: an idle one now, or the next one that becomes idle."""
        if not client.close_idle():
            self._reclaimed.add(client)

    def is_reclaimed(self, client: QuotaClient) -> bool:
        """Must the client close the session that has just become idle? True once for each `reclaim`."""
        if client not in self._reclaimed:
            return False
        self._reclaimed.discard(client)
        return True

    def reclaim_for(self, waiting: QuotaClient) -> None:
        """Reclaim a session for a waiting bulk client from the one with the most sessions.

        That is done only if the other then has no fewer than `waiting`, or if its turn is over.
        """
        others = [one for one in self if not one.express and one is not waiting]
        richest = max(others, key=lambda one: one.session_count, default=None)  # of equals: served longest ago
        if richest is None:
            return
        mine, most = waiting.session_count, richest.session_count
        turn_is_over = mine == 0 < most and self._clock() - self._served_at[richest] >= self._turn_s
        if most > mine + 1 or turn_is_over:
            self.reclaim(richest)
