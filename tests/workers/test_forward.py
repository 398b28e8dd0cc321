"""Forwarding messages between the stores of one relay."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from relay.observe.maillog import MailLog
from relay.observe.metrics import Metrics
from relay.observe.recent import Recent
from relay.store.model import TransferredMessage
from relay.store.sqlite.store import open_store
from relay.workers.transfer import Forwarder
from tests.store.build import EVERYTHING, NOW, exported, ids, message

WITHIN_S = 10.0


async def test_the_forwarder_goes_on_after_an_unexpected_error(tmp_path: Path) -> None:
    near = await open_store(tmp_path / "near.db", now=lambda: NOW)
    far = await open_store(tmp_path / "far.db", now=lambda: NOW)
    new = message(lane="bulk")
    await near.put(new, claimed=False)
    metrics, tries, there = Metrics(), 0, asyncio.Event()

    async def send(moved: TransferredMessage) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise TypeError("nothing that was thought of")
        await far.import_message(moved)
        there.set()

    forwarder = Forwarder(near, (), send, MailLog(metrics, Recent()))
    forwarder.start()
    try:
        async with asyncio.timeout(WITHIN_S):
            await there.wait()
    finally:
        await forwarder.stop()
        await near.close()
        await far.close()


@pytest.mark.parametrize("other_way", [False, True])
async def test_a_message_that_is_sent_back_at_once_is_not_lost(tmp_path: Path, other_way: bool) -> None:
    """After a reload its lane may be the other process's again, before this one has forgotten it."""
    near = await open_store(tmp_path / "near.db", now=lambda: NOW)
    far = await open_store(tmp_path / "far.db", now=lambda: NOW)
    new = message(lane="bulk")
    await near.put(new, claimed=False)
    if other_way:  # as a crash leaves it: in both files
        await far.import_message(await exported(near, new.id))
    backs: list[asyncio.Task[None]] = []
    taken = asyncio.Event()

    async def back() -> None:
        moved = await exported(far, new.id)
        taken.set()
        await forwarder.moved_away(moved.id)
        await near.import_message(moved)
        await far.delete_transferred(moved.id)

    async def send(moved: TransferredMessage) -> None:
        await far.import_message(moved)
        if not backs:
            forwarder.lanes = ("bulk",)
            backs.append(asyncio.create_task(back()))
            await taken.wait()

    forwarder = Forwarder(near, (), send, MailLog(Metrics(), Recent()))
    forwarder.start()
    try:
        async with asyncio.timeout(WITHIN_S):
            while not backs:
                await asyncio.sleep(0.01)
            await asyncio.gather(*backs)
            await forwarder.moved_away(new.id)
        assert ids(await near.search(EVERYTHING)) == [new.id]
        assert ids(await far.search(EVERYTHING)) == []
    finally:
        await forwarder.stop()
        await near.close()
        await far.close()
