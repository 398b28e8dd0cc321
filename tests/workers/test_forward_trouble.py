"""Forwarding: messages that can't be moved, and operator actions during a move."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from relay.ipc import LinkLost
from relay.observe.maillog import MailLog
from relay.observe.metrics import Metrics
from relay.observe.recent import Recent
from relay.store.base import StoreError
from relay.store.model import Action, Selection, State, TransferredMessage
from relay.store.sqlite.store import SqliteStore, open_store
from relay.workers import transfer
from relay.workers.transfer import MAX_FAILURES, Forwarder
from tests.store.build import EVERYTHING, NOW, claim, ids, message, on_writer, settled, states

WITHIN_S = 20.0
Send = Callable[[TransferredMessage], Awaitable[None]]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "RETRY_AFTER_S", 0.01)


@asynccontextmanager
async def two(tmp_path: Path) -> AsyncIterator[tuple[SqliteStore, SqliteStore]]:
    near = await open_store(tmp_path / "near.db", now=lambda: NOW)
    far = await open_store(tmp_path / "far.db", now=lambda: NOW)
    try:
        yield near, far
    finally:
        await near.close()
        await far.close()


async def filled(store: SqliteStore, count: int) -> list[str]:
    put = [message(lane="bulk", content=b"secret-493871") for _ in range(count)]
    for new in put:
        await store.put(new, claimed=False)
    return [new.id for new in put]


async def change(store: SqliteStore, sql: str, message_id: str) -> None:
    await on_writer(store, lambda connection: connection.execute(sql, (message_id,)))


async def until_moved(near: SqliteStore, far: SqliteStore, *wanted: str) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not set(wanted) <= set(ids(await far.search(EVERYTHING))) - set(ids(await near.search(EVERYTHING))):
            await asyncio.sleep(0.005)


@asynccontextmanager
async def forwarding(store: SqliteStore, send: Send) -> AsyncIterator[Forwarder]:
    forwarder = Forwarder(store, ("otp",), send, MailLog(Metrics(), Recent()))
    forwarder.start()
    try:
        yield forwarder
    finally:
        await forwarder.stop()


async def test_a_message_that_ended_before_its_move_is_skipped(tmp_path: Path) -> None:
    async with two(tmp_path) as (near, far):
        first, dropped, last = await filled(near, 3)

        async def send(moved: TransferredMessage) -> None:
            if moved.id == first:
                await near.act("drop", Selection(ids=(dropped,)), NOW)
            await far.import_message(moved)

        async with forwarding(near, send) as forwarder:
            await until_moved(near, far, first, last)
            [later] = await filled(near, 1)
            forwarder.wake()
            await until_moved(near, far, later)
        assert await states(near, dropped) == ["bounced"]
        assert await far.get(dropped) is None


UNREADABLE = {
    "content": "DELETE FROM body WHERE id = (SELECT body FROM message WHERE id = ?)",
    "row": "UPDATE message SET subject = CAST(x'ff' AS TEXT) WHERE id = ?",
    "number": "UPDATE message SET parts = 'x' WHERE id = ?",
}


@pytest.mark.parametrize("fault", UNREADABLE)
async def test_an_unreadable_message_is_held_and_its_neighbours_move(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    caplog.set_level(logging.ERROR)
    async with two(tmp_path) as (near, far):
        poison, *others = await filled(near, 4)
        await change(near, UNREADABLE[fault], poison)
        async with forwarding(near, far.import_message) as forwarder:
            for _ in range(3):
                await until_moved(near, far, *others)
                others = await filled(near, 1)
                forwarder.wake()
            await until_moved(near, far, *others)
        assert [row.state for row in await near.counts()] == ["held"]
        assert await far.get(poison) is None
        assert [each.getMessage().split(" reason=")[0] for each in caplog.records] == [f"event=unreadable id={poison}"]
        assert "secret" not in caplog.text


async def test_a_message_that_the_other_process_fails_on_delays_no_other_and_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with two(tmp_path) as (near, far):
        choked, *others = await filled(near, 3)
        well = False

        async def send(moved: TransferredMessage) -> None:
            if moved.id == choked and not well:
                raise RuntimeError("over there")
            await far.import_message(moved)

        async with forwarding(near, send):
            await until_moved(near, far, *others)
            well = True
            await until_moved(near, far, choked)
        assert ids(await near.search(EVERYTHING)) == []
        assert "where=forward error=RuntimeError" in caplog.text


async def test_mail_for_a_dead_process_delays_no_other_mail(tmp_path: Path) -> None:
    async with two(tmp_path) as (near, far):
        put = await filled(near, 4 * MAX_FAILURES)
        gone, others = put[: 3 * MAX_FAILURES], put[3 * MAX_FAILURES :]
        back = False
        exports = 0

        async def send(moved: TransferredMessage) -> None:
            nonlocal exports
            exports += 1
            if moved.id in gone and not back:
                raise LinkLost
            await far.import_message(moved)

        async with forwarding(near, send):
            await until_moved(near, far, *others)
            back = True
            await until_moved(near, far, *gone)
        assert ids(await near.search(EVERYTHING)) == []


async def test_forwarding_goes_on_after_a_store_failure(tmp_path: Path) -> None:
    async with two(tmp_path) as (near, far):
        really = near.messages_for_other_lanes
        fail: list[Exception] = [StoreError("no"), RuntimeError("no")]

        async def messages_for_other_lanes(lanes: Sequence[str], *, limit: int, after: str = "") -> Sequence[str]:
            if fail:
                raise fail.pop()
            return await really(lanes, limit=limit, after=after)

        near.messages_for_other_lanes = messages_for_other_lanes  # type: ignore[method-assign]
        put = await filled(near, 2)
        async with forwarding(near, far.import_message):
            await until_moved(near, far, *put)


async def test_a_message_that_a_lane_is_sending_moves_after_the_attempt(tmp_path: Path) -> None:
    """After a reload a lane is another process's, and what it had under way goes on here."""
    async with two(tmp_path) as (near, far):
        sent, deferred = await filled(near, 2)
        assert len(await claim(near, lane="bulk")) == 2
        [waiting] = await filled(near, 1)
        async with forwarding(near, far.import_message):
            await until_moved(near, far, waiting)
            assert await near.messages_for_other_lanes(("otp",), limit=9) == []
            await near.settle(settled(sent))
            await near.settle(settled(deferred, "deferred", next_at=NOW + 60))
            await until_moved(near, far, deferred)
        assert await states(near, sent) == ["sent"]
        assert await far.get(sent) is None


