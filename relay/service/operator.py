"""An operator's actions in the running relay, as the HTTP service asks for them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from relay.delivery.engine import Engine
from relay.ipc import LinkLost
from relay.store.base import Log, StoreError
from relay.store.model import Action, Selection
from relay.workers.fleet import Workers
from relay.workers.transfer import Forwarder


class Operator:
    """The web's `Controller`: carries out an operator's actions in all store files."""

    def __init__(self, engine: Engine, workers: Workers, forwarder: Forwarder, log: Log) -> None:
        """`log`: of all store files."""
        self._log = log
        self._engine = engine
        self._workers = workers
        self._forwarder = forwarder

    async def act(self, action: Action, selection: Selection) -> Sequence[str]:
        """The ids of the messages that changed, with all parts of those that the selection names. Raises StoreError."""
        if selection.ids:  # the parts of a split message may be in several files
            selection = selection._replace(ids=tuple(await self._log.with_parts(selection.ids)))
        try:
            async with self._forwarder.still():
                ours, theirs = await asyncio.gather(
                    self._engine.delivery.act(action, selection), self._workers.act(action, selection)
                )
        except LinkLost as error:
            raise StoreError("a process for bulk mail does not answer; try again") from error
        return list(dict.fromkeys([*ours, *theirs]))  # a message that is being moved may be in two files
