"""Sends each accepted message to its lane: in this process, or in a bulk worker."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from relay.delivery.engine import Engine
from relay.intake.draft import Draft
from relay.intake.spool import Large
from relay.ipc import LinkLost
from relay.store.model import NewMessage
from relay.workers.fleet import Workers


class LanesAndWorkers:
    """Intake's `Destination`. While no worker is there, its mail is stored in the main store and forwarded later. So
    are the parts of a split message, always: only in one file can they be written in one transaction."""

    def __init__(self, engine: Engine, workers: Workers) -> None:
        self._engine = engine
        self._workers = workers
        self._large = asyncio.Semaphore(1)
        """Spooled contents are stored one at a time, so that little of them is in memory."""

    async def submit(self, message: NewMessage, final_dot: float, others: Sequence[NewMessage] = ()) -> None:
        """`Destination.submit`."""
        if others or self._engine.delivery.has(message.lane):
            await self._engine.delivery.submit(message, final_dot, others)
            return
        try:
            await self._workers.put(message, final_dot)
        except LinkLost:
            await self._engine.delivery.store_for_forwarding(message)

    async def submit_spooled(self, draft: Draft, content: Large) -> NewMessage:
        """`Destination.submit_spooled`. A worker reads the file itself; this process then sees only its head."""
        if not draft.others and not self._engine.delivery.has(draft.new.lane):
            with suppress(LinkLost):
                return await self._workers.put_large(draft, content)
        # The lost worker may have stored it. What is forwarded to it later is stored there once.
        async with self._large:
            message, pieces = await asyncio.to_thread(draft.from_file, content)
            others = [await asyncio.to_thread(one.from_file, content) for one in draft.of_others()]
            await self._engine.submit_large(message, pieces, draft.most_bytes(content), others)
        return message
