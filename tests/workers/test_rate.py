"""An upstream's rate that several processes share: lent in portions, never exceeded."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path
from typing import Any

import pytest

from relay.ipc import LinkLost
from relay.upstream.rate import BULK_LEAVES, LENT_FOR_S, Bucket, Lent, RateLimiter
from relay.workers import messages
from relay.workers.shares import RemoteRateLimiter
from tests.support.app import BULK, Talk, letter
from tests.support.relay import RelayProcess, upstream_keys, write_config
from tests.support.upstream import Upstream

WITHIN_S = 20.0


class Main:
    """The main process's end of a link: lends, and counts what it is asked."""

    def __init__(self, rate: RateLimiter) -> None:
        self.rate = rate
        self.asked = self.unused = self.lent = 0
        self.broken: Exception | None = None

    async def ask(self, kind: str, value: str) -> Lent:
        assert kind == messages.LEND_RATE
        self.asked += 1
        await asyncio.sleep(0)
        if self.broken is not None:
            raise self.broken
        lent = await self.rate.lend("worker")
        self.lent += lent.tokens
        return lent

    def notify(self, kind: str, value: Any) -> None:
        assert kind == messages.RATE_UNUSED
        self.unused += value[1]
        self.rate.give_back("worker", value[1])


def leased(main: Main) -> RemoteRateLimiter:
    link: Any = main
    return RemoteRateLimiter("up", link)


async def test_a_worker_asks_once_for_many_messages() -> None:
    main = Main(RateLimiter(1000.0))
    rate = leased(main)
    began, paced = time.monotonic(), 0
    async with asyncio.timeout(WITHIN_S):
        while paced < 600:
            await rate.pace(express=False)
            paced += 1
    portions = (time.monotonic() - began) / LENT_FOR_S
    assert main.asked <= 600 / (1000 * LENT_FOR_S) + portions + 3


async def test_unused_tokens_go_back() -> None:
    main = Main(RateLimiter(100.0))
    rate = leased(main)
    async with asyncio.timeout(WITHIN_S):
        await rate.pace(express=False)
        while not main.unused:
            await asyncio.sleep(0.01)
    assert (main.lent, main.unused) == (10, 9)


async def test_a_lost_link_fails_each_waiting_message_and_the_next_one_asks_again() -> None:
    main = Main(RateLimiter(100.0))
    main.broken = LinkLost()
    rate = leased(main)
    async with asyncio.timeout(WITHIN_S):
        found = await asyncio.gather(*(rate.pace(express=False) for _ in range(3)), return_exceptions=True)
        assert [type(one) for one in found] == [LinkLost] * 3
        main.broken = None
        await rate.pace(express=False)


async def test_a_message_that_gave_up_waiting_takes_no_token() -> None:
    main = Main(RateLimiter(1.0))
    rate = leased(main)
    async with asyncio.timeout(WITHIN_S):
        await rate.pace(express=False)
        gone, stays = (asyncio.create_task(rate.pace(express=False)) for _ in range(2))
        await asyncio.sleep(0)
        gone.cancel()
        await stays
    assert main.lent == 2


@pytest.mark.parametrize("rate", [0.5, 1.0, 7.0, 50.0, 1000.0])
@pytest.mark.parametrize("seed", range(5))
def test_no_stretch_of_time_uses_more_than_the_bucket_and_what_came_in_meanwhile(rate: float, seed: int) -> None:
    """Codes, and workers that use what they are lent at any time while it is good, or give it back."""
    chance = random.Random(seed)
    bucket, now, used = Bucket(rate, 0.0), 0.0, list[float]()
    lent: dict[int, Lent] = {}
    for _ in range(3000):
        now += chance.expovariate(4 * rate)
        worker = chance.randrange(3)
        tokens, until = lent.get(worker, (0, 0.0))
        match chance.randrange(4):
            case 0 if not tokens:
                found = bucket.lend(worker, now, leave=BULK_LEAVES)
                if isinstance(found, Lent):
                    lent[worker] = found
            case 1 if tokens and now < until:
                some = chance.randint(1, tokens)
                used += [now] * some
                lent[worker] = Lent(tokens - some, until)
            case 2 if tokens and now >= until:
                bucket.give_back(worker, tokens, now)
                del lent[worker]
            case 3 if bucket.take(now) == 0.0:
                used.append(now)
    for first, begin in enumerate(used):
        for length_s in (0.01, 0.1, 1.0, 10.0):
            count = sum(1 for at in used[first : first + 400] if at <= begin + length_s)
            assert count <= bucket.capacity + rate * length_s + 1e-6


@pytest.mark.parametrize("rate", [0.5, 1.0, 1.5, 7.0, 50.0, 1000.0])
def test_a_worker_that_always_has_mail_gets_the_whole_rate(rate: float) -> None:
    bucket, now, sent = Bucket(rate, 0.0, saved=0.0), 0.0, 0
    while now < 1000.0 / rate:
        found = bucket.lend("worker", now, leave=BULK_LEAVES)
        if isinstance(found, Lent):
            sent += found.tokens
        else:
            now += found
    assert 1000 - 0.2 * bucket.capacity - 1 <= sent + 0.1 * rate + 1


def test_lending_leaves_codes_their_share() -> None:
    bucket = Bucket(100.0, 0.0)
    workers = 0
    while isinstance(bucket.lend(workers, 0.0, leave=BULK_LEAVES), Lent):
        workers += 1
    codes = 0
    while bucket.take(0.0) == 0.0:
        codes += 1
    assert codes == 20


async def test_bulk_goes_at_its_rate_through_workers(tmp_path: Path) -> None:
    """A second's worth at once less the codes' share, then as it comes."""
    rate = 20
    async with Upstream() as upstream:
        up = upstream_keys(upstream, rate=f"{rate}/s")
        config = write_config(tmp_path, {"up": up}, workers=2)
        async with RelayProcess(config) as relay:
            async with Talk(relay.smtp) as app:
                for number in range(60):
                    await app.submit(letter(), BULK, f"n{number}@example.net")
            arrived = sorted(one.at for one in await upstream.wait_for(60, WITHIN_S))
    for first, begin in enumerate(arrived):
        assert sum(1 for at in arrived[first:] if at <= begin + 1.0) <= 2 * rate
