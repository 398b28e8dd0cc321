"""One view of a relay's several store files: the main one for codes, and one for each worker's bulk mail."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from relay.store.base import DeliveryRow, LaneCount, Selection, State
from relay.store.sqlite import open_reader
from relay.store.sqlite_read import Reader

Json = Mapping[str, object]


class Reading(Protocol):
    """The half of `Store` that changes nothing."""

    async def get(self, message_id: str) -> Json | None: ...

    async def search(self, selection: Selection) -> Sequence[Json]: ...

    async def waiting(self, selection: Selection) -> Sequence[Json]: ...

    async def counts(self) -> Sequence[LaneCount]: ...

    async def deliveries(self, since: float) -> Sequence[DeliveryRow]: ...


T = TypeVar("T")


class Several:
    """`Reading` over all of them; `files` (the main one first) is asked each time, so that one may come later.

    A message that moves is taken in there before it is forgotten here, in two commits a few milliseconds apart. The
    main file is read before the others, so what goes to a worker is in one of the two, or in both: listings show it
    once, `counts` may count it twice in that moment. A worker's bounce, which goes the other way, may be in neither
    reading of a listing or a count; it is there at the next. A process has one message at a time under way so.
    """

    def __init__(self, files: Callable[[], Sequence[Reading]]) -> None:
        self._files = files

    async def get(self, message_id: str) -> Json | None:
        main, *others = self._files()
        # The main file once more: a worker's bounce may have come there meanwhile.
        for files in ((main,), others, (main,)):
            found = await asyncio.gather(*(file.get(message_id) for file in files))
            for message in found:
                if message is not None:
                    return message
        return None

    async def search(self, selection: Selection) -> Sequence[Json]:
        lists = await self._each(lambda file: file.search(selection))
        messages = {str(message["id"]): message for messages in lists for message in messages}
        return [messages[message_id] for message_id in sorted(messages, reverse=True)[: selection.limit]]

    async def waiting(self, selection: Selection) -> Sequence[Json]:
        lists = await self._each(lambda file: file.waiting(selection))
        messages = {str(message["id"]): message for messages in lists for message in messages}
        return sorted(messages.values(), key=_due)[: selection.limit]

    async def counts(self) -> Sequence[LaneCount]:
        lists = await self._each(lambda file: file.counts())
        sums: dict[tuple[str, State], LaneCount] = {}
        for row in (row for rows in lists for row in rows):
            before = sums.get((row.lane, row.state))
            if before is not None:
                oldest = [at for at in (before.oldest_at, row.oldest_at) if at is not None]
                row = LaneCount(row.lane, row.state, before.recipients + row.recipients, min(oldest, default=None))
            sums[row.lane, row.state] = row
        return list(sums.values())

    async def deliveries(self, since: float) -> Sequence[DeliveryRow]:
        lists = await self._each(lambda file: file.deliveries(since))
        return [row for rows in lists for row in rows]

    async def _each(self, ask: Callable[[Reading], Awaitable[T]]) -> Sequence[T]:
        main, *others = self._files()
        return [await ask(main), *await asyncio.gather(*map(ask, others))]


def _due(message: Json) -> tuple[str, str]:
    recipients = cast(Sequence[Mapping[str, Any]], message["recipients"])
    return min((str(one["next_at"]) for one in recipients if one.get("next_at")), default="~"), str(message["id"])


def shard(store: Path, number: int) -> Path:
    """The file of the worker of that number (from 1), beside the main store."""
    return store.with_name(f"{store.stem}-bulk{number}{store.suffix}")


def shards(store: Path) -> Sequence[Path]:
    """The workers' files that are there, in order."""
    found: list[Path] = []
    while shard(store, len(found) + 1).exists():
        found.append(shard(store, len(found) + 1))
    return found


async def open_readers(store: Path) -> Sequence[Reader]:
    """Readers of the main file and of every worker's. Raises StoreError, StoreDamaged."""
    readers: list[Reader] = []
    try:
        for path in (store, *shards(store)):
            readers.append(await open_reader(path))  # noqa: PERF401 - those that were opened are closed on an error
    except BaseException:
        for reader in readers:
            await reader.close()
        raise
    return readers
