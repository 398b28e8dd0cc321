"""A backup of several files while messages move between them."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from relay.store import maintenance
from relay.store.base import StoreError
from relay.store.merge import shard
from relay.store.sqlite import maintenance as sqlite_maintenance
from relay.store.sqlite.store import SqliteStore, open_store
from tests.store.build import EVERYTHING, NOW, exported, ids, in_state, message, settled


@asynccontextmanager
async def two_files(folder: Path) -> AsyncIterator[tuple[SqliteStore, SqliteStore]]:
    """A main store and a worker's."""
    main = await open_store(folder / "relay.db", now=lambda: NOW)
    bulk = await open_store(shard(folder / "relay.db", 1), now=lambda: NOW)
    try:
        yield main, bulk
    finally:
        await main.close()
        await bulk.close()


async def move(message_id: str, source: SqliteStore, target: SqliteStore) -> None:
    """As the forwarder does it."""
    await target.import_message(await exported(source, message_id))
    await source.delete_transferred(message_id)


def at_begin(monkeypatch: pytest.MonkeyPatch, act: Callable[[int], None]) -> None:
    """Call `act` right before a connection of a backup begins its reading transaction, with the file's number: 0 is
    the main file, 1 the worker's."""
    really = sqlite_maintenance.connect_for_copy
    opened: list[sqlite3.Connection] = []

    def connect(path: Path) -> sqlite3.Connection:
        connection = really(path)
        number = len(opened)

        def traced(sql: str) -> None:
            if connection.in_transaction and sql.startswith("PRAGMA user_version"):
                act(number)

        connection.set_trace_callback(traced)
        opened.append(connection)
        return connection

    monkeypatch.setattr(sqlite_maintenance, "connect_for_copy", connect)


async def copied(tmp_path: Path) -> list[list[str]]:
    """The ids in each of the copies."""
    copies = [await open_store(path, now=lambda: NOW) for path in (tmp_path / "copy.db", tmp_path / "copy-bulk1.db")]
    found = [ids(await copy.search(EVERYTHING)) for copy in copies]
    for copy in copies:
        await copy.close()
    return found


@pytest.mark.parametrize("to_and_fro", [False, True])
async def test_a_message_that_moves_in_the_middle_of_a_backup_is_in_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to_and_fro: bool
) -> None:
    """From the worker's file, not yet looked at, to the main one, which was; that one may have left it before."""
    loop = asyncio.get_running_loop()
    async with two_files(tmp_path) as (main, bulk):
        new = message(lane="bulk")
        moved: list[int] = []
        await (main if to_and_fro else bulk).put(new, claimed=False)

        def act(number: int) -> None:
            if number in moved:
                return
            if number == 1:
                asyncio.run_coroutine_threadsafe(move(new.id, bulk, main), loop).result(10)
            elif to_and_fro:
                asyncio.run_coroutine_threadsafe(move(new.id, main, bulk), loop).result(10)
            moved.append(number)

        at_begin(monkeypatch, act)
        await asyncio.to_thread(maintenance.backup, tmp_path / "relay.db", tmp_path / "copy.db")
        assert moved == [0, 1]
    assert await copied(tmp_path) == [[new.id], []]


async def test_a_backup_that_never_finds_a_moment_says_so_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    async with two_files(tmp_path) as (main, bulk):
        new = message(lane="bulk")
        await main.put(new, claimed=False)
        moves: list[int] = []

        def act(number: int) -> None:
            there, away = (main, bulk) if number == 0 else (bulk, main)
            asyncio.run_coroutine_threadsafe(move(new.id, there, away), loop).result(10)
            moves.append(number)

        at_begin(monkeypatch, act)
        with pytest.raises(StoreError, match="too much moves"):
            await asyncio.to_thread(maintenance.backup, tmp_path / "relay.db", tmp_path / "copy.db")
        assert len(moves) > 2
        await main.settle(settled(await in_state(main, "sending")))  # nothing of the backup holds the store
    assert not list(tmp_path.glob("copy*"))
