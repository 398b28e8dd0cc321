"""`log erase` in the running relay: an address is forgotten in all files."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from relay.delivery.engine import Engine
from relay.ipc import LinkLost
from relay.service.feedback import Feedback
from relay.service.suppressions import SuppressionKeeper
from relay.store.base import StoreError
from relay.workers.fleet import Workers
from relay.workers.transfer import Forwarder


class Eraser:
    """The web's `Eraser`."""

    def __init__(
        self,
        engine: Engine,
        workers: Workers,
        forwarder: Forwarder,
        suppressions: SuppressionKeeper,
        feedback: Feedback,
    ) -> None:
        self._engine = engine
        self._workers = workers
        self._forwarder = forwarder
        self._suppressions = suppressions
        self._feedback = feedback

    async def erase(self, address: str) -> Mapping[str, int]:
        """Messages first, then suppressions, then events. Raises StoreError; then it may be done in part, and is
        safe to ask for again."""
        try:
            async with self._forwarder.still():  # no message moves between two files meanwhile
                counts = await asyncio.gather(self._engine.store.erase_address(address), self._workers.erase(address))
        except LinkLost as error:
            raise StoreError("a process for bulk mail does not answer; try again") from error
        erased = {"messages": sum(counts), "suppressions": await self._suppressions.erase(address)}
        return {**erased, "events": await self._feedback.erase(address)}
