"""An upstream's sessions and rate when two processes share it: the main process owns them, a worker leases.

What a code needs is never waited for: express lanes are in the main process, where the quota is.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

from relay.upstream.fair import TURN_S, QuotaClient, QuotaClients
from relay.upstream.quota import Quota
from relay.upstream.rate import Lent
from relay.workers import messages
from relay.workers.link import Link

ASK_AGAIN_AFTER_S = 1.0
"""a place that doesn't come may be somebody's whose turn is over by now"""


class RemoteSessionQuota:
    """A worker's `Quota`. Places come one by one, by a notice each, and every one goes back when its session ends: the
    main process knows who has the fewest."""

    def __init__(self, upstream: str, link: Link, turn_s: float = TURN_S) -> None:
        self._upstream = upstream
        self._link = link
        self._clients = QuotaClients(turn_s)
        self._held = 0
        """places here"""
        self._free = 0
        """of them, without a session"""
        self._asked_at: float | None = None
        """when a place was asked for that hasn't come (time.monotonic)"""
        self._owed = 0
        """places that were asked back and haven't gone yet"""
        self._wanted = False
        """whoever ends some work next closes the session"""

    def join(self, client: QuotaClient) -> None:
        self._clients.join(client)

    def leave(self, client: QuotaClient) -> None:
        self._clients.leave(client)

    def acquire(self, client: QuotaClient) -> bool:
        if self._free:
            self._free -= 1
            self._clients.served(client)
            return True
        now = time.monotonic()
        if self._asked_at is None or now - self._asked_at >= ASK_AGAIN_AFTER_S:
            self._asked_at = now
            self._link.notify(messages.LEASE, self._upstream)
        self._clients.reclaim_for(client)
        return False

    def granted(self) -> None:
        """The main process lends one place more."""
        self._asked_at = None
        self._held += 1
        self._free += 1
        self._offer()
        while self._free:  # whoever waited has gone
            self._free -= 1
            self._return()

    def release(self) -> None:
        self._return()
        self._offer()

    def wanted(self) -> None:
        """Somebody else waits for a place: close an idle session, or the next one that ends its work."""
        if self._owed < self._held:
            self._owed += 1
            self._wanted = not any(client.close_idle() for client in self._clients.most_sessions_first())

    def must_close(self, client: QuotaClient) -> bool:
        if self._clients.is_reclaimed(client):
            return True
        wanted, self._wanted = self._wanted, False
        return wanted

    def _offer(self) -> None:
        """Without a free place, who waits asks for one."""
        for client in self._clients.fewest_sessions_first():
            client.on_capacity()

    def _return(self) -> None:
        self._held -= 1
        self._owed = max(0, self._owed - 1)
        self._wanted = self._wanted and self._owed > 0
        self._link.notify(messages.RETURN, self._upstream)


class RemoteRateLimiter:
    """A worker's `Limiter`: the main process lends it in portions, each good for a tenth of a second. So a busy worker
    asks it twenty times a second, however many messages those are; what isn't used goes back."""

    def __init__(self, upstream: str, link: Link) -> None:
        self._upstream = upstream
        self._link = link
        self._lent = Lent(0, 0.0)
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._asking: asyncio.Task[None] | None = None

    async def pace(self, *, express: bool) -> None:  # noqa: ARG002
        """Raises LinkLost, or what the main process failed at."""
        if not self._waiting and self._take():
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask(), name=f"rate of {self._upstream}")
        await turn

    def _take(self) -> bool:
        tokens, until = self._lent
        if tokens < 1 or time.monotonic() >= until:
            return False
        self._lent = Lent(tokens - 1, until)
        return True

    async def _ask(self) -> None:
        """One at a time, as long as something waits."""
        try:
            while self._waiting:
                self._serve(await self._link.ask(messages.PACE, self._upstream))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is for those that wait
            waiting, self._waiting = self._waiting, deque()
            for turn in waiting:
                if not turn.done():
                    turn.set_exception(error)
        finally:
            self._asking = None

    def _serve(self, lent: Lent) -> None:
        """What waits goes on, also where the answer was late: it was asked for them."""
        tokens, until = lent
        while tokens and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                tokens -= 1
        self._lent = Lent(tokens, until)
        if tokens:
            # uvloop makes no timer, but a handle without `when`, of what is nearer than half a millisecond.
            asyncio.get_running_loop().call_later(max(0.001, until - time.monotonic()), self._lapse, until)

    def _lapse(self, until: float) -> None:
        tokens = self._lent.tokens
        if tokens and self._lent.until == until:
            self._lent = Lent(0, 0.0)
            self._link.notify(messages.UNUSED, (self._upstream, tokens))


class WorkerQuota:
    """A worker's sessions at one upstream, as the main process's quota sees them (QuotaClient)."""

    express = False
    reserved = 0

    def __init__(self, quota: Quota, tell: Callable[[str], None]) -> None:
        """`tell`: sends `granted` or `wanted` to the worker."""
        self._quota = quota
        self._tell = tell
        self._held = 0
        self._asked = False
        self._called = False
        """one was asked back that hasn't come"""
        quota.join(self)

    @property
    def session_count(self) -> int:
        return self._held

    def lease(self) -> None:
        """The worker asks for one place more."""
        self._asked = True
        self.on_capacity()

    def returned(self) -> None:
        """The worker gave one back."""
        self._called = False
        if self._held:
            self._held -= 1
            self._quota.release()

    def close_idle(self) -> bool:
        """Ask for one back; it comes when it comes."""
        if self._held and not self._called:
            self._called = True
            self._tell(messages.WANTED)
        return False

    def on_capacity(self) -> None:
        if self._asked and self._quota.acquire(self):
            self._asked = False
            self._held += 1
            self._tell(messages.GRANTED)

    def gone(self) -> None:
        """The worker died, and its sessions with it."""
        self._asked = False
        self._quota.leave(self)
        while self._held:
            self._held -= 1
            self._quota.release()
