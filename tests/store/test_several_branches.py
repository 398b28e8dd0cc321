"""A relay's several files, read and copied as one."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from relay.store import maintenance
from relay.store.base import StoreDamaged, StoreError
from relay.store.merge import shard
from relay.store.merged import Several, open_readers
from relay.store.model import LaneCount
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


async def test_what_waits_in_a_lane_is_counted_over_all_files_and_as_old_as_the_oldest(tmp_path: Path) -> None:
    async with two_files(tmp_path) as (main, bulk):
        await main.put(message(lane="bulk", at=NOW - 30), claimed=False)
        await bulk.put(message("a@example.net", "b@example.net", lane="bulk", at=NOW - 90), claimed=False)
        await bulk.put(message(lane="otp", at=NOW - 10), claimed=False)
        found = await Several(lambda: (main, bulk)).counts()
    assert sorted(found, key=lambda row: row.lane) == [
        LaneCount("bulk", "queued", 3, NOW - 90),
        LaneCount("otp", "queued", 1, NOW - 10),
    ]


async def test_a_worker_s_file_that_is_damaged_is_said_and_leaves_the_main_one_free(tmp_path: Path) -> None:
    main = await open_store(tmp_path / "relay.db", now=lambda: NOW)
    await main.close()
    shard(tmp_path / "relay.db", 1).write_bytes(b"not a store" * 1_000)
    with pytest.raises(StoreDamaged, match=r"relay-bulk1\.db"):
        await open_readers(tmp_path / "relay.db")
    again = await open_store(tmp_path / "relay.db", now=lambda: NOW)
    await again.close()


async def test_what_was_carried_to_another_file_is_forgotten_once_however_often_that_is_said(tmp_path: Path) -> None:
    async with two_files(tmp_path) as (main, bulk):
        new = message(lane="bulk")
        await main.put(new, claimed=False)
        await move(new.id, main, bulk)
        await main.delete_transferred(new.id)
        assert main.size() == (0, 0)
        assert bulk.size() == (1, len(new.content))


async def test_a_finished_message_that_is_forgotten_takes_nothing_off_what_waits(tmp_path: Path) -> None:
    async with two_files(tmp_path) as (main, _):
        waits, done = await in_state(main, "queued"), await in_state(main, "sent")
        before = main.size()
        await main.delete_transferred(done)
        assert main.size() == before
        assert ids(await main.search(EVERYTHING)) == [waits]


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
