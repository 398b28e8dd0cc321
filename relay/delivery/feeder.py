"""Feeds a lane from the store: claims what is due, in small batches, while the lane has room for it.

A backlog of any size costs a lane one batch of memory and one timer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from relay.config.model import Lane as LaneConfig
from relay.delivery.services import STORE_RETRY_S, Services
from relay.delivery.settlement import EXPIRED_REPLY
from relay.store.base import StoreError
from relay.store.model import Booking, Queued

CLAIM_MESSAGES = 50
CLAIM_BYTES = 4_000_000


class Feeder:
    def __init__(
        self,
        lane: str,
        config: LaneConfig,
        services: Services,
        booking: Booking,
        *,
        has_room: Callable[[], bool],
        enqueue: Callable[[Queued], None],
    ) -> None:
        """`has_room` tells whether the lane takes another batch; `enqueue` gives it one claimed message."""
        self.store_may_have_some = True
        """False: the store has no open message of this lane but those in memory"""
        self._lane = lane
        self._config = config
        self._services = services
        self._booking = booking
        self._has_room = has_room
        self._enqueue = enqueue
        self._due_at: float | None = None
        """when something in the store is due (seconds since the epoch); None: nothing is"""
        self._due = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._claiming = asyncio.Lock()
        self._recovered_at = 0.0
        """when an upstream last recovered (time.monotonic)"""
        self._retrying: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._stopped = False

    def start(self) -> None:
        """Claim from now on; what is due already comes first."""
        self._task = self._services.supervisor.run_forever(f"feed {self._lane}", self._run)
        self.wake(0.0)

    async def stop(self) -> None:
        """Claim nothing more. What is being claimed is given back by the store."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
        running = [task for task in (self._task, self._retrying, self._ending) if task is not None]
        await asyncio.gather(*running, return_exceptions=True)

    async def claim_finished(self) -> None:
        """Wait until the batch that is being claimed, if any, is in the lane."""
        async with self._claiming:
            pass

    def wake(self, at: float) -> None:
        """Something in the store is due then (seconds since the epoch)."""
        self.store_may_have_some = True
        if self._due_at is None or at < self._due_at:
            self._due_at = at
            self.arm()

    def arm(self) -> None:
        """Set the timer to when the store has something due, if the lane has room for it."""
        if self._due_at is None or self._stopped or not self._has_room():
            return
        if self._timer is not None:
            self._timer.cancel()
        wait_s = max(0.0, self._due_at - self._services.clock.now())
        if wait_s == 0.0:
            self._due.set()
        else:
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._due.set)

    def on_upstream_recovered(self) -> None:
        """Codes that were deferred, and what an operator asked to be tried, are due now, not at the next step."""
        self._recovered_at = time.monotonic()
        self._retry_deferred_now()

    def on_deferred(self, picked_at: float) -> None:
        """A message was deferred that the lane began to send at `picked_at` (time.monotonic). An upstream that
        recovered meanwhile did not find it in the store."""
        if self._recovered_at > picked_at:
            self._retry_deferred_now()

    def _retry_deferred_now(self) -> None:
        if not self._stopped and self._retrying is None:
            self._retrying = asyncio.create_task(self._retry_deferred(), name=f"retry deferred {self._lane}")

    async def _retry_deferred(self) -> None:
        now = self._services.clock.now()
        try:
            if await self._services.store.retry_deferred(self._lane, now, only_urged=not self._config.express):
                self.wake(now)
        except Exception as error:  # noqa: BLE001 - the messages then wait for their step
            self._services.events.on_error("retry_now", error)
        finally:
            self._retrying = None

    async def _run(self) -> None:
        self.wake(self._services.clock.now())  # started again, it has lost what it was woken for
        while True:
            await self._due.wait()
            self._due.clear()
            try:
                async with self._claiming:
                    # The last batch may have filled the memory since this one was due.
                    if self._has_room():
                        await self._claim()
            except StoreError as error:
                self._services.events.on_error("claim", error)
                self._due_at = None
                self.wake(self._services.clock.now() + STORE_RETRY_S)

    async def _end_expired(self, now: float) -> None:
        try:
            for one in await self._services.store.end_expired(self._lane, now, EXPIRED_REPLY):
                self._services.events.on_expired(self._lane, one.message_id, one.recipients)
        except Exception as error:  # noqa: BLE001 - they are claimed like all others
            self._services.events.on_error("expire", error)

    async def _claim(self) -> None:
        store, now = self._services.store, self._services.clock.now()
        self._due_at = None
        claimed = await store.claim(
            self._lane, now, messages=CLAIM_MESSAGES, size_bytes=CLAIM_BYTES, booking=self._booking
        )
        for queued in claimed:
            self._enqueue(queued)
        if any(queued.expires_at <= now for queued in claimed):
            # More may have expired: what needs no DSN ends in the store, rather than message by message.
            self._ending = asyncio.create_task(self._end_expired(now), name=f"end expired {self._lane}")
            await asyncio.shield(self._ending)
        if len(claimed) == CLAIM_MESSAGES:
            self.wake(now)
            return
        next_due = await store.next_due(self._lane)
        if next_due is not None:
            self.wake(next_due)
        elif self._due_at is None:
            self.store_may_have_some = False
