"""Forwards mail for lanes of other processes from this process's store to theirs: bounces, and what was stored here
while a worker was away. A message is durable in the other store before it is deleted in this one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from relay.ipc import LinkLost
from relay.observe.maillog import MailLog
from relay.store.base import StoreError, Transfer, Unreadable
from relay.store.model import TransferredMessage
from relay.supervise import Supervisor

BATCH = 50
RETRY_AFTER_S = 1.0
MAX_FAILURES = 10
"""a pass ends after so many messages that could not be moved: the other process is gone, or its disk is full"""


class MovesHeld(StoreError):
    """An operator's action is under way: the message moves after it."""

    def __init__(self, text: str = "an operator's action is under way; the message moves after it") -> None:
        super().__init__(text)


class Forwarder:
    """Moves messages from `start` to `stop`; `wake` it when there may be something to move."""

    def __init__(
        self,
        store: Transfer,
        lanes: Sequence[str],
        send: Callable[[TransferredMessage], Awaitable[None]],
        log: MailLog,
    ) -> None:
        """`lanes`: of this process; their mail stays. `send` returns when the message is durable in the other store."""
        self.lanes = tuple(lanes)
        self._store = store
        self._send = send
        self._log = log
        self._moving: str | None = None
        self._changed = asyncio.Condition()
        """notified when `_moving`, `_arriving` or `_holds` changes"""
        self._arriving = 0
        """messages that are being imported"""
        self._holds = 0
        self._after = ""
        """the next pass begins after this id"""
        self._due = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Move messages from now on."""
        self._task = Supervisor(self._log.task_ended).run_forever("forward", self._run)

    def wake(self) -> None:
        self._due.set()

    async def import_message(self, moved: TransferredMessage) -> None:
        """Store a message that another process sends. Raises MovesHeld, StoreError."""
        if self._holds:
            raise MovesHeld
        self._arriving += 1
        try:
            await self.moved_away(moved.id)
            await self._store.import_message(moved)
        finally:
            self._arriving -= 1
            await self._notify()

    async def moved_away(self, message_id: str) -> None:
        """Wait until that message isn't being moved away. After a reload it may come back at once; it must not be taken
        for the copy that is about to be deleted."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._moving != message_id)

    @asynccontextmanager
    async def still(self) -> AsyncIterator[None]:
        """No message moves to or from this store inside the block, so that an operator's action finds each message in
        some store, and no copy from before the action is written after it."""
        self._holds += 1
        try:
            async with self._changed:
                await self._changed.wait_for(lambda: self._moving is None and not self._arriving)
            yield
        finally:
            self._holds -= 1
            await self._notify()

    async def stop(self) -> None:
        """Before the store closes."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        self._due.set()  # at the start, and after a failure, look at once
        while True:
            await self._due.wait()
            self._due.clear()
            try:
                again = await self._pass()
            except Exception as error:  # noqa: BLE001 - what waits must be tried again after any failure
                self._log.trouble("forward", error)
                again = True
            if again:
                await asyncio.sleep(RETRY_AFTER_S)
                self._due.set()

    async def _pass(self) -> bool:
        """Move all messages for other lanes. True: some are left that can't be moved now."""
        failures, left_out = 0, self._after != ""
        while True:
            # In this order: a message that a lane gives back in between is found by the second statement.
            in_hand = await self._store.sends_for_other_lanes(self.lanes)
            ids = await self._store.messages_for_other_lanes(self.lanes, after=self._after, limit=BATCH)
            if not ids:
                break
            for message_id in ids:
                self._after = message_id
                failures += not await self._try_to_move(message_id)
                if failures >= MAX_FAILURES:
                    return True  # the next pass begins after it
        self._after = ""
        return left_out or failures > 0 or in_hand

    async def _try_to_move(self, message_id: str) -> bool:
        """Move one message. False: it could not be done now."""
        try:
            await self._move(message_id)
        except (LinkLost, MovesHeld):
            return False
        except Unreadable as error:
            await self._store.hold_unreadable(message_id, str(error))  # so that an operator finds it; it is logged
        except Exception as error:  # noqa: BLE001 - raised here or by the other process; the other messages move on
            self._log.trouble("forward", error)
            return False
        return True

    async def _move(self, message_id: str) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: not self._holds)
            self._moving = message_id
        try:
            moved = await self._store.export_message(message_id)
            if moved is not None:  # else it ended meanwhile
                await self._send(moved)
                await self._store.delete_transferred(message_id)
        finally:
            self._moving = None
            await self._notify()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()
