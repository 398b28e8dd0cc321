"""Carries mail of other processes' lanes from this one's store to theirs: bounces, and what was put here while a
worker was away. Each is in a file at every moment: taken in there, durably, before it is forgotten here."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from relay.observe.maillog import MailLog
from relay.store.sqlite import SqliteStore
from relay.store.sqlite_move import Moved
from relay.supervise import Supervisor
from relay.workers.link import LinkLost

BATCH = 50
AGAIN_AFTER_S = 1.0


class Forwarder:
    """`wake` it when something may be there; `stop` it before the store closes."""

    def __init__(
        self, store: SqliteStore, lanes: Sequence[str], send: Callable[[Moved], Awaitable[None]], log: MailLog
    ) -> None:
        """`lanes`: this process's own, which stay. `send` returns when the message is durable in the other file."""
        self.lanes = tuple(lanes)
        self._store = store
        self._send = send
        self._log = log
        self._unreadable: set[str] = set()
        self._moving: str | None = None
        self._moved = asyncio.Event()
        self._due = asyncio.Event()
        self._task = Supervisor(log.task_ended).start("forward", self._run)

    def wake(self) -> None:
        self._due.set()

    async def moved(self, message_id: str) -> None:
        """Before that message is taken in: wait until it isn't just being moved away from here. It may come back so
        soon after a reload, and would be taken for the copy that is about to be forgotten."""
        while self._moving == message_id:
            await self._moved.wait()

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        self._due.set()  # what was there when it began, or when it failed, is looked for
        while True:
            await self._due.wait()
            self._due.clear()
            if not await self._all():
                await asyncio.sleep(AGAIN_AFTER_S)
                self._due.set()

    async def _all(self) -> bool:
        """Carry over everything that is there, each message once. False: some of it has to be tried again."""
        after, complete = "", True
        try:
            while ids := await self._store.foreign(self.lanes, limit=BATCH, after=after):
                for message_id in ids:
                    complete &= message_id in self._unreadable or await self._carry(message_id)
                after = ids[-1]
        except LinkLost:
            return False
        except Exception as error:  # noqa: BLE001 - whatever it is, the mail behind it waits for this task
            self._log.trouble("forward", error)
            return False
        return complete

    async def _carry(self, message_id: str) -> bool:
        """False: it is still here. What one message is in trouble with is no other's. Raises LinkLost."""
        self._moving = message_id
        try:
            moved = await self._store.export(message_id)
            if moved is None:
                # It ended meanwhile; or it can't be read, is held, and is looked at again by the next start.
                self._unreadable.add(message_id)
                return True
            await self._send(moved)
            await self._store.forget(message_id)
        except LinkLost:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            self._log.trouble("forward", error)
            return False
        finally:
            self._moving = None
            self._moved.set()
            self._moved = asyncio.Event()
        return True
