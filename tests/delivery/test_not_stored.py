"""A message whose first commit fails while attempts for it are under way: the store has nothing to settle."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from relay.store.base import StoreError
from relay.store.model import BOOKED, Booking, NewMessage
from relay.upstream.gate import EXPIRED
from tests.delivery.harness import Bench, config, delivering, until, warm
from tests.support.upstream import Hang, Upstream


def commit_fails_after(bench: Bench, fails: asyncio.Event) -> None:
    """The store's next puts fail once `fails` is set."""

    async def failed() -> None:
        await fails.wait()
        raise StoreError("disk full")

    def start_put(
        message: NewMessage, *, express: bool, booking: Booking = BOOKED, others: Sequence[NewMessage] = ()
    ) -> asyncio.Future[None]:
        return asyncio.ensure_future(failed())

    bench.store.start_put = start_put  # type: ignore[method-assign]


@pytest.mark.parametrize("on_disk", [False, True], ids=["memory", "disk"])
async def test_a_drain_that_cuts_off_its_attempt_writes_nothing(tmp_path: Path, on_disk: bool) -> None:
    """What it wrote was refused for good, and a reload offered it to the store again each second."""
    fails = asyncio.Event()
    async with (
        Upstream(script={"rcpt": "451 4.2.0 later"}) as one,
        Upstream(script={"mail": Hang()}) as two,
        delivering(tmp_path, config({"one": one, "two": two}, attempt=30.0), on_disk=on_disk) as bench,
    ):
        await until(lambda: warm(bench))
        commit_fails_after(bench, fails)
        coming = asyncio.create_task(bench.send("u@example.net"))
        await two.wait_until(lambda: any("MAIL" in session.verbs for session in two.sessions))
        # The session at the second upstream hangs before the gate, so the job outlives its commit.
        fails.set()
        with pytest.raises(StoreError, match="disk full"):
            await coming
        await bench.delivery.drain(0.1)
        assert bench.events.errors == []
        assert await bench.delivery.retry_settlements()


@pytest.mark.parametrize("on_disk", [False, True], ids=["memory", "disk"])
async def test_one_that_expired_before_its_commit_failed_is_not_settled(tmp_path: Path, on_disk: bool) -> None:
    """The gate was shut already, for another reason: the lane tried to settle the message for ever."""
    fails = asyncio.Event()
    async with Upstream() as one, delivering(tmp_path, config({"one": one}), on_disk=on_disk) as bench:
        await until(lambda: warm(bench))
        commit_fails_after(bench, fails)
        coming = asyncio.create_task(bench.send("u@example.net", life_s=0.3))
        await until(lambda: bench.events.attempts == [("one", "abandoned", str(EXPIRED))])
        fails.set()
        with pytest.raises(StoreError, match="disk full"):
            await coming
        assert await bench.delivery.drain(1.0) == 0
        assert bench.events.errors == []


async def test_one_that_waits_for_its_turn_is_not_given_back(tmp_path: Path) -> None:
    fails = asyncio.Event()
    async with (
        Upstream(script={"mail": Hang()}) as one,
        delivering(tmp_path, config({"one": one}, attempt=30.0, concurrency=1)) as bench,
    ):
        await until(lambda: warm(bench))
        await bench.send("first@example.net")
        await one.wait_until(lambda: any("MAIL" in session.verbs for session in one.sessions))
        commit_fails_after(bench, fails)
        fails.set()
        with pytest.raises(StoreError, match="disk full"):
            await bench.send("second@example.net")
        given_back: list[str] = []
        really = bench.store.unclaim

        async def unclaim(message_id: str, due_at: float | None = None) -> None:
            given_back.append(message_id)
            await really(message_id, due_at)

        bench.store.unclaim = unclaim  # type: ignore[method-assign]
        await bench.delivery.give_back()
        assert given_back == []
