"""One view of a relay's several store files for the relay itself, whose work goes on meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from relay.store import merge
from relay.store.model import DeliveryRow, LaneCount, Selection
from relay.store.sqlite.reader import Reader
from relay.store.sqlite.store import open_reader

T = TypeVar("T")


class Reading(Protocol):
    """The half of `Store` that changes nothing."""

    async def get(self, message_id: str) -> Mapping[str, object] | None: ...

    async def search(self, selection: Selection) -> Sequence[Mapping[str, object]]: ...

    async def waiting(self, selection: Selection) -> Sequence[Mapping[str, object]]: ...

    async def counts(self) -> Sequence[LaneCount]: ...

    async def deliveries(self, since: float) -> Sequence[DeliveryRow]: ...


class Several:
    """`Reading` over all of them, put together as `several` has it; `files` (the main one first) is asked each time, so
    that one may come later."""

    def __init__(self, files: Callable[[], Sequence[Reading]]) -> None:
        self._files = files

    async def get(self, message_id: str) -> Mapping[str, object] | None:
        for files in merge.turns(self._files()):
            found = await asyncio.gather(*(file.get(message_id) for file in files))
            for message in found:
                if message is not None:
                    return message
        return None

    async def search(self, selection: Selection) -> Sequence[Mapping[str, object]]:
        return merge.newest(await self._each(lambda file: file.search(selection)), selection.limit)

    async def waiting(self, selection: Selection) -> Sequence[Mapping[str, object]]:
        return merge.earliest_due(await self._each(lambda file: file.waiting(selection)), selection.limit)

    async def counts(self) -> Sequence[LaneCount]:
        return merge.added(await self._each(lambda file: file.counts()))

    async def deliveries(self, since: float) -> Sequence[DeliveryRow]:
        return merge.joined(await self._each(lambda file: file.deliveries(since)))

    async def _each(self, ask: Callable[[Reading], Awaitable[T]]) -> Sequence[T]:
        main, *others = self._files()
        return [await ask(main), *await asyncio.gather(*map(ask, others))]


async def open_readers(store: Path) -> Sequence[Reader]:
    """Readers of the main file and of every worker's. Raises StoreError, StoreDamaged."""
    readers: list[Reader] = []
    try:
        for path in (store, *merge.shards(store)):
            readers.append(await open_reader(path))  # noqa: PERF401 - those that were opened are closed on an error
    except BaseException:
        for reader in readers:
            await reader.close()
        raise
    return readers
