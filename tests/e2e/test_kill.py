"""kill -9 at any moment: what was answered 250 is delivered; twice only what was under way at a kill."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.app import BULK, OTP, Talk, letter
from tests.support.processes import workers
from tests.support.relay import RelayProcess, get, time_line, until, until_logged, write_config
from tests.support.script import Script
from tests.support.upstream import DEFAULT_EXTENSIONS, Delay, Hang, Upstream

ROUNDS = 3
PERHAPS_SENT = "the relay ended while it had this message in hand: an upstream may have it already"
_numbers = itertools.count()


class Crowd:
    """Apps that submit without end, each message to an address of its own; until their relay is gone."""

    def __init__(self) -> None:
        self.acknowledged: dict[str, str] = {}
        """recipient → id"""
        self.tired = False
        """submits nothing more"""

    async def submit(self, relay: RelayProcess, sender: str, size: int) -> None:
        try:
            async with Talk(relay.smtp) as app:
                while not self.tired:
                    to = f"user{next(_numbers)}@example.net"
                    self.acknowledged[to] = await app.submit(letter("x" * size, sender=sender), sender, to)
                    await asyncio.sleep(0.005)
        except (OSError, EOFError, AssertionError):
            return  # the relay is gone; what it had not answered is the app's to send again


CHUNKING = (*DEFAULT_EXTENSIONS, "CHUNKING")
WAYS = {
    "one process, pipelined": (0, DEFAULT_EXTENSIONS, (0.1, 0.7)),
    # Bulk mail goes to the other process and out soon after the start.
    "two processes, chunked": (1, CHUNKING, (0.2, 0.8)),
}


@pytest.mark.parametrize("way", WAYS)
async def test_nothing_that_was_acknowledged_is_lost(tmp_path: Path, way: str) -> None:
    workers, extensions, lives_s = WAYS[way]
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    slow: Script = {"dot": lambda moment: Delay(chance.uniform(0.0, 0.03))}
    crowd, under_way = Crowd(), 0
    async with Upstream(extensions, script=slow) as codes, Upstream(extensions, script=slow) as bulk:
        lanes = {
            "otp": {"upstreams": ["codes"], "retry": ["200ms"], "expires": "10m"},
            "bulk": {"upstreams": ["bulk"], "retry": ["200ms"], "expires": "2d"},
        }
        config = write_config(tmp_path, {"codes": codes, "bulk": bulk}, lanes=lanes, workers=workers)
        for _ in range(ROUNDS):
            async with RelayProcess(config) as relay:
                apps = [asyncio.create_task(crowd.submit(relay, sender, 200)) for sender in (OTP, OTP, BULK, BULK)]
                apps.append(asyncio.create_task(crowd.submit(relay, BULK, 100_000)))
                await asyncio.sleep(chance.uniform(*lives_s))
                relay.send(signal.SIGKILL)
                under_way += codes.open + bulk.open
                await relay.wait()
                await asyncio.wait_for(asyncio.gather(*apps), 20)
        async with RelayProcess(config) as relay:
            await until(is_empty(relay), within_s=30)
            listed = (await get(relay, "/api/messages?limit=10000")).document
            states = finished(listed)
            explained = {one["recipients"][0]["address"] for one in listed if PERHAPS_SENT in str(one["notes"])}
    arrived = Counter(to for one in (*codes.messages, *bulk.messages) for to in one.recipients)
    assert crowd.acknowledged, f"nothing was submitted, seed {seed}"
    assert crowd.acknowledged.keys() - arrived.keys() == set(), f"lost, seed {seed}"
    assert {states[one] for one in crowd.acknowledged.values()} == {"sent"}, f"seed {seed}"
    assert {to for to, times in arrived.items() if times > 1} <= explained, f"seed {seed}"
    twice = sum(times - 1 for times in arrived.values())
    assert twice <= under_way, f"{twice} duplicates with {under_way} sessions open at the kills, seed {seed}"


def finished(listed: list[Mapping[str, Any]]) -> dict[str, str]:
    """id → state of its one recipient."""
    return {one["id"]: one["recipients"][0]["state"] for one in listed}


@pytest.mark.parametrize(("policy", "state"), [("resend", "queued"), ("hold", "ambiguous")])
async def test_a_kill_behind_the_final_dot_is_told_in_both_logs(tmp_path: Path, policy: str, state: str) -> None:
    async with Upstream(script={"dot": Hang()}) as upstream:
        lanes = {"otp": {"upstreams": ["one"], "retry": ["10m"], "expires": "1h", "on_ambiguous": policy}}
        config = write_config(tmp_path, {"one": upstream}, lanes=lanes, rules=[], default_lane="otp", workers=0)
        async with RelayProcess(config) as relay:
            async with Talk(relay.smtp) as app:
                message_id = await app.submit(letter(), OTP, "user@example.net")
            await upstream.wait_until(lambda: bool(upstream.transfers))
            await relay.kill()
        async with RelayProcess(config) as relay:
            (note,) = (await time_line(relay, message_id, state))["notes"]
            assert "upstream" in note["text"]
            await until_logged(relay, f"event=recovered id={message_id} lane=otp state={state} recipients=1")


async def test_a_lane_that_holds_what_is_ambiguous_sends_nothing_twice(tmp_path: Path) -> None:
    """`on_ambiguous: hold`: what may have left before the kill is the operator's, not sent again."""
    crowd = Crowd()
    async with Upstream(script={"dot": lambda moment: Delay(0.02)}) as upstream:
        lanes = {
            "otp": {"upstreams": ["one"], "retry": ["200ms"], "expires": "10m", "on_ambiguous": "hold"},
        }  # fmt: skip
        config = write_config(tmp_path, {"one": upstream}, lanes=lanes, rules=[], default_lane="otp", workers=0)
        for _ in range(2):
            async with RelayProcess(config) as relay:
                apps = [asyncio.create_task(crowd.submit(relay, OTP, 200)) for _ in range(4)]
                await asyncio.sleep(random.uniform(0.1, 0.5))
                await relay.kill()
                await asyncio.wait_for(asyncio.gather(*apps), 20)
        async with RelayProcess(config) as relay:

            async def is_at_rest() -> bool:
                rows = (await get(relay, "/api/queue")).document["lanes"]
                return all(row["state"] == "ambiguous" for row in rows)

            await until(is_at_rest, within_s=30)
            states = finished((await get(relay, "/api/messages?limit=10000")).document)
    arrived = Counter(to for one in upstream.messages for to in one.recipients)
    assert max(arrived.values()) == 1
    for to, message_id in crowd.acknowledged.items():
        assert states[message_id] in ("sent", "ambiguous")
        assert to in arrived or states[message_id] == "ambiguous"


