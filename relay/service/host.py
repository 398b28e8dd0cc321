"""What the main process does for its workers: reads their store files, and takes over their mail for other lanes."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

from relay.delivery.engine import Engine
from relay.policy.suppression import BadAddress
from relay.store.base import StoreError
from relay.store.merge import MergedReader
from relay.store.model import TransferredMessage
from relay.store.sqlite.log import EventLog, SqliteLog
from relay.store.sqlite.reader import Reader
from relay.store.sqlite.thread import WorkThread
from relay.store.timeline import TimeLines
from relay.upstream.access import Asked, Given, LocalAccess
from relay.workers.transfer import Forwarder

CLOSE_WITHIN_S = 5.0
"""at the end, how long a reader that is being opened is waited for"""


class WorkerHost:
    """The workers' `Host`."""

    def __init__(self, engine: Engine, access: LocalAccess, forwarder: Forwarder, store: Path) -> None:
        """`store`: the main process's file. Raises StoreError."""
        self._engine = engine
        self._access = access
        self._forwarder = forwarder
        self._reader = MergedReader(Reader.open(store), lines=TimeLines(store))
        self._opening: set[asyncio.Task[None]] = set()
        self._read: set[Path] = set()
        self.log = SqliteLog(self._reader, WorkThread("store log"))
        """what the files show, those of the workers too"""
        self.events = EventLog(self._reader, self.log)

    def worker_ready(self, store: Path) -> None:
        """Read the worker's file from now on, then forward what waits for the worker."""
        task = self._engine.supervisor.run_until_done("open_store", partial(self._worker_ready, store))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def import_message(self, moved: TransferredMessage) -> None:
        """Store a message of a worker that belongs to a lane of the main process."""
        await self._forwarder.import_message(moved)
        self._engine.delivery.wake_all()

    def bad_address(self, bad: BadAddress) -> None:
        """An upstream of a worker refused an address for good."""
        self._engine.report_bad_address(bad)

    async def give_access(self, asked: Asked) -> Given:
        """Credentials for a worker's upstream."""
        return await self._access.answer(asked)

    async def read(self, store: Path) -> None:
        """Open a reader for a store file, once. A failure is logged."""
        if store in self._read:
            return
        try:
            self._reader.add(await asyncio.to_thread(Reader.open, store))
            self._read.add(store)
        except StoreError as error:
            self._engine.log.trouble("read", error)

    async def close(self) -> None:
        """Close all readers."""
        if self._opening:
            _, unopened = await asyncio.wait(self._opening, timeout=CLOSE_WITHIN_S)
            for task in unopened:
                task.cancel()
            await asyncio.gather(*unopened, return_exceptions=True)
        await self.log.close()

    async def _worker_ready(self, store: Path) -> None:
        # First the reader: a message must be visible in the file that it is forwarded to.
        await self.read(store)
        self._forwarder.wake()
