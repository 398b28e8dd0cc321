"""Sharing an upstream's sessions and rate with workers.

The main process owns both. It tells each worker its share of the sessions, and changes it as needs change; within its
share a worker opens sessions without asking. Express lanes are in the main process, where the quota is: a code never
waits for a worker. The rate is lent in portions, because a share of a low rate can't be kept exactly by each process.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from relay.ipc import Link
from relay.upstream.fair import TURN_S, QuotaClient
from relay.upstream.quota import SessionQuota
from relay.upstream.rate import Lent
from relay.workers import messages

UNMET_REVIEWS = 2
"""a pool that waits for a session tries again about as often as the share is reviewed"""


class Share(NamedTuple):
    """Main process to worker: the most sessions that it may have at an upstream."""

    number: int
    """of this share; the next has the next number"""
    limit: int


class Need(NamedTuple):
    """Worker to main process: what it does with its share."""

    number: int
    """of the share that it keeps to"""
    limit: int
    """the share, less what the worker gave up by itself"""
    open: int
    """sessions open or opening; more than `limit` for as long as sessions above it are busy"""
    wanted: int
    """sessions that it could use now"""


class SharedQuota(SessionQuota):
    """A worker's session quota. Its limit is the share that the main process sets."""

    def __init__(self, report: Callable[[Need], None], turn_s: float = TURN_S) -> None:
        """`report` sends a need to the main process."""
        super().__init__(0, turn_s)
        self._report = report
        self._number = 0
        self._unmet = 0
        """for so many reviews more, a client that didn't get a session counts as waiting"""
        self._reported = Need(0, 0, 0, 0)

    def acquire(self, client: QuotaClient, *, ahead: bool = False) -> bool:
        acquired = super().acquire(client, ahead=ahead)
        if not acquired:
            self._unmet = UNMET_REVIEWS
            self._send()
        return acquired

    def release(self) -> None:
        super().release()
        if self.open >= self.limit:  # the session was above the share: the main process waits for it
            self._send()

    def receive(self, share: Share) -> None:
        """The main process sets another share."""
        self._number = share.number
        self._unmet = 0
        self.resize(share.limit)
        self._send()

    def review(self) -> None:
        """Give up what isn't used; called regularly."""
        self._unmet = max(0, self._unmet - 1)
        if not self._unmet:
            self.limit = min(self.limit, self.open)
        self._send()

    def _send(self) -> None:
        need = Need(self._number, self.limit, self.open, max(self.limit, self.open) + (self._unmet > 0))
        if need != self._reported:
            self._reported = need
            self._report(need)


class WorkerQuota:
    """A worker's share of an upstream's sessions, in the main process: a client of the upstream's quota."""

    express = False
    reserved = 0

    def __init__(self, quota: SessionQuota, send: Callable[[Share], None]) -> None:
        """`send` sends a share to the worker."""
        self._quota = quota
        self._send = send
        self._held = 0
        """sessions that the worker has, or may open before it hears otherwise; acquired from `quota`"""
        self._share = Share(0, 0)
        self._wanted = 0
        quota.join(self)

    @property
    def session_count(self) -> int:
        return self._held

    def receive(self, need: Need) -> None:
        """The worker reports its need."""
        self._wanted = need.wanted
        if need.number == self._share.number:  # else it doesn't know its latest share yet
            self._share = Share(need.number, need.limit)
            self._release(down_to=max(need.limit, need.open))
        self.on_capacity()

    def on_capacity(self) -> None:
        """Raise the share, as far as the worker needs more and the quota has it."""
        raised = 0
        while self._held < self._wanted and self._quota.acquire(self):
            self._held += 1
            raised += 1
        if raised:
            self._set(self._share.limit + raised)

    def close_idle(self) -> bool:
        """Lower the share by one session. It is released when the worker has closed it."""
        if self._held and self._share.limit == self._held:
            self._set(self._share.limit - 1)
        return False

    def gone(self) -> None:
        """The worker died, and its sessions with it."""
        self._wanted = 0
        self._quota.leave(self)
        self._release(down_to=0)

    def _set(self, limit: int) -> None:
        self._share = Share(self._share.number + 1, limit)
        self._send(self._share)

    def _release(self, down_to: int) -> None:
        released = max(0, self._held - down_to)
        self._held -= released
        for _ in range(released):
            self._quota.release()  # which may call `on_capacity` at once


class RemoteRateLimiter:
    """A worker's `Limiter`: asks the main process for a portion of the rate at most about twenty times a second,
    however many messages it sends. Unused tokens go back."""

    def __init__(self, upstream: str, link: Link) -> None:
        """`upstream`: the key of its limits, see `WorkerConfig.limits`."""
        self._upstream = upstream
        self._link = link
        self._lent = Lent(0, 0.0)
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._asking: asyncio.Task[None] | None = None

    async def pace(self, *, express: bool) -> None:  # noqa: ARG002
        """Raises LinkLost, or what failed in the main process."""
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
        """Ask for one portion after the other while messages wait."""
        try:
            while self._waiting:
                self._serve(await self._link.ask(messages.LEND_RATE, self._upstream))
        except Exception as error:  # noqa: BLE001 - those that wait raise it
            waiting, self._waiting = self._waiting, deque()
            for turn in waiting:
                if not turn.done():
                    turn.set_exception(error)
        finally:
            self._asking = None

    def _serve(self, lent: Lent) -> None:
        """What waits goes on, also where the reply was late: the tokens were asked for it."""
        tokens, until = lent
        while tokens and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                tokens -= 1
        self._lent = Lent(tokens, until)
        if tokens:
            # At least a millisecond: uvloop's handle for less than half a millisecond lacks `when`.
            asyncio.get_running_loop().call_later(max(0.001, until - time.monotonic()), self._expire, until)

    def _expire(self, until: float) -> None:
        tokens = self._lent.tokens
        if tokens and self._lent.until == until:
            self._lent = Lent(0, 0.0)
            self._link.notify(messages.RATE_UNUSED, (self._upstream, tokens))
