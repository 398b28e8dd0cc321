"""Moments that fall together badly: what a lane holds while the store fails, a reload, a drain or a newer message
comes, and the truth of what it writes down then."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import pytest

from relay.delivery.engine import Engine
from relay.observe.maillog import MailLog
from relay.observe.metrics import Metrics
from relay.observe.recent import Recent
from relay.store.base import StoreError
from relay.store.model import Selection
from tests.delivery.harness import Bench, config, delivering, delivery_over, failing, job_of, outcomes, until, warm
from tests.support.upstream import Close, Garbage, Hang, Upstream, Wait

DEAD = {"host": "127.0.0.1", "port": 9, "tls": "none"}


async def test_attempts_are_counted_over_an_interim_settlement(tmp_path: Path) -> None:
    """Some were sent, and written down at once; the others go on, and their first attempt must stay in the log."""
    script: Any = {"rcpt": {"b@example.net": "451 4.2.0 later"}}
    async with (
        Upstream(script=script) as one,
        Upstream() as two,
        delivering(tmp_path, config({"one": one, "two": two})) as bench,
    ):
        view = await bench.ended(await bench.send("a@example.net", "b@example.net"))
        assert outcomes(view, 1) == [("one", "deferred"), ("two", "sent")]
        assert [each["n"] for each in view["recipients"][1]["attempts"]] == [1, 2]


async def test_421_to_every_mail_of_a_bdat_ends_with_the_attempt(tmp_path: Path) -> None:
    """The content left over a kept session whose 421 says that nobody read it: the next session may carry it."""
    script: Any = {"mail": "421 4.3.2 closing"}
    async with (
        Upstream(("PIPELINING", "CHUNKING"), script=script) as one,
        delivering(tmp_path, config({"one": one}, retry=(20.0,))) as bench,
    ):
        await until(lambda: warm(bench))
        view = await bench.ended(await bench.send("u@example.net", claimed=False), "deferred")
        assert outcomes(view) == [("one", "deferred")]
        assert "421" in view["recipients"][0]["reply"]
    async with (
        Upstream(("PIPELINING", "CHUNKING"), script={"mail": ["421 4.3.2 idle"]}) as one,
        delivering(tmp_path, config({"one": one}, retry=(20.0,))) as bench,
    ):
        await until(lambda: warm(bench))
        view = await bench.ended(await bench.send("u@example.net", claimed=False))
        assert outcomes(view) == [("one", "sent")]


async def test_who_fits_only_an_upstream_that_is_down_waits_for_it(tmp_path: Path) -> None:
    async with Upstream(("PIPELINING", "SIZE 10")) as small:
        settings: Any = config({"dead": DEAD, "small": small}, retry=(20.0,))
        async with delivering(tmp_path, settings) as bench:
            dead = bench.delivery.lane("otp").upstreams[0]
            await until(lambda: dead.circuit.state != "closed")
            view = await bench.ended(await bench.send("u@example.net"), "deferred", "bounced")
            assert view["recipients"][0]["state"] == "deferred"
        settings = config({"small": small}, retry=(20.0,))
        async with delivering(tmp_path, settings) as bench:
            view = await bench.ended(await bench.send("u@example.net"), "deferred", "bounced")
            assert view["recipients"][0]["state"] == "bounced"


async def test_a_message_that_expires_condemns_nobody(tmp_path: Path) -> None:
    async with Upstream(latency_s=0.3) as slow, delivering(tmp_path, config({"slow": slow})) as bench:
        await until(lambda: warm(bench))
        await bench.ended(await bench.send("u@example.net", life_s=0.2))
        assert bench.delivery.lane("otp").upstreams[0].circuit.state == "closed"


async def test_what_expired_while_it_waited_for_the_rate_is_not_begun(tmp_path: Path) -> None:
    async with Upstream() as one:
        upstream = {"host": one.host, "port": one.port, "tls": "none", "rate": "1/s"}
        async with delivering(tmp_path, config({"one": upstream})) as bench:
            await until(lambda: warm(bench))
            views = [await bench.send("u@example.net", sender="", life_s=0.5) for _ in range(3)]
            states = [(await bench.ended(each))["recipients"][0]["state"] for each in views]
            assert states == ["sent", "expired", "expired"]
            assert bench.delivery.lane("otp").upstreams[0].circuit.state == "closed"
        assert [verb for session in one.sessions for verb in session.verbs].count("MAIL") == 1


async def test_a_slow_store_is_no_dead_upstream(tmp_path: Path) -> None:
    async with Upstream() as one, delivering(tmp_path, config({"one": one}, attempt=0.2)) as bench:
        downs: list[str] = []
        bench.events.down = lambda lane, upstream, reason: downs.append(reason)  # type: ignore[method-assign]
        await until(lambda: warm(bench))
        new, job = job_of(bench, "01JD0000000000000000000001")
        bench.delivery.lane("otp").offer(job)
        await asyncio.sleep(0.5)  # longer than an attempt may take
        await bench.store.put(new, claimed=True)
        job.on_put(stored=True)
        assert (await bench.ended(new.id))["recipients"][0]["state"] == "sent"
        assert (len(one.messages), downs) == (1, [])


async def test_a_fault_in_one_attempt_of_a_race_does_not_undo_the_other(tmp_path: Path) -> None:
    async with Upstream(script={"rcpt": Hang()}) as slow, Upstream(latency_s=0.2) as good:
        settings = config({"good": good, "slow": slow}, hedge=0.05, retry=(20.0,))
        async with delivering(tmp_path, settings) as bench:
            await until(lambda: warm(bench))

            async def acquire(**_: object) -> None:
                await asyncio.sleep(0.05)
                raise RuntimeError("the other process is gone")

            second: Any = bench.delivery.lane("otp").upstreams[1]
            second.pool.take_idle, second.pool.acquire = lambda: None, acquire
            view = await bench.ended(await bench.send("u@example.net"))
            assert view["recipients"][0]["upstream"] == "good"
            assert len(good.messages) == 1
            assert bench.events.errors == ["delivery: RuntimeError('the other process is gone')"]
            bench.events.errors.clear()


async def test_what_an_upstream_was_told_in_a_lost_race_is_written_too(tmp_path: Path) -> None:
    """One refuses a moment after the other has accepted it."""
    release = asyncio.Event()
    script: Any = {"rcpt": Wait(release, "550 5.1.1 no such user")}
    async with Upstream(script=script) as slow, Upstream(script={"dot": Wait(release, "250 2.0.0 ok")}) as good:
        settings = config({"slow": slow, "good": good}, hedge=0.1, final=5.0, attempt=5.0)
        async with delivering(tmp_path, settings) as bench:
            id_ = await bench.send("u@example.net")
            await good.wait_until(lambda: len(good.transfers) == 1)
            release.set()
            view = await bench.ended(id_)
            assert view["recipients"][0]["state"] == "sent"
            assert {each["upstream"] for each in view["recipients"][0]["attempts"]} == {"slow", "good"}


@pytest.mark.parametrize("act", ["hold", "drop"])
async def test_a_store_that_fails_leaves_no_lane_paused(tmp_path: Path, act: Any) -> None:
    release = asyncio.Event()
    async with (
        Upstream(script={"mail": [Wait(release)]}) as one,
        delivering(tmp_path, config({"one": one}, concurrency=1, attempt=8.0)) as bench,
    ):
        first = await bench.send("u@example.net")
        await until(lambda: one.seen["mail"] == 1)
        second = await bench.send("u@example.net")
        failing(bench, "unclaim", 1)
        failing(bench, "act", 1)
        with pytest.raises(StoreError):
            await bench.delivery.act(act, Selection(lane="otp"))
        assert bench.events.errors == ["unclaim: StoreError('disk I/O error')"]
        bench.events.errors.clear()
        release.set()
        for id_ in (first, second):
            assert (await bench.ended(id_))["recipients"][0]["state"] == "sent"


async def test_of_two_operators_words_at_once_neither_wakes_the_other_early(tmp_path: Path) -> None:
    async with Upstream() as one, delivering(tmp_path, config({"one": one})) as bench:
        lane = bench.delivery.lane("otp")
        await lane.pause(None)
        await bench.delivery.act("hold", Selection(lane="otp"))
        id_ = await bench.send("u@example.net")
        await bench.ended(await bench.send("bulk@example.net", lane="bulk"))
        assert [message.recipients for message in one.messages] == [("bulk@example.net",)]
        lane.resume()
        await bench.ended(id_)


async def test_what_is_committed_during_a_reload_is_sent_by_the_new_lanes(tmp_path: Path) -> None:
    async with Upstream() as one, delivering(tmp_path, config({"one": one})) as bench:
        old = bench.delivery
        await old.give_back()
        new, job = job_of(bench, "01JD0000000000000000000001")
        old.lane("otp").offer(job)
        draining = asyncio.create_task(old.drain(5.0))
        await asyncio.sleep(0.1)
        await bench.store.put(new, claimed=True)
        job.on_put(stored=True)
        await draining
        assert (await bench.view(new.id))["recipients"][0]["state"] == "queued"
        settings = config({"one": one})
        bench.delivery = delivery_over(settings, bench.store, bench.clock, bench.events)
        bench.delivery.start()
        assert (await bench.ended(new.id))["recipients"][0]["state"] == "sent"
        await bench.delivery.drain(1.0)


async def during(bench: Bench, name: str, then: Callable[[], Awaitable[Any]]) -> None:
    """`then` happens once, while the store's next `name` is being written."""
    really, once = getattr(bench.store, name), [True]

    async def slow(*args: Any, **options: Any) -> Any:
        if once:
            once.clear()
            await then()
        return await really(*args, **options)

    setattr(bench.store, name, slow)


