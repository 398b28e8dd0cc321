"""Bulk mail finds out what an upstream takes at once: against real upstreams that say so."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from relay.config.model import Config
from relay.delivery.feeder import CLAIM_MESSAGES
from relay.delivery.lane import BULK_SETTLING
from relay.store.model import Settlement
from relay.upstream import window
from relay.upstream.base import Upstream as LaneUpstream
from tests.delivery.harness import Bench, delivering, outcomes, until
from tests.support.upstream import Delay, Moment, Upstream, Wait

THROTTLED = "454 4.7.0 Throttling failure: Maximum sending rate exceeded"
MAX = 12


def config(upstreams: dict[str, Upstream], sessions: dict[str, Any] | None = None, **lane: Any) -> Config:
    """A lane `bulk` over all of them, and a lane `otp` that keeps no session."""
    named = tuple(upstreams)
    kept = {"warm": 0, "max": MAX, **(sessions or {})}
    common = {"upstreams": named, "attempt": 5.0, "final": 5.0}
    return Config.model_validate(
        {
            "hostname": "relay.example.com",
            "upstreams": {
                name: {"host": one.host, "port": one.port, "tls": "none", "sessions": kept}
                for name, one in upstreams.items()
            },
            "lanes": {
                "otp": {**common, "retry": (0.05,), "expires": 60.0, "express": True},
                "bulk": {**common, "retry": (0.05, 0.1), "expires": 7200.0, "express": False, **lane},
            },
            "default_lane": "bulk",
        }
    )


def pool(bench: Bench, name: str = "one") -> LaneUpstream:
    return next(pool for pool in bench.delivery.lane("bulk").upstreams if pool.name == name)


async def send(bench: Bench, count: int, **changes: Any) -> Sequence[str]:
    """Accept so many bulk messages, all at once."""
    values = {"lane": "bulk", "sender": "news@example.com", "life_s": 600.0, **changes}
    return await asyncio.gather(*(bench.send(f"u{at}@example.net", **values) for at in range(count)))


async def sent(bench: Bench, ids: Sequence[str], upstream: Upstream | None = None) -> list[dict[str, Any]]:
    """The messages once all were sent; with `upstream`, that they are what it got."""
    views = [await bench.ended(id_) for id_ in ids]
    assert {view["recipients"][0]["state"] for view in views} == {"sent"}
    assert upstream is None or len(upstream.messages) == len(ids)
    return views


async def throttled(bench: Bench, ids: Sequence[str]) -> Sequence[str]:
    """Those of the messages that were tried, once the upstream's pause began and nothing is under way any more."""
    await until(lambda: pool(bench).window.resume_at > 0.0 and pool(bench).under_way == 0)
    async with asyncio.timeout(15):
        while len(tried := [id_ for id_ in ids if outcomes(await bench.view(id_))]) < len(bench.events.attempts):
            await asyncio.sleep(0.01)
    return tried


@pytest.mark.parametrize("refusal", ["421 4.7.0 Too many connections", "421 4.3.2 busy", "454 4.3.0 try later"])
async def test_an_upstream_with_room_for_two_sessions_gets_two_and_nobody_is_put_off(
    tmp_path: Path, refusal: str
) -> None:
    def greeting(_: Moment) -> str | None:
        return refusal if one.open > 2 else None

    async with Upstream(script={"greeting": greeting}, latency_s=0.005) as one:
        async with delivering(tmp_path, config({"one": one})) as bench:
            views = await sent(bench, await send(bench, 80), one)
            assert [outcomes(view) for view in views] == [[("one", "sent")]] * 80
            assert pool(bench).circuit.state == "closed"
            counts = pool(bench).counts()
            assert counts["idle"] + counts["busy"] == 2
            assert one.open == 2
        # More were tried at the start only.
        assert len(one.sessions) <= 2 + window.INITIAL_WINDOW


async def test_an_upstream_that_throttles_for_a_while_gets_everything_and_ever_more_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(window, "PAUSES_S", (0.02, 0.04))
    monkeypatch.setattr(window, "CAP_FOR_S", 0.05)
    script: Any = {"mail": [None] * 10 + [THROTTLED] * 12}
    async with Upstream(script=script, latency_s=0.005) as one, delivering(tmp_path, config({"one": one})) as bench:
        first = await send(bench, 30)
        views = await sent(bench, first, one)
        # What it throttled was told so, once each time, and came back by the ladder.
        told = Counter(outcome for view in views for outcome in outcomes(view))
        assert told == {("one", "sent"): 30, ("one", "deferred"): 12}
        assert pool(bench).circuit.state == "closed"
        ids = list(first)
        while pool(bench).window.limit < MAX:
            ids += await send(bench, 100)
            await sent(bench, ids[-100:])
        assert len(one.messages) == len(ids)


async def test_what_waits_while_an_upstream_throttles_is_not_tried_and_loses_no_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(window, "PAUSES_S", (30.0,))
    async with Upstream(script={"mail": lambda _: THROTTLED}) as one:
        settings = config({"one": one}, retry=(600.0,))
        async with delivering(tmp_path, settings, on_disk=True) as bench:
            ids = await send(bench, 60)
            tried = await throttled(bench, ids)
            assert 1 <= len(tried) <= window.INITIAL_WINDOW
            assert pool(bench).circuit.state == "closed"
        one.set_script({})
        # The relay starts afresh: what was tried waits for its step, the others are due at once.
        async with delivering(tmp_path, settings, recover=True) as bench:
            await sent(bench, [id_ for id_ in ids if id_ not in tried], one)
            for id_ in tried:
                await bench.ended(id_, "deferred")