async def test_a_bulk_process_that_is_killed_is_replaced_and_loses_nothing(tmp_path: Path) -> None:
    crowd, killed = Crowd(), 0
    async with (
        Upstream(script={"dot": lambda moment: Delay(0.01)}) as upstream,
        RelayProcess(write_config(tmp_path, {"one": upstream}, workers=1)) as relay,
    ):
        apps = [asyncio.create_task(crowd.submit(relay, sender, 200)) for sender in (OTP, BULK, BULK)]
        await until(more_than(upstream, 20))
        for worker in workers(relay.pid):
            os.kill(worker, signal.SIGKILL)
            killed += 1
        under_way = upstream.open
        await asyncio.sleep(0.3)
        crowd.tired = True
        await asyncio.wait_for(asyncio.gather(*apps), 20)
        await until(is_empty(relay), within_s=30)
        assert await relay.terminate() == 0
    assert killed >= 1
    arrived = Counter(to for one in upstream.messages for to in one.recipients)
    assert crowd.acknowledged.keys() - arrived.keys() == set()
    assert sum(times - 1 for times in arrived.values()) <= under_way


def more_than(upstream: Upstream, bulk: int) -> Callable[[], Awaitable[bool]]:
    async def holds() -> bool:
        return count(upstream, BULK) > bulk

    return holds


def is_empty(relay: RelayProcess) -> Callable[[], Awaitable[bool]]:
    """Nothing waits."""

    async def holds() -> bool:
        return not (await get(relay, "/api/queue")).document["lanes"]

    return holds


def count(upstream: Upstream, sender: str) -> int:
    return sum(one.sender == sender for one in upstream.messages)
