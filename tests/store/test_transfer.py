"""Messages that move from one file of a relay to another: found meanwhile, and deleted once."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from relay.store.merge import MergedReader, shard
from relay.store.model import Selection
from relay.store.sqlite.reader import Reader
from relay.store.sqlite.store import SqliteStore, open_store
from tests.store.build import EVERYTHING, NOW, exported, ids, in_state, message

T = TypeVar("T")
Two = tuple[SqliteStore, SqliteStore]


@pytest.fixture
async def two_files(tmp_path: Path) -> AsyncIterator[Two]:
    """A main store and a worker's."""
    main = await open_store(tmp_path / "relay.db", now=lambda: NOW)
    bulk = await open_store(shard(tmp_path / "relay.db", 1), now=lambda: NOW)
    yield main, bulk
    await main.close()
    await bulk.close()


async def move(message_id: str, source: SqliteStore, target: SqliteStore) -> None:
    """As the forwarder does it."""
    await target.import_message(await exported(source, message_id))
    await source.delete_transferred(message_id)


class LateReader(Reader):
    """Answers only after the messages of its file have moved to the other one."""

    loop: asyncio.AbstractEventLoop
    files: Two

    async def _move_all(self) -> None:
        source, target = self.files
        for message_id in ids(await source.search(EVERYTHING)):
            await move(message_id, source, target)

    def ask(self, read: Callable[[sqlite3.Connection], T]) -> T:
        asyncio.run_coroutine_threadsafe(self._move_all(), self.loop).result(10)
        return super().ask(read)


@pytest.mark.parametrize("to_worker", [True, False], ids=["to a worker", "to the main process"])
async def test_a_message_that_moves_meanwhile_is_found(tmp_path: Path, two_files: Two, to_worker: bool) -> None:
    main, bulk = two_files
    new = message(lane="bulk")
    source, target = (main, bulk) if to_worker else (bulk, main)
    await source.put(new, claimed=False)
    paths = tmp_path / "relay.db", shard(tmp_path / "relay.db", 1)
    readers = [(LateReader if to_worker == (number == 0) else Reader).open(path) for number, path in enumerate(paths)]
    for reader in readers:
        if isinstance(reader, LateReader):
            reader.loop, reader.files = asyncio.get_running_loop(), (source, target)
    merged = MergedReader(readers[0], readers[1:])
    assert (await asyncio.to_thread(merged.get, new.id) or {}).get("id") == new.id
    assert await asyncio.to_thread(merged.get, "01JD0000000000000000000000") is None
    if to_worker:
        await move(new.id, target, source)
        assert ids(await asyncio.to_thread(merged.search, Selection(limit=5))) == [new.id]
        await move(new.id, target, source)
        assert ids(await asyncio.to_thread(merged.waiting, Selection(limit=5))) == [new.id]
        await move(new.id, target, source)
        assert [row.recipients for row in await asyncio.to_thread(merged.counts)] == [1]
    merged.close()


async def test_a_message_that_moved_is_deleted_once_however_often_that_is_asked(
    two_files: Two,
) -> None:
    main, bulk = two_files
    new = message(lane="bulk")
    await main.put(new, claimed=False)
    await move(new.id, main, bulk)
    await main.delete_transferred(new.id)
    assert main.size() == (0, 0)
    assert bulk.size() == (1, len(new.content))


async def test_deleting_a_finished_message_takes_nothing_off_what_waits(
    two_files: Two,
) -> None:
    main, _ = two_files
    waits, done = await in_state(main, "queued"), await in_state(main, "sent")
    before = main.size()
    await main.delete_transferred(done)
    assert main.size() == before
    assert ids(await main.search(EVERYTHING)) == [waits]