async def test_while_the_first_upstream_throttles_all_go_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(window, "PAUSES_S", (30.0,))
    async with Upstream(script={"dot": lambda _: THROTTLED}) as bad, Upstream() as good:
        settings = config({"bad": bad, "good": good}, retry=(600.0,))
        async with delivering(tmp_path, settings) as bench:
            views = await sent(bench, await send(bench, 60), good)
            ways = Counter(tuple(outcomes(view)) for view in views)
            assert set(ways) <= {(("good", "sent"),), (("bad", "deferred"), ("good", "sent"))}
            assert ways[("bad", "deferred"), ("good", "sent")] <= window.INITIAL_WINDOW


async def test_an_upstream_that_pauses_or_is_full_holds_up_nobody_who_goes_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(window, "PAUSES_S", (30.0,))
    async with Upstream(script={"mail": lambda _: THROTTLED}) as bad, Upstream() as good:
        settings = config({"bad": bad, "good": good}, retry=(600.0,))
        async with delivering(tmp_path, settings) as bench:
            # Unclaimed: they come from the store in batches, those for `bad` first.
            stuck = await send(bench, 2 * CLAIM_MESSAGES, upstreams=("bad",), claimed=False)
            others = await send(bench, CLAIM_MESSAGES, upstreams=("good",), claimed=False)
            await sent(bench, others, good)
            tried = [id_ for id_ in stuck if outcomes(await bench.view(id_))]
            assert len(tried) <= window.INITIAL_WINDOW


async def test_an_upstream_that_gets_slow_under_load_gets_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "CUT_EVERY_S", 0.05)
    at_work, most = 0, 0
    loads: list[int] = []

    def mail(_: Moment) -> None:
        nonlocal at_work
        at_work += 1
        loads.append(at_work)

    def done() -> None:
        nonlocal at_work
        at_work -= 1

    def dot(_: Moment) -> Delay:
        delay_s = 0.25 if at_work > most else 0.03
        asyncio.get_running_loop().call_later(delay_s, done)
        return Delay(delay_s)

    found: dict[int, list[int]] = {}
    for most in (6, 100):
        loads.clear()
        directory = tmp_path / str(most)
        directory.mkdir()
        script: Any = {"mail": mail, "dot": dot}
        async with (
            Upstream(script=script) as one,
            delivering(directory, config({"one": one}, {"max": 24})) as bench,
        ):
            await sent(bench, await send(bench, 300), one)
        found[most] = sorted(loads)
    # Half of the time, the slow one has at most two thirds of what the other has. A busy machine gives that one less,
    # too: on an idle one it is less than half.
    assert 3 * found[6][150] <= 2 * found[100][150]


async def test_concurrency_is_a_hard_ceiling(tmp_path: Path) -> None:
    async with (
        Upstream(latency_s=0.002) as one,
        Upstream() as two,
        delivering(tmp_path, config({"one": one, "two": two}, concurrency=3)) as bench,
    ):
        await sent(bench, await send(bench, 100), one)
        assert one.peak == 3


def settling_waits_for(bench: Bench, written: asyncio.Event) -> None:
    settle = bench.store.settle

    async def late(settlement: Settlement) -> None:
        await written.wait()
        await settle(settlement)

    bench.store.settle = late  # type: ignore[method-assign]


async def test_the_next_message_leaves_while_the_last_is_written_down(tmp_path: Path) -> None:
    written = asyncio.Event()
    async with Upstream() as one, delivering(tmp_path, config({"one": one}, {"max": 1})) as bench:
        settling_waits_for(bench, written)
        ids = await send(bench, 50)
        await one.wait_for(50)
        assert len(one.sessions) == 1
        written.set()
        await sent(bench, ids, one)


async def test_a_store_that_writes_nothing_down_stops_the_lane(tmp_path: Path) -> None:
    written = asyncio.Event()
    most = MAX + BULK_SETTLING
    async with Upstream() as one, delivering(tmp_path, config({"one": one})) as bench:
        settling_waits_for(bench, written)
        ids = await send(bench, most + 60, claimed=False)
        await one.wait_for(most)
        await until(lambda: pool(bench).under_way == 0)
        assert len(one.messages) == most
        written.set()
        await sent(bench, ids, one)


async def test_bulk_sessions_that_have_nothing_to_do_take_their_leave(tmp_path: Path) -> None:
    async with Upstream() as one, delivering(tmp_path, config({"one": one}, {"idle": 0.3})) as bench:
        await sent(bench, await send(bench, 20), one)
        await one.wait_until(lambda: one.open == 0)
        assert {session.verbs[-1] for session in one.sessions} == {"QUIT"}


async def test_a_code_never_waits_for_a_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "PAUSES_S", (30.0,))
    script: Any = {"mail": {"news@*": THROTTLED, "code@*": [THROTTLED] * 3}}
    async with Upstream(script=script) as one, delivering(tmp_path, config({"one": one}, retry=(600.0,))) as bench:
        await throttled(bench, await send(bench, 20))
        codes = await send(bench, 5, lane="otp", sender="code@example.com", life_s=30.0)
        views = [await bench.ended(id_) for id_ in codes]
        assert {view["recipients"][0]["state"] for view in views} == {"sent"}
        # Throttled themselves, they are tried again by the ladder and no later.
        assert sum(len(outcomes(view)) for view in views) == 5 + 3


async def test_codes_begin_all_at_once(tmp_path: Path) -> None:
    together = asyncio.Event()
    async with Upstream(script={"mail": Wait(together)}) as one, delivering(tmp_path, config({"one": one})) as bench:
        codes = await send(bench, MAX, lane="otp")
        await one.wait_until(lambda: sum("MAIL" in session.verbs for session in one.sessions) == MAX)
        together.set()
        await sent(bench, codes, one)
