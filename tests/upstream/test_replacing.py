"""Sessions near their end are replaced first and closed afterwards, against real sockets."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any

import pytest

from relay.upstream.attempt import Report
from relay.upstream.limits import LocalLimits
from relay.upstream.smtp.upstream import SmtpUpstream
from tests.support.dialogue import Session as Seen
from tests.support.upstream import BySession, Upstream, Wait
from tests.upstream.test_bursts import burst
from tests.upstream.test_pool import config, eventually, pool, send


async def one_code(one: SmtpUpstream, number: int = 0) -> Report:
    report = (await burst(one, [number]))[number]
    assert report.results[0].outcome == "sent"
    return report


def said_at(seen: Seen, verb: str) -> list[float]:
    """When the session heard the command."""
    return [at for at, line in seen.commands if line.split(" ")[0] == verb]


def has_opened(upstream: Upstream, one: SmtpUpstream, number: int) -> bool:
    """So many sessions were opened, and the last stands idle."""
    return len(upstream.sessions) == number and one.counts() == {"idle": 1, "busy": 0, "opening": 0}


def closed(upstream: Upstream, number: int) -> bool:
    return upstream.closed == number


def carry_on(upstream: Upstream) -> None:
    """Whenever one session was told to end, another was ready."""
    for gone in upstream.sessions:
        for quit_at in said_at(gone, "QUIT"):
            others = [each for each in upstream.sessions if each is not gone]
            ready = [each for each in others if said_at(each, "EHLO")[:1] < [quit_at] and said_at(each, "EHLO")]
            assert any(not (ends := said_at(each, "QUIT")) or ends[0] > quit_at for each in ready)


async def test_the_successor_is_opened_before_a_session_carries_its_last_message() -> None:
    go = asyncio.Event()
    script: Any = {"ehlo": BySession([None, Wait(go)])}
    async with (
        Upstream(script=script) as upstream,
        pool(config(upstream, sessions={"messages": 10})) as one,
    ):
        await eventually(lambda: one.counts()["idle"] == 1)
        for number in range(9):
            assert (await one_code(one, number)).session == "warm"
        await upstream.wait_until(lambda: len(upstream.sessions) == 2 and bool(upstream.sessions[1].commands))
        assert (await one_code(one, 9)).session == "warm"
        go.set()
        await eventually(lambda: one.counts() == {"idle": 1, "busy": 0, "opening": 0})
        assert (await one_code(one, 10)).session == "warm"
        assert [each.verbs.count("MAIL") for each in upstream.sessions] == [10, 1]
        assert said_at(upstream.sessions[1], "EHLO")[0] < said_at(upstream.sessions[0], "MAIL")[-1]


async def test_no_code_of_many_meets_a_session_that_is_not_open() -> None:
    messages = 5
    async with Upstream() as upstream, pool(config(upstream, sessions={"messages": messages})) as one:
        await eventually(lambda: one.counts()["idle"] == 1)
        for number in range(6 * messages):
            assert (await one_code(one, number)).session == "warm"
            await eventually(lambda: any(not one.pool.is_worn(session) for session in one.pool.idle))
        assert len(upstream.sessions) >= 6
        carry_on(upstream)


async def test_a_session_whose_certificate_ends_has_its_successor_first() -> None:
    async with Upstream() as upstream, pool(config(upstream)) as one:
        await eventually(lambda: one.counts()["idle"] == 1)
        one.pool.idle[0].replace_at = time.monotonic()
        one.pool.on_change()
        await upstream.wait_until(lambda: upstream.closed == 1)
        assert upstream.sessions[0].verbs[-1] == "QUIT"
        carry_on(upstream)
        assert (await one_code(one)).session == "warm"


@pytest.mark.parametrize("most", [2, 3])
async def test_where_all_places_are_in_use_the_oldest_gives_way_and_never_all_at_once(most: int) -> None:
    sessions = {"warm": most, "max": most, "idle": 0.2}
    async with Upstream() as upstream, pool(config(upstream, sessions=sessions)) as one:
        await upstream.wait_until(lambda: upstream.closed >= 2 * most)
        carry_on(upstream)
        assert upstream.peak <= most
        assert (await one_code(one)).results[0].outcome == "sent"
        ended = [each for each in upstream.sessions if said_at(each, "QUIT")]
        assert [each.index for each in sorted(ended, key=lambda each: said_at(each, "QUIT")[0])][:most] == sorted(
            range(most)
        )


async def test_the_only_session_is_kept_open_by_rset() -> None:
    async with (
        Upstream(idle_s=2.0) as upstream,
        pool(config(upstream, sessions={"max": 1, "idle": 0.1})) as one,
    ):
        await upstream.wait_until(lambda: upstream.sessions[0].verbs.count("RSET") >= 4 if upstream.sessions else False)
        assert (await one_code(one)).session == "warm"
        assert len(upstream.sessions) == 1


async def test_what_was_learned_of_an_idle_limit_is_not_climbed_past() -> None:
    async with Upstream() as upstream, pool(config(upstream)) as one:
        for opened in (1, 2):
            await eventually(partial(has_opened, upstream, one, opened))
            one.pool.idle[0].idle_since -= 10.0
            upstream.close_sessions()
            await upstream.wait_until(partial(closed, upstream, opened))
        await eventually(lambda: one.maintenance.idle_limit_s < 45.0)
        limits = [one.maintenance.idle_limit_s]
        for opened in range(3, 18):
            await eventually(partial(has_opened, upstream, one, opened))
            one.pool.idle[0].idle_since -= one.maintenance.idle_limit_s
            one.pool.on_change()
            await upstream.wait_until(partial(closed, upstream, opened))
            limits.append(one.maintenance.idle_limit_s)
        assert limits[0] == pytest.approx(6.0, abs=0.5)
        assert limits == sorted(limits)
        assert limits[-1] == limits[-2] == pytest.approx(9.0, abs=0.7)
        assert limits[-1] == pytest.approx(limits[0] * 0.9 / 0.6)
        carry_on(upstream)


async def test_bulk_is_not_pushed_out_by_sessions_opened_ahead() -> None:
    async with Upstream() as upstream:
        settings = config(upstream, sessions={"max": 4, "warm": "auto", "depth": 1})
        shared = LocalLimits.of(settings)
        async with pool(settings, shared=shared) as express, pool(settings, express=False, shared=shared) as bulk:
            await eventually(lambda: express.counts()["idle"] == 2)
            held = [await bulk.pool.acquire(within_s=3) for _ in range(2)]
            express.maintenance.note_demand(4)
            assert express.warm().sessions == 4
            for _ in range(5):
                for session in held:
                    assert (await send(bulk, session)).results[0].outcome == "sent"
                held = [await bulk.pool.acquire(within_s=3) for _ in range(2)]
            assert len(upstream.sessions) == upstream.open == 4
            assert express.counts()["idle"] == 2


async def test_an_idle_limit_that_would_do_nothing_but_open_sessions_is_raised() -> None:
    async with Upstream() as upstream, pool(config(upstream, sessions={"idle": 0.001})) as one:
        await eventually(lambda: len(upstream.sessions) >= 4)
        assert one.maintenance.idle_limit_s == 0.1