async def test_a_newer_message_that_comes_while_the_older_is_put_off_supersedes_it(tmp_path: Path) -> None:
    script: Any = {"mail": ["451 4.3.0 later"]}
    async with (
        Upstream(script=script) as one,
        delivering(tmp_path, config({"one": one}, supersede=True, retry=(0.6,))) as bench,
    ):
        await until(lambda: not bench.delivery.lane("otp").feeder.store_may_have_some)
        newer: list[str] = []

        async def comes() -> None:
            newer.append(await bench.send("u@example.net", supersede_key="k"))

        await during(bench, "settle", comes)
        older = await bench.send("u@example.net", supersede_key="k")
        view = await bench.ended(older)
        assert view["recipients"][0]["state"] == "superseded"
        assert (await bench.ended(newer[0]))["recipients"][0]["state"] == "sent"
        assert len(one.messages) == 1


async def test_a_message_is_not_superseded_by_one_that_was_never_stored(tmp_path: Path) -> None:
    async with Upstream() as one, delivering(tmp_path, config({"one": one}, supersede=True)) as bench:
        lane = bench.delivery.lane("otp")
        newer = job_of(bench, "01JD0000000000000000000002", key="k")[1]
        older, taken_up = job_of(bench, "01JD0000000000000000000001", key="k")
        await bench.store.put(older, claimed=True)
        lane.offer(newer)
        taken_up.on_put(stored=True)
        lane.offer(taken_up)  # claimed from the store while the newer one is being committed
        newer.on_put(stored=False)
        assert (await bench.ended(older.id))["recipients"][0]["state"] == "sent"


