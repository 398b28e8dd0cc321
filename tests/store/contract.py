"""What every store must do. A test module of an implementation subclasses `StoreContract` and gives the fixture
`store`, an open and empty one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from relay.store.base import Store, StoreError
from relay.store.model import LaneCount
from tests.store.build import EVERYTHING, NOW, claim, in_state, message, settled, states
from tests.store.contract_log import LogContract
from tests.store.contract_parts import PartsContract
from tests.store.contract_queue import QueueContract


class CallerContract:
    """Callers that go away."""

    async def test_a_cancelled_put_is_written_queued_or_not_at_all_and_its_neighbours_are(self, store: Store) -> None:
        put = [message() for _ in range(40)]
        tasks = [asyncio.create_task(store.put(new, claimed=True)) for new in put]
        for turn, task in enumerate(tasks):
            if turn % 4 == 0:
                await asyncio.sleep(0)
                task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        written = {each.id for each, outcome in zip(put, outcomes, strict=True) if outcome is None}
        assert len(written) >= 30
        async with asyncio.timeout(5):
            while True:
                found: Any = await store.search(EVERYTHING)
                shown = {each["id"]: each["recipients"][0]["state"] for each in found}
                if all(state == "queued" for each, state in shown.items() if each not in written):
                    break
                await asyncio.sleep(0.001)
        assert {shown[each] for each in written} == {"sending"}

    async def test_a_cancelled_claim_gives_back_what_it_took(self, store: Store) -> None:
        new = message()
        await store.put(new, claimed=False)
        for turns in range(20):
            task = asyncio.create_task(claim(store))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            [outcome] = await asyncio.gather(task, return_exceptions=True)
            await store.unclaim(new.id if isinstance(outcome, list) else "01UNKNOWN")  # comes after the claim
            async with asyncio.timeout(5):
                while await store.counts() != [LaneCount("otp", "queued", 1, NOW)]:
                    await asyncio.sleep(0.001)

    async def test_a_cancelled_settlement_is_written_all_the_same(self, store: Store) -> None:
        message_id = await in_state(store, "sending")
        task = asyncio.create_task(store.settle(settled(message_id)))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await store.unclaim("01UNKNOWN")  # comes after it
        assert await states(store, message_id) == ["sent"]

    async def test_closing_writes_what_was_begun_and_refuses_what_comes_later(self, store: Store) -> None:
        tasks = [asyncio.create_task(store.put(message(), claimed=False)) for _ in range(20)]
        await asyncio.sleep(0)
        await store.close()
        assert await asyncio.gather(*tasks) == [None] * 20
        await store.close()
        with pytest.raises(StoreError):
            await store.put(message(), claimed=False)
        with pytest.raises(StoreError):
            await store.search(EVERYTHING)


class StoreContract(QueueContract, PartsContract, LogContract, CallerContract):
    """All of it."""