async def test_a_message_that_a_lane_gives_back_between_two_queries_is_not_missed(tmp_path: Path) -> None:
    async with two(tmp_path) as (near, far):
        [deferred] = await filled(near, 1)
        await claim(near, lane="bulk")
        really = near.messages_for_other_lanes

        async def messages_for_other_lanes(*args: Any, **options: Any) -> Sequence[str]:
            found = await really(*args, **options)
            if await states(near, deferred) == ["sending"]:
                await near.settle(settled(deferred, "deferred", next_at=NOW + 60))
            return found

        near.messages_for_other_lanes = messages_for_other_lanes  # type: ignore[method-assign]
        async with forwarding(near, far.import_message):
            await until_moved(near, far, deferred)


AFTER: dict[Action, State] = {"drop": "bounced", "hold": "held", "release": "queued", "retry": "queued"}


@pytest.mark.parametrize("moment", ["exported", "taken in", "answer lost"])
@pytest.mark.parametrize("to_worker", [True, False], ids=["to a worker", "to the main process"])
@pytest.mark.parametrize("action", AFTER)
async def test_an_operators_action_during_a_move_changes_the_message_in_either_store(
    tmp_path: Path, action: Action, to_worker: bool, moment: str
) -> None:
    """As the main process does it: its own moves stand still, then all files are acted on at once, each while its
    process's moves do."""
    acting: list[asyncio.Task[set[str]]] = []
    async with two(tmp_path) as (main, worker):
        source = main if to_worker else worker
        [moving] = await filled(source, 1)
        if action == "release":
            await source.act("hold", Selection(ids=(moving,)), NOW)

        async def act() -> set[str]:
            async with mains.still():
                both = await asyncio.gather(main.act(action, Selection(), NOW + 5), act_there())
            return {message_id for changed in both for message_id in changed}

        async def act_there() -> Sequence[str]:
            async with workers.still():
                return await worker.act(action, Selection(), NOW + 5)

        async def send(moved: TransferredMessage) -> None:
            target = workers if to_worker else mains
            if acting or moment != "exported":
                await target.import_message(moved)
            if not acting:
                acting.append(asyncio.create_task(act()))
                for _ in range(20):
                    await asyncio.sleep(0)
                if moment == "answer lost":
                    raise LinkLost
                if moment == "exported":
                    await target.import_message(moved)

        mains = Forwarder(main, () if to_worker else ("bulk",), send, MailLog(Metrics(), Recent()))
        mains.start()
        workers = Forwarder(worker, ("bulk",) if to_worker else (), send, MailLog(Metrics(), Recent()))
        workers.start()
        try:
            async with asyncio.timeout(WITHIN_S):
                while not acting:
                    await asyncio.sleep(0.005)
                assert await acting[0] == {moving}
                while await source.messages_for_other_lanes((), limit=1):
                    await asyncio.sleep(0.005)
        finally:
            await mains.stop()
            await workers.stop()
        found = [await store.get(moving) for store in (main, worker)]
        shown = [each["recipients"][0]["state"] for each in found if each is not None]  # type: ignore[index]
        assert set(shown) == {AFTER[action]}
        if moment != "answer lost":
            assert len(shown) == 1