async def test_an_upstream_that_comes_back_while_a_code_is_put_off_gets_it_at_once(tmp_path: Path) -> None:
    async with Upstream() as one:
        port, settings = one.port, config({"one": one}, retry=(20.0,))
    async with delivering(tmp_path, settings) as bench:
        pool = bench.delivery.lane("otp").upstreams[0]
        await until(lambda: pool.circuit.state != "closed")
        async with Upstream(port=port):

            async def back() -> None:
                await until(lambda: pool.circuit.state == "closed")
                await asyncio.sleep(0.05)

            await during(bench, "settle", back)
            view = await bench.ended(await bench.send("u@example.net"))
            assert view["recipients"][0]["state"] == "sent"


async def test_a_drain_that_cuts_off_a_settlement_does_not_forget_what_was_sent(tmp_path: Path) -> None:
    async with Upstream() as one, delivering(tmp_path, config({"one": one})) as bench:
        failing(bench, "settle", 1)
        id_ = await bench.send("u@example.net")
        await one.wait_for(1)
        await until(lambda: bool(bench.events.errors))
        await bench.delivery.drain(0.0)
        assert bench.events.errors == ["settle: StoreError('disk I/O error')"]
        bench.events.errors.clear()
        assert (await bench.view(id_))["recipients"][0]["state"] == "sent"


