"""The publisher: posts events to the receivers of the configuration, each by a task of its own.

A receiver that is slow or down delays no other one. What waits is in the outbox, not in memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from relay.clock import Clock
from relay.feedback import delivery_log
from relay.feedback.receiver import Receiver
from relay.feedback.receiver_task import FINISH_WITHIN_S, OF_A_STATEMENT, Count, ReceiverTask, Status
from relay.feedback.retry import KEEP_TRYING_S
from relay.store.sqlite.events_file import EventsFile
from relay.store.sqlite.events_outbox import Backlog
from relay.supervise import Supervisor

REMOVED_EVERY_S = 3600.0
"""how often posts to receivers that were removed are looked through"""

_NONE = Backlog(0, 0)


class Publisher:
    """`apply` the receivers at the start and at each reload, `wake` it for new posts in the outbox, `stop` it."""

    def __init__(self, events: EventsFile, clock: Clock, count: Count, supervisor: Supervisor) -> None:
        """`clock`: the one whose `now` the events file has. `count`: called with `delivered`, `failed` or `dead`."""
        self._outbox = events.outbox
        self._clock = clock
        self._count = count
        self._supervisor = supervisor
        self._running: dict[str, tuple[ReceiverTask, asyncio.Task[None]]] = {}
        """by the receiver's key"""
        self._keys: frozenset[str] = frozenset()
        """of the receivers in the configuration"""
        self._removed: asyncio.Task[None] | None = None

    async def apply(self, receivers: Sequence[Receiver]) -> None:
        """Post to these receivers from now on. Posts to removed ones stay in the outbox until they are given up. Raises
        StoreError."""
        wanted = {receiver.key: receiver for receiver in receivers}
        self._keys = frozenset(wanted)
        await self._outbox.name({key: receiver.host for key, receiver in wanted.items()})
        ending = [
            key
            for key, (running, _) in self._running.items()
            # The content of its `ca_file` may be another one.
            if wanted.get(key) != running.receiver or running.receiver.ca_file is not None
        ]
        await asyncio.gather(*(self._end(key) for key in ending))
        for position, (key, receiver) in enumerate(wanted.items()):
            place = f"events[{position}]"
            if key in self._running:
                self._running[key][0].place = place
            else:
                one = ReceiverTask(receiver, place, self._outbox, self._clock, self._count)
                self._running[key] = one, self._supervisor.run_until_done(f"receiver {receiver.host}", one.run)
        if self._removed is None:
            self._removed = self._supervisor.run_forever("removed_receivers", self._give_up_removed)

    def wake(self) -> None:
        """The outbox has new posts. It is cheap, and many calls cost little more than one."""
        for one, _ in self._running.values():
            one.wake()

    async def stop(self) -> None:
        """End all tasks. Posts under way have a short time to end; what isn't answered by then is posted again."""
        if self._removed is not None:
            self._removed.cancel()
            await asyncio.gather(self._removed, return_exceptions=True)
            self._removed = None
        await asyncio.gather(*(self._end(key) for key in list(self._running)))

    async def status(self) -> Sequence[Status]:
        """How each receiver does. Raises StoreError."""
        backlogs = await self._outbox.backlogs()
        return [
            Status(
                one.receiver.host,
                *backlogs.get(key, _NONE),
                one.health.last_result,
                one.health.failing_since,
                one.place,
            )
            for key, (one, _) in self._running.items()
        ]

    async def backlog(self) -> tuple[int, float]:
        """How many posts wait for receivers of the configuration, and the age of the oldest in seconds. Raises
        StoreError."""
        waiting, oldest_at = await self._outbox.waiting(self._keys)
        return waiting, 0.0 if oldest_at is None else max(0.0, self._clock.now() - oldest_at)

    async def retry_dead(self) -> int:
        """Let all posts that were given up begin anew; how many. Raises StoreError."""
        restarted = 0
        while (some := await self._outbox.retry_dead(OF_A_STATEMENT)) > 0:
            restarted += some
            self.wake()
        return restarted

    async def _end(self, key: str) -> None:
        one, task = self._running.pop(key)
        one.stop()
        await asyncio.wait([task], timeout=FINISH_WITHIN_S)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def _give_up_removed(self) -> None:
        while True:
            before = self._clock.now() - KEEP_TRYING_S
            given_up = await self._outbox.give_up_removed(self._keys, before, OF_A_STATEMENT)
            if given_up:
                delivery_log.given_up_unsent(None, None, given_up)
                for _ in range(given_up):
                    self._count("dead")
            if given_up < OF_A_STATEMENT:
                await asyncio.sleep(REMOVED_EVERY_S)
