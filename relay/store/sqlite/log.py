"""`base.Log` over SQLite files: each question on a thread, so that none delays a commit, a claim or the event loop."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TypeVar

from relay.store.events import EventSelection
from relay.store.find import find_slices, ids_that_begin
from relay.store.merge import DeliveryTally, MergedReader, ReportedTally, Tally
from relay.store.model import DeliveryRow, LaneCount, ReportedRow, Selection
from relay.store.search_text import Found
from relay.store.sqlite.thread import WorkThread
from relay.store.view import Json

T = TypeVar("T")


class SqliteLog:
    """`base.Log` over a reader. It owns the reader and the thread from now on."""

    def __init__(self, reader: MergedReader, thread: WorkThread) -> None:
        self._reader = reader
        self._thread = thread

    async def close(self) -> None:
        await self._thread.close(self._reader.close)

    async def get(self, message_id: str) -> Mapping[str, object] | None:
        return await self.run(partial(self._reader.get, message_id))

    async def search(self, selection: Selection) -> Sequence[Mapping[str, object]]:
        return await self.run(partial(self._reader.search, selection))

    async def find(self, selection: Selection, within_s: float) -> Found:
        slices, ends = find_slices(self._reader, selection), time.monotonic() + within_s
        found: list[Mapping[str, object]] = []
        since: float | None = None
        # One at a time, so that other questions are answered in between.
        while (some := await self.run(partial(next, slices, None))) is not None:
            found += some.messages
            since = some.searched_since
            if len(found) >= selection.limit:
                return Found(found[: selection.limit])
            if time.monotonic() > ends:
                break
        return Found(found, since)

    async def ids_that_begin(self, begin: str, limit: int) -> Sequence[str]:
        return await self.run(partial(ids_that_begin, self._reader, begin, limit))

    async def waiting(self, selection: Selection) -> Sequence[Mapping[str, object]]:
        return await self.run(partial(self._reader.waiting, selection))

    async def with_parts(self, ids: Sequence[str]) -> Sequence[str]:
        return await self.run(partial(self._reader.with_parts, ids))

    async def counts(self) -> Sequence[LaneCount]:
        return await self.run(self._reader.counts)

    async def deliveries(self, since: float, objectives: Mapping[str, float] | None = None) -> Sequence[DeliveryRow]:
        slices, tally = self._reader.delivery_slices(since, objectives), DeliveryTally()
        # One at a time, so that other questions are answered in between.
        while await self.run(partial(_add_next, slices, tally)):
            pass
        return await self.run(tally.rows)

    async def reported(self, since: float) -> Sequence[ReportedRow]:
        slices, tally = self._reader.reported_slices(since), ReportedTally()
        while await self.run(partial(_add_next, slices, tally)):
            pass
        return await self.run(tally.rows)

    async def run(self, question: Callable[[], T]) -> T:
        """The answer to a question that blocks, on the reader's thread."""
        return await self._thread.run(question)


class EventLog:
    """The events of all files, on the same thread as the log's questions."""

    def __init__(self, reader: MergedReader, log: SqliteLog) -> None:
        self._reader = reader
        self._log = log

    async def search(self, selection: EventSelection) -> Sequence[Json]:
        """See `MergedReader.events`. Raises StoreError."""
        return await self._log.run(partial(self._reader.events, selection))

    async def follow(self) -> Callable[[], Awaitable[Sequence[Json]]]:
        """A function that gives what has happened since its last call, or since now. Raises StoreError; so does it."""
        news = await self._log.run(self._reader.news)
        return lambda: self._log.run(news.take)


def _add_next(slices: Iterator[Sequence[T]], tally: Tally[T]) -> bool:
    """False: there is no further slice."""
    rows = next(slices, None)
    if rows is None:
        return False
    tally.add(rows)
    return True
