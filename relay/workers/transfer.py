"""Carries mail of other processes' lanes from this one's store to theirs: bounces, and what was put here while a
worker was away. Each is in a file at every moment: taken in there, durably, before it is forgotten here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from relay.observe.maillog import MailLog
from relay.store.base import StoreError, Unreadable
from relay.store.model import TransferredMessage
from relay.store.sqlite.store import SqliteStore
from relay.supervise import Supervisor
from relay.workers.link import LinkLost

BATCH = 50
AGAIN_AFTER_S = 1.0
FAILURES = 10
"""after so many messages that could not be moved, the others wait for the next time: their process is gone, or its
disk is full"""


class MovesHeld(StoreError):
    """An operator's action is under way: the message moves after it."""

    def __init__(self, text: str = "an operator's action is under way; the message moves after it") -> None:
        super().__init__(text)


class Forwarder:
    """`start` it; `wake` it when something may be there; `stop` it before the store closes."""

    def __init__(
        self,
        store: SqliteStore,
        lanes: Sequence[str],
        send: Callable[[TransferredMessage], Awaitable[None]],
        log: MailLog,
    ) -> None:
        """`lanes`: this process's own, which stay. `send` returns when the message is durable in the other file."""
        self.lanes = tuple(lanes)
        self._store = store
        self._send = send
        self._log = log
        self._moving: str | None = None
        self._changed = asyncio.Condition()
        """of what is moving, and of the holds"""
        self._arriving = 0
        """messages that are being taken in"""
        self._holds = 0
        self._after = ""
        """the id behind which the next pass goes on"""
        self._due = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Move messages from now on."""
        self._task = Supervisor(self._log.task_ended).start("forward", self._run)

    def wake(self) -> None:
        self._due.set()

    async def import_message(self, moved: TransferredMessage) -> None:
        """Write a message that another process sends. Raises MovesHeld, StoreError."""
        if self._holds:
            raise MovesHeld
        self._arriving += 1
        try:
            await self.moved(moved.id)
            await self._store.import_message(moved)
        finally:
            self._arriving -= 1
            await self._tell()

    async def moved(self, message_id: str) -> None:
        """Before that message is taken in: wait until it isn't just being moved away from here. It may come back so
        soon after a reload, and would be taken for the copy that is about to be forgotten."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._moving != message_id)

    @asynccontextmanager
    async def still(self) -> AsyncIterator[None]:
        """No message moves to or from this process's file meanwhile: an operator's action finds each of them in a
        file, and no copy that was read before it is written after it."""
        self._holds += 1
        try:
            async with self._changed:
                await self._changed.wait_for(lambda: self._moving is None and not self._arriving)
            yield
        finally:
            self._holds -= 1
            await self._tell()

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        self._due.set()  # what was there when it began, or when it failed, is looked for
        while True:
            await self._due.wait()
            self._due.clear()
            try:
                again = await self._pass()
            except Exception as error:  # noqa: BLE001 - whatever it is, what waits here must not wait for ever
                self._log.trouble("forward", error)
                again = True
            if again:
                await asyncio.sleep(AGAIN_AFTER_S)
                self._due.set()

    async def _pass(self) -> bool:
        """Move all that isn't this process's. True: something is left that can't be moved now."""
        failures, left_out = 0, self._after != ""
        while True:
            # Asked first: what a lane lets go of after this is found by the next line.
            in_hand = await self._store.sends_for_other_lanes(self.lanes)
            ids = await self._store.messages_for_other_lanes(self.lanes, after=self._after, limit=BATCH)
            if not ids:
                break
            for message_id in ids:
                self._after = message_id
                failures += not await self._try_to_move(message_id)
                if failures >= FAILURES:
                    return True  # the next pass begins behind it
        self._after = ""
        return left_out or failures > 0 or in_hand

    async def _try_to_move(self, message_id: str) -> bool:
        """Move one message. False: it could not be done now."""
        try:
            await self._move(message_id)
        except (LinkLost, MovesHeld):
            return False
        except Unreadable as error:
            await self._put_aside(message_id, error)
        except Exception as error:  # noqa: BLE001 - raised here or by the other process: the others move on
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
            await self._tell()

    async def _put_aside(self, message_id: str, error: Unreadable) -> None:
        """It can't leave: it is held here, where an operator finds it. Said once."""
        if await self._store.hold_unreadable(message_id, str(error)):
            self._log.trouble("forward", error)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()
