"""The write-ahead log: a checkpoint moves it into the file after the answers, and SQLite uses it again."""

from __future__ import annotations

import asyncio
import os
from contextlib import closing
from pathlib import Path

from relay.store.sqlite import files, schema
from relay.store.sqlite.store import SqliteStore, open_store
from tests.store.build import NOW, message, settled


async def opened(folder: Path) -> SqliteStore:
    return await open_store(folder / "relay.db", now=lambda: NOW)


async def round_trips(store: SqliteStore, messages: int = 600, size_bytes: int = 9_000) -> None:
    put = [message(content=os.urandom(size_bytes)) for _ in range(messages)]
    await asyncio.gather(*(store.put(new, claimed=True) for new in put))
    await asyncio.gather(*(store.settle(settled(new.id)) for new in put))


async def test_the_log_is_used_again_and_does_not_grow_with_the_mail(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    log = tmp_path / "relay.db-wal"
    await round_trips(store)
    for _ in range(4):
        await round_trips(store)
        assert 0 < log.stat().st_size < schema.LOG_LIMIT_BYTES
    assert (tmp_path / "relay.db").stat().st_size > 1_000_000
    await store.close()


async def test_a_long_reader_holds_up_no_commit_and_the_log_is_short_again_after_it(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    log = tmp_path / "relay.db-wal"
    await store.put(message(), claimed=True)
    with closing(files.connect_reader(tmp_path / "relay.db")) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM message").fetchall()
        while log.stat().st_size <= schema.LOG_LIMIT_BYTES:
            await round_trips(store, messages=20, size_bytes=400_000)
        reader.execute("COMMIT")
    await round_trips(store, messages=40, size_bytes=400_000)
    assert log.stat().st_size <= schema.LOG_LIMIT_BYTES
    await store.close()
