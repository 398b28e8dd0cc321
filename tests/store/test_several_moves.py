"""A relay's several files, read while a message moves from one to another."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import pytest

from relay.store.merge import shard
from relay.store.merged import Several
from relay.store.model import DeliveryRow, LaneCount, Selection
from relay.store.sqlite.store import SqliteStore, open_store
from tests.store.build import NOW, exported, message


class LateRead:
    """A file that is read only when the message has moved."""

    def __init__(self, store: SqliteStore, move: Callable[[], Awaitable[None]]) -> None:
        self._store = store
        self._move = move

    async def get(self, message_id: str) -> Mapping[str, object] | None:
        await self._move()
        return await self._store.get(message_id)

    async def search(self, selection: Selection) -> Sequence[Mapping[str, object]]:
        await self._move()
        return await self._store.search(selection)

    async def waiting(self, selection: Selection) -> Sequence[Mapping[str, object]]:
        await self._move()
        return await self._store.waiting(selection)

    async def counts(self) -> Sequence[LaneCount]:
        await self._move()
        return await self._store.counts()

    async def deliveries(self, since: float) -> Sequence[DeliveryRow]:
        return await self._store.deliveries(since)


@pytest.mark.parametrize("to_worker", [True, False], ids=["to a worker", "to the main process"])
async def test_a_message_that_moves_meanwhile_is_found(tmp_path: Path, to_worker: bool) -> None:
    main = await open_store(tmp_path / "relay.db", now=lambda: NOW)
    bulk = await open_store(shard(tmp_path / "relay.db", 1), now=lambda: NOW)
    new = message(lane="bulk")
    source, target = (main, bulk) if to_worker else (bulk, main)
    await source.put(new, claimed=False)

    async def move() -> None:
        if await target.get(new.id) is None:
            await target.import_message(await exported(source, new.id))
            await source.delete_transferred(new.id)

    async def back() -> None:
        await source.import_message(await exported(target, new.id))
        await target.delete_transferred(new.id)

    late = LateRead(source, move)
    several = Several(lambda: (late, bulk) if to_worker else (main, late))
    try:
        assert (await several.get(new.id) or {}).get("id") == new.id
        assert await several.get("01JD0000000000000000000000") is None
        if to_worker:
            await back()
            assert [one["id"] for one in await several.search(Selection(limit=5))] == [new.id]
            await back()
            assert [one["id"] for one in await several.waiting(Selection(limit=5))] == [new.id]
            await back()
            assert [row.recipients for row in await several.counts()] == [1]
    finally:
        await main.close()
        await bulk.close()
