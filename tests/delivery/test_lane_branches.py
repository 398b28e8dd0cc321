"""What is seldom asked of a lane: a rate, one of several that wait, a pause with more than memory holds."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from relay.config.model import Match, Rule
from relay.delivery.dispatch import upstreams_of
from relay.delivery.feeder import CLAIM_MESSAGES
from relay.delivery.lane import BULK_IN_MEMORY
from relay.mail.envelope import DeliverBy, Recipient
from relay.store.model import NewMessage, Queued, Selection
from relay.upstream import window
from tests.delivery.harness import config, delivering, until, warm
from tests.delivery.test_adaptive import THROTTLED
from tests.delivery.test_adaptive import config as bulk_config
from tests.delivery.test_faults import failing
from tests.support.upstream import Upstream, Wait


async def test_a_lanes_rate_holds_for_what_goes_out_and_all_of_it_goes(tmp_path: Path) -> None:
    async with Upstream() as one, delivering(tmp_path, config({"one": one}, rate=20.0)) as bench:
        ids = [await bench.send(f"u{n}@example.net") for n in range(30)]
        for id_ in ids:
            await bench.ended(id_, "sent")
        # Within the first second a bucket's worth and what flowed in, whatever else this machine does.
        first = min(message.at for message in one.messages)
        assert sum(message.at < first + 0.4 for message in one.messages) <= 20 + 8 + 1
        assert len(one.messages) == 30


async def test_an_operator_takes_one_out_of_several_that_wait_in_memory_and_the_others_keep_their_order(
    tmp_path: Path,
) -> None:
    goes_on = asyncio.Event()
    script: Any = {"mail": [Wait(goes_on)]}
    async with (
        Upstream((), script=script) as one,
        delivering(tmp_path, config({"one": one}, concurrency=1, attempt=10.0)) as bench,
    ):
        await until(lambda: warm(bench))
        ids = [await bench.send(f"u{n}@example.net", life_s=30.0 + n) for n in range(4)]
        assert await bench.delivery.act("hold", Selection(ids=(ids[1],))) == [ids[1]]
        goes_on.set()
        for id_ in (ids[0], *ids[2:]):
            await bench.ended(id_, "sent")
        assert [message.recipients for message in one.messages] == [(f"u{n}@example.net",) for n in (0, 2, 3)]
        assert (await bench.view(ids[1]))["recipients"][0]["state"] == "held"


async def test_what_the_store_does_not_take_back_stays_in_memory_and_goes_out_from_there(tmp_path: Path) -> None:
    goes_on = asyncio.Event()
    script: Any = {"mail": [Wait(goes_on)]}
    async with (
        Upstream((), script=script) as one,
        delivering(tmp_path, config({"one": one}, concurrency=1, attempt=10.0)) as bench,
    ):
        await until(lambda: warm(bench))
        ids = [await bench.send(f"u{n}@example.net") for n in range(2)]
        failing(bench, "unclaim", 1)
        assert await bench.delivery.act("hold", Selection(ids=(ids[1],))) == []
        goes_on.set()
        for id_ in ids:
            await bench.ended(id_, "sent")
        assert len(bench.heard.troubles) == 1
        bench.heard.troubles.clear()


async def test_an_older_code_that_is_being_claimed_while_the_newer_is_stored_is_dropped(tmp_path: Path) -> None:
    goes_on, claimed, release = asyncio.Event(), asyncio.Event(), asyncio.Event()
    script: Any = {"dot": Wait(goes_on)}
    async with Upstream((), script=script) as one, delivering(tmp_path, config({"one": one}, final=10.0)) as bench:
        await until(lambda: warm(bench))
        really = bench.store.claim

        async def slowly(*args: Any, **options: Any) -> Sequence[Queued]:
            found = await really(*args, **options)
            if found:
                claimed.set()
                await release.wait()
            return found

        bench.store.claim = slowly  # type: ignore[method-assign]
        older = await bench.send("u@example.net", claimed=False, supersede_key="u")
        await claimed.wait()
        newer = await bench.send("u@example.net", supersede_key="u")
        release.set()
        view = await bench.ended(older, "superseded", "sent")
        assert view["recipients"][0]["state"] == "superseded"
        goes_on.set()
        await bench.ended(newer, "sent")
        assert len(one.messages) == 1


@pytest.mark.parametrize(
    ("recipient", "envelope"),
    [
        (Recipient("u@example.net"), {"deliver_by": DeliverBy(0, "N")}),
        (Recipient("u@example.net", frozenset({"DELAY"})), {"deliver_by": DeliverBy(-1, "N")}),
    ],
    ids=["BY=0;N", "BY=-1;N NOTIFY=DELAY"],
)
async def test_mail_that_is_past_its_by_time_goes_on_and_its_sender_hears_of_the_delay_once(
    tmp_path: Path, recipient: Recipient, envelope: dict[str, Any]
) -> None:
    script: Any = {"rcpt": {"u@example.net": ["451 4.2.1 later"] * 3}}
    async with (
        Upstream(("PIPELINING",), script=script) as one,
        delivering(tmp_path, config({"one": one})) as bench,
    ):
        view = await bench.ended(await bench.send(recipient, sender="app@example.com", **envelope), "sent")
        assert len(view["recipients"][0]["attempts"]) == 4
        await one.wait_for(2)
        notices = [message for message in one.messages if message.sender == ""]
        assert [message.recipients for message in notices] == [("app@example.com",)]
        assert b"Action: delayed" in notices[0].content


async def test_what_an_upstreams_pause_holds_up_takes_bounded_memory_and_goes_when_it_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(window, "PAUSES_S", (0.5,))
    pausing = [True]
    messages, _ = BULK_IN_MEMORY
    async with (
        Upstream(script={"mail": lambda _: THROTTLED if pausing[0] else None}) as one,
        delivering(tmp_path, bulk_config({"one": one})) as bench,
    ):
        lane = bench.delivery.lane("bulk")
        ids = [
            await bench.send(f"u{n}@example.net", lane="bulk", claimed=False, life_s=600.0)
            for n in range(messages + 120)
        ]
        await until(lambda: not lane.has_room(1))
        await asyncio.sleep(0.3)
        counts = {row.state: row.recipients for row in await bench.store.counts() if row.lane == "bulk"}
        # One batch may have been on its way when it became too much, and some messages to the upstream.
        assert counts["sending"] <= messages + CLAIM_MESSAGES + window.INITIAL_WINDOW
        assert counts["queued"] > 0
        pausing[0] = False
        for id_ in ids:
            await bench.ended(id_, "sent")
        assert len(one.messages) == len(ids)


async def test_a_drain_that_ends_while_messages_are_being_stored_sends_none_of_them_and_the_next_start_does(
    tmp_path: Path,
) -> None:
    written = asyncio.Event()
    async with Upstream() as one:
        settings = config({"one": one}, concurrency=1)
        async with delivering(tmp_path, settings) as bench:
            await until(lambda: warm(bench))
            really = bench.store.start_put

            async def later(message: NewMessage) -> None:
                await written.wait()
                await really(message, express=True)

            def slowly(message: NewMessage, *, express: bool, **booked: Any) -> asyncio.Future[None]:
                return asyncio.ensure_future(later(message))

            bench.store.start_put = slowly  # type: ignore[method-assign]
            # One has its envelope at the upstream, the other waits behind it.
            coming = [asyncio.create_task(bench.send(f"u{n}@example.net", life_s=30.0 + n)) for n in range(2)]
            await one.wait_until(lambda: any("RCPT" in each.verbs for each in one.sessions))
            await bench.delivery.drain(0.1)
            written.set()
            ids = await asyncio.gather(*coming)
            assert one.messages == []
        async with delivering(tmp_path, settings, recover=True) as bench:
            for id_ in ids:
                await bench.ended(id_, "sent")
        assert sorted(message.recipients for message in one.messages) == [("u0@example.net",), ("u1@example.net",)]


def test_a_lane_has_its_own_upstreams_first_then_those_that_its_rules_bring_each_once() -> None:
    upstreams = {name: {"host": "127.0.0.1", "tls": "none"} for name in ("one", "two", "three", "four")}
    named = (("otp", ("three", "one")), ("otp", ("three",)), ("otp", None), ("bulk", ("four",)))
    rules = tuple(
        Rule(name=f"rule{n}", match=Match(client=None), lane=lane, upstreams=upstreams)
        for n, (lane, upstreams) in enumerate(named)
    )
    settings = config(upstreams).model_copy(update={"rules": rules})
    settings.lanes["otp"] = settings.lanes["otp"].model_copy(update={"upstreams": ("one", "two")})
    assert upstreams_of(settings, "otp") == ["one", "two", "three"]
    assert upstreams_of(settings, "bulk") == ["four"]
