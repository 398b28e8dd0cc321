"""A full disk, damage under way, and what must not be left behind in files and logs."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from relay.logfmt import quoted
from relay.store.base import StoreDamaged, StoreError, StoreFull
from relay.store.codec import Codec
from relay.store.model import Booking, Selection
from relay.store.sqlite import content, files, schema
from relay.store.sqlite.reader import Reader
from relay.store.sqlite.search import search_query
from relay.store.sqlite.store import SqliteStore, open_store
from tests.store.build import NOW, claim, message, on_writer, settled, states

T = TypeVar("T")
SECRET = b"secret-493871-code"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = await open_store(tmp_path / "relay.db", now=lambda: NOW)
    yield store
    await store.close()


async def run(store: SqliteStore, function: Callable[[sqlite3.Connection], T]) -> T:
    """On the writing connection."""
    return await on_writer(store, function)


async def pages(store: SqliteStore, more: int) -> None:
    """Let the file grow by so many pages and no further."""

    def limit(connection: sqlite3.Connection) -> None:
        (count,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {count + more}")

    await run(store, limit)


async def test_a_full_disk_refuses_what_does_not_fit_and_nothing_else(store: SqliteStore) -> None:
    before = message()
    await store.put(before, claimed=True)
    await pages(store, 20)
    put = [message(content=os.urandom(size)) for size in (30_000, 200_000, 20_000, 900_000, 100)]
    outcomes = await asyncio.gather(*(store.put(new, claimed=False) for new in put), return_exceptions=True)
    refused = [isinstance(outcome, StoreFull) for outcome in outcomes]
    assert refused == [False, True, False, True, False]
    assert str(outcomes[1]).endswith("relay.db: the disk is full")
    written = [new for new, outcome in zip(put, outcomes, strict=True) if outcome is None]
    assert {queued.content for queued in await claim(store)} == {new.content for new in written}
    assert store.size() == (4, len(before.content) + sum(len(new.content) for new in written))
    await store.settle(settled(before.id))


async def test_a_store_recovers_by_itself_when_there_is_room_again(store: SqliteStore) -> None:
    await pages(store, 0)
    new = message(content=b"x" * 50_000)
    for _ in range(3):
        with pytest.raises(StoreFull):
            await store.put(new, claimed=True)
    assert await store.get(new.id) is None
    await pages(store, 100)
    await store.put(new, claimed=True)
    assert await states(store, new.id) == ["sending"]


async def test_a_large_message_that_did_not_fit_leaves_its_room_to_others(store: SqliteStore) -> None:
    await pages(store, 400)
    with pytest.raises(StoreFull):
        await store.put(message(content=os.urandom(3_000_000)), claimed=False)
    new = message(content=os.urandom(1_200_000))
    async with asyncio.timeout(5):
        while True:
            try:
                await store.put(new, claimed=False)
                break
            except StoreFull:
                await asyncio.sleep(0.01)
    assert [queued.content for queued in await claim(store)] == [new.content]


async def test_a_large_put_that_is_cancelled_leaves_nothing(store: SqliteStore) -> None:
    for turns in range(0, 30, 3):
        task = asyncio.create_task(store.put(message(content=os.urandom(2_000_000)), claimed=False))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await store.put(message(content=b"x" * 600_000), claimed=False)
    written = {queued.id for queued in await claim(store)}
    count, _ = store.size()
    assert count == len(written)
    bodies, owned = await _bodies(store)
    assert bodies == owned


async def _bodies(store: SqliteStore) -> tuple[int, int]:
    """The rows with contents, and how many of them messages own, once nothing is loose any more."""

    def read(connection: sqlite3.Connection) -> tuple[int, int, int]:
        found = connection.execute(
            "SELECT (SELECT count(*) FROM body), (SELECT total(parts) FROM message WHERE body IS NOT NULL),"
            " (SELECT count(*) FROM loose_body)"
        ).fetchone()
        return found[0], int(found[1]), found[2]

    async with asyncio.timeout(5):
        while True:
            bodies, owned, loose = await run(store, read)
            if not loose:
                return bodies, owned
            await asyncio.sleep(0.001)


DAMAGES = {
    "missing": ("DELETE FROM body WHERE id = 1", "held: its content is missing"),
    "shorter": (
        "UPDATE body SET content = x'00' WHERE id = 1",
        "held: its content is damaged: 1 bytes ",
    ),
    "no bytes": ("UPDATE body SET content = 7 WHERE id = 1", "held: its content is "),
    "envelope": ("UPDATE message SET deliver_by = 'soon' WHERE id = '{}'", "held: its rows can't be read"),
}


@pytest.mark.parametrize(("damage", "says"), DAMAGES.values(), ids=DAMAGES)
async def test_a_message_that_cannot_be_read_is_held_and_its_neighbours_go_on(
    store: SqliteStore, caplog: pytest.LogCaptureFixture, damage: str, says: str
) -> None:
    bad, *good = [message(content=bytes([48 + n]) * 1_000) for n in range(3)]
    for each in (bad, *good):
        await store.put(each, claimed=False)
    await run(store, lambda connection: connection.execute(damage.format(bad.id)))
    claimed = await store.claim("otp", NOW, messages=3, size_bytes=10_000)
    assert [each.id for each in claimed] == [each.id for each in good]
    assert await states(store, bad.id) == ["held"]
    view: Any = await store.get(bad.id)
    (note,) = view["notes"]
    assert note["text"].startswith(says)
    reason = quoted(note["text"].removeprefix("held: "))
    assert [record.getMessage() for record in caplog.records] == [f"event=unreadable id={bad.id} reason={reason}"]
    assert await store.next_due("otp") is None
    assert await store.act("drop", Selection(ids=(bad.id,)), NOW) == [bad.id]


@pytest.mark.parametrize(
    ("error", "state", "event"),
    [(StoreError("disk I/O error"), "queued", "read_failed"), (StoreDamaged("malformed"), "held", "unreadable")],
)
async def test_a_disk_that_fails_in_one_place_puts_off_that_message_only(
    store: SqliteStore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: StoreError,
    state: str,
    event: str,
) -> None:
    bad, *good = [message(content=bytes([48 + n]) * 1_000) for n in range(3)]
    for each in (bad, *good):
        await store.put(each, claimed=False)
    really = content.read

    def read(reader: Reader, message: Any, codec: Codec) -> bytes:
        if message.message_id == bad.id:
            raise error
        return really(reader, message, codec)

    def read_together(*_: object, **__: object) -> dict[int, object]:
        raise error

    monkeypatch.setattr(content, "read", read)
    monkeypatch.setattr(content, "read_together", read_together)
    ladder = Booking((5.0, 60.0, 3600.0))
    claimed = await store.claim("otp", NOW, messages=3, size_bytes=10_000, booking=ladder)
    assert [each.id for each in claimed] == [each.id for each in good]
    assert [record.getMessage() for record in caplog.records] == [f"event={event} id={bad.id} reason={quoted(error)}"]
    async with asyncio.timeout(5):
        while await states(store, bad.id) != [state]:
            await asyncio.sleep(0.001)
    assert await store.next_due("otp") == (None if state == "held" else NOW + 5)
    if state == "held":
        return
    # Later and later, until it can be read.
    await store.put(message(at=NOW + 6), claimed=False)
    assert len(await store.claim("otp", NOW + 6, messages=3, size_bytes=10_000, booking=ladder)) == 1
    async with asyncio.timeout(5):
        while (due_at := await store.next_due("otp")) is None:
            await asyncio.sleep(0.001)
    assert due_at == NOW + 66
    monkeypatch.undo()
    (found,) = await store.claim("otp", NOW + 66, messages=3, size_bytes=10_000, booking=ladder)
    assert (found.id, found.due[0].step, found.due[0].attempts) == (bad.id, 2, 0)


@pytest.mark.parametrize("size", [2_000, 30_000, 1_500_000])
async def test_the_content_of_a_finished_message_is_nowhere_in_the_closed_store(
    store: SqliteStore, tmp_path: Path, size: int
) -> None:
    filler = random.Random(1)
    content = b"".join(SECRET + filler.randbytes(200) for _ in range(size // 200))
    new, other = message(content=content), message(content=b"another")
    await store.put(new, claimed=True)
    await store.put(other, claimed=True)
    await store.settle(settled(new.id))
    await store.close()
    for path in tmp_path.iterdir():
        assert SECRET not in path.read_bytes()
    assert b"another" in (tmp_path / "relay.db").read_bytes()


async def test_no_content_is_logged_at_any_level(store: SqliteStore, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    new = message(content=SECRET)
    await store.put(new, claimed=False)
    with pytest.raises(StoreError):
        await store.put(message(id=new.id, content=SECRET), claimed=True)
    await claim(store)
    await store.settle(settled(new.id))
    assert SECRET.decode() not in caplog.text


async def test_the_log_is_moved_into_the_file_while_running(store: SqliteStore, tmp_path: Path) -> None:
    for _ in range(8):
        put = [message(content=os.urandom(2_000)) for _ in range(400)]
        await asyncio.gather(*(store.put(new, claimed=True) for new in put))
        await asyncio.gather(*(store.settle(settled(new.id)) for new in put))
    assert (tmp_path / "relay.db").stat().st_size > 200_000
    assert (tmp_path / "relay.db-wal").stat().st_size < 40_000_000


async def test_every_commit_is_on_the_disk_and_deleted_content_is_overwritten(store: SqliteStore) -> None:
    def settings(connection: sqlite3.Connection) -> list[int]:
        query = connection.execute
        return [query(f"PRAGMA {name}").fetchone()[0] for name in ("synchronous", "secure_delete")]

    assert await run(store, settings) == [2, 1]


PLANS = [
    (Selection(to="user@example.net"), "recipient_address (<expr>=?)"),
    (Selection(to="user@example.net", since=1, lane="otp"), "recipient_address (<expr>=? AND accepted_at>?)"),
    (Selection(to="user@example.net", state="bounced"), "recipient_address (<expr>=?)"),
    (Selection(to="user@example.net", state="sent"), "recipient_address (<expr>=?)"),
    (Selection(lane="otp"), "message_lane (lane=?)"),
    (Selection(since=1), "message_accepted (accepted_at>?)"),
    (Selection(), "message_accepted"),
    (Selection(lane="otp", since=1, until=2), "message_lane (lane=? AND accepted_at>? AND accepted_at<?)"),
    (Selection(state="sent"), "message_accepted"),
    (Selection(state="bounced"), "recipient_failed (state=?)"),
    (Selection(state="expired", since=1), "recipient_failed (state=? AND accepted_at>?)"),
    (Selection(state="deferred"), "recipient_open (open=?)"),
]


@pytest.mark.parametrize(("selection", "index"), PLANS)
async def test_a_search_walks_an_index_newest_first(tmp_path: Path, selection: Selection, index: str) -> None:
    schema.prepare(tmp_path / "relay.db")
    connection = files.connect_reader(tmp_path / "relay.db")
    sql, values = search_query(selection)
    plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
    connection.close()
    assert plan[0].endswith(f" INDEX {index}")
    if selection.state != "deferred":  # few enough to be sorted
        assert not any("ORDER BY" in step for step in plan)