async def test_a_reload_puts_its_lanes_in_force_before_it_empties_the_old(tmp_path: Path) -> None:
    """A message that comes meanwhile may be for a lane that the old ones don't have."""
    async with Upstream() as one, delivering(tmp_path, config({"one": one}), on_disk=True) as bench:
        engine = Engine(bench.clock, MailLog(Metrics(), Recent()))
        engine.store = cast(Any, bench.store)
        settings = config({"one": one})
        old, new = (delivery_over(settings, bench.store, bench.clock, bench.events) for _ in range(2))
        await engine.start(settings, old)
        emptied, really = [], old.give_back

        async def give_back() -> None:
            emptied.append(engine.delivery)
            await really()

        old.give_back = give_back  # type: ignore[method-assign]
        await engine.replace(settings, new)
        assert emptied == [new]
        id_ = await bench.send("u@example.net")
        await bench.ended(id_)
        await engine.drain(1.0)


@pytest.mark.parametrize("fault", [Close(), Garbage()], ids=["closes", "jabbers"])
async def test_an_upstream_that_opens_and_never_answers_the_dot_gets_a_message_seldom(
    tmp_path: Path, fault: Any
) -> None:
    """A session that was being opened when the circuit opened proves nothing: it closed the circuit again at once, and
    the message was sent some hundred times a second."""
    async with (
        Upstream(script={"dot": fault}) as one,
        delivering(tmp_path, config({"one": one}, retry=(0.05,))) as bench,
    ):
        id_ = await bench.send("u@example.net")

        async def tries() -> Sequence[float]:
            (recipient,) = (await bench.view(id_))["recipients"]
            return [datetime.fromisoformat(each["started_at"]).timestamp() for each in recipient["attempts"]]

        async with asyncio.timeout(15):
            while not (found := await tries()) or found[-1] - found[0] < 1.0:
                await asyncio.sleep(0.02)
        assert len(found) <= 6


GROUPS = ("0@a.test", "1@a.test", "2@a.test", "3@a.test", "4@a.test", "5@a.test")
BY_GROUP = ["sent", "sent", "ambiguous", "ambiguous", "queued", "queued"]


@pytest.mark.parametrize("ends", ["a drain cut off", "a kill"])
async def test_only_the_group_past_its_final_dot_is_ambiguous(tmp_path: Path, ends: str) -> None:
    """Two recipients a transaction: the first two are told, the next two's answer is out, the last weren't begun."""
    async with Upstream(script={"dot": [None, Hang()]}) as one:
        upstream = {"host": one.host, "port": one.port, "tls": "none", "recipients": 2}
        settings = config({"one": upstream}, on_ambiguous="hold", final=30.0)
        async with delivering(tmp_path, settings) as bench:
            id_ = await bench.send(*GROUPS)
            await one.wait_until(lambda: len(one.transfers) == 2)
            if ends == "a kill":
                await bench.store.recover(bench.clock.now())
                assert [each["state"] for each in (await bench.view(id_))["recipients"]] == BY_GROUP
            await bench.delivery.drain(0.2)
            assert [each["state"] for each in (await bench.view(id_))["recipients"]] == BY_GROUP


async def test_who_was_answered_is_not_ambiguous_because_another_still_waits(tmp_path: Path) -> None:
    """One of two is refused for now and goes to the next upstream, where the drain cuts it off before its dot."""
    async with (
        Upstream(script={"rcpt": {"b@*": "451 4.2.0 later"}}) as one,
        Upstream(script={"mail": Hang()}) as two,
    ):
        settings = config({"one": one, "two": two}, on_ambiguous="hold", attempt=30.0)
        async with delivering(tmp_path, settings) as bench:
            id_ = await bench.send("a@example.net", "b@example.net")
            await two.wait_until(lambda: any("MAIL" in session.verbs for session in two.sessions))
            await bench.delivery.drain(0.2)
            states = [each["state"] for each in (await bench.view(id_))["recipients"]]
            assert states == ["sent", "queued"]
