"""How many sessions an upstream may have in all, and how many messages a second, shared out among its lanes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable
from typing import Protocol

from relay.upstream.fair import TURN_S, QuotaClient, QuotaClients
from relay.upstream.rate import BULK_LEAVES, Bucket, Lent


class Quota(Protocol):
    """The sessions of one upstream: no more than its `max` are open or opening at once."""

    def join(self, client: QuotaClient) -> None: ...

    def leave(self, client: QuotaClient) -> None:
        """A client that has no session any more."""

    def acquire(self, client: QuotaClient) -> bool:
        """Count one more session of `client`. False: there is none for it now."""

    def release(self) -> None:
        """A session is gone."""

    def must_close(self, client: QuotaClient) -> bool:
        """Should `client` close its session rather than keep it?"""


class Limiter(Protocol):
    """The messages a second of one upstream."""

    async def pace(self, *, express: bool) -> None:
        """Return when one more may be sent."""


class SessionQuota:
    """A `Quota` that is all in this process.

    Bulk can never be felt by a code: what express lanes reserve is never lent, and where `max` leaves nothing to
    reserve, a bulk session is closed as soon as an express lane waits. Those of bulk share alike (`fair`).
    """

    def __init__(self, limit: int, turn_s: float = TURN_S) -> None:
        self.limit = limit
        self.open = 0
        self._clients = QuotaClients(turn_s)
        self._express_waiting = False
        self._lending = False
        """an idle session of codes is being closed for bulk"""

    def join(self, client: QuotaClient) -> None:
        self._clients.join(client)

    def leave(self, client: QuotaClient) -> None:
        self._clients.leave(client)

    def acquire(self, client: QuotaClient) -> bool:
        if self.open < self.limit and (
            self.open < self._open_to(client) or (client.session_count == 0 and self._all_is_reserved())
        ):
            self.open += 1
            self._clients.served(client)
            return True
        if client.express:
            self._express_waiting = not any(
                other.close_idle() for other in self._clients if other is not client and not other.express
            )
            return False
        if client.session_count == 0 and not self._lending:
            # Idle sessions of codes would starve it: what a burst left, or, where there are no others, those that are
            # kept warm. A code takes the place back with the next message.
            every = self._all_is_reserved()
            self._lending = any(
                other.close_idle()
                for other in self._clients
                if other.express and (every or other.session_count > other.reserved)
            )
        self._clients.reclaim_for(client)
        return False

    def release(self) -> None:
        self.open -= 1
        self._lending = False
        self._shed()
        self._hand_out()

    def resize(self, limit: int) -> None:
        """Another limit from now on. Where more are open, sessions are closed as they end their work."""
        self.limit = limit
        self._shed()
        self._hand_out()

    def must_close(self, client: QuotaClient) -> bool:
        if self._clients.is_reclaimed(client):
            return True
        if client.express or not self._express_waiting:
            return False
        self._express_waiting = False
        return True

    def _hand_out(self) -> None:
        for client in self._clients.fewest_sessions_first():
            if self.open >= self.limit:
                return
            client.on_capacity()

    def _shed(self) -> None:
        """One session of each of the richest; those that follow, when these are gone."""
        above = max(0, self.open - self.limit)
        for client in self._clients.most_sessions_first()[:above]:
            if client.session_count:
                self._clients.reclaim(client)

    def _open_to(self, client: QuotaClient) -> int:
        """All places but those that others have a right to and don't use."""
        return self.limit - sum(
            max(0, one.reserved - one.session_count) for one in self._clients if one.express and one is not client
        )

    def _all_is_reserved(self) -> bool:
        """Then each may have one, and bulk gives its own up when a code waits."""
        return sum(one.reserved for one in self._clients if one.express) >= self.limit


class RateLimiter:
    """A `Limiter` that is all in this process. Bulk leaves codes their share of it, so a code waits only for codes."""

    def __init__(self, rate: float) -> None:
        self._bucket = Bucket(rate, time.monotonic())
        self._in_turn = asyncio.Lock()
        """of those that wait for bulk mail: the first that came is the first that goes on"""

    def change(self, rate: float) -> None:
        """Another rate from now on; what was saved up is spent."""
        if rate != self._bucket.rate:
            self._bucket = Bucket(rate, time.monotonic(), saved=0.0)

    async def pace(self, *, express: bool) -> None:
        if express:
            await self._pace(0.0)
        else:
            async with self._in_turn:
                await self._pace(BULK_LEAVES)

    async def _pace(self, leave: float) -> None:
        for wait_s in iter(lambda: self._bucket.take(time.monotonic(), leave=leave), 0.0):
            await asyncio.sleep(wait_s)

    async def lend(self, client: Hashable) -> Lent:
        """A portion for another process's bulk mail (`until`: time.monotonic, which all processes share). `client` has
        used what it was lent before."""
        self._bucket.returned(client, 0, time.monotonic())
        async with self._in_turn:
            lent = self._bucket.lend(client, time.monotonic(), leave=BULK_LEAVES)
            while not isinstance(lent, Lent):
                await asyncio.sleep(lent)
                lent = self._bucket.lend(client, time.monotonic(), leave=BULK_LEAVES)
            return lent

    def returned(self, client: Hashable, tokens: int) -> None:
        """So many of those that it was lent are not used."""
        self._bucket.returned(client, tokens, time.monotonic())
