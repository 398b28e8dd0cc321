"""What becomes of a message, against upstreams that misbehave: a real store, real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from relay.delivery.feeder import CLAIM_MESSAGES
from relay.mail.envelope import DeliverBy, Recipient
from relay.store.model import Queued, Selection
from relay.upstream.phases import PHASES
from tests.delivery.harness import CONTENT, config, delivering, delivery_over, outcomes, until, warm
from tests.support.upstream import Close, Garbage, Hang, Upstream, Wait

DEAD = {"host": "127.0.0.1", "port": 9, "tls": "none"}


async def test_a_message_goes_out_once_byte_for_byte_and_is_settled(tmp_path: Path) -> None:
    async with Upstream() as one, delivering(tmp_path, config({"one": one})) as bench:
        view = await bench.ended(await bench.send("u@example.net"))
        assert [message.content for message in one.messages] == [CONTENT]
        recipient = view["recipients"][0]
        assert (recipient["state"], recipient["upstream"]) == ("sent", "one")
        assert recipient["reply"].startswith("250")
        assert recipient["attempts"][0]["session"] in ("warm", "new")
        assert set(recipient["attempts"][0]["timings_ms"]) == set(PHASES)
        assert view["timings_ms"]["total"] > 0


BEFORE_THE_DOT = [
    {"greeting": "421 4.3.2 not now"},
    {"greeting": "554 5.7.1 no"},
    {"ehlo": Close()},
    {"mail": "451 4.3.0 later"},
    {"mail": "530 5.7.0 authentication required"},
    {"mail": "550 5.7.1 sender not verified"},
    {"mail": Close()},
    {"mail": Hang()},
    {"mail": Garbage(b"huh\r\n")},
    {"rcpt": "450 4.2.1 greylisted"},
    {"rcpt": Close()},
    {"data": "421 4.3.2 closing"},
    {"data": Close()},
    {"dot": "452 4.3.1 full"},
    {"dot": "554 5.7.1 Message rejected: Email address is not verified."},
]


@pytest.mark.parametrize("script", BEFORE_THE_DOT, ids=str)
async def test_what_fails_before_it_was_accepted_goes_to_the_next_upstream_at_once(tmp_path: Path, script: Any) -> None:
    settings: Any
    async with Upstream(script=script) as bad, Upstream() as good:
        settings = config({"bad": bad, "good": good}, retry=(20.0,))
        async with delivering(tmp_path, settings) as bench:
            view = await bench.ended(await bench.send("u@example.net"))
        assert view["recipients"][0]["state"] == "sent"
        assert view["recipients"][0]["upstream"] == "good"
        assert len(good.messages) == 1
        assert bad.messages == []


@pytest.mark.parametrize("script", [{"rcpt": "550 5.1.1 no such user"}, {"dot": "554 5.6.0 content refused"}], ids=str)
async def test_a_5yz_to_the_recipient_or_the_content_is_its_end_and_the_sender_is_told(
    tmp_path: Path, script: Any
) -> None:
    async with Upstream(script=script) as bad, Upstream() as good:
        async with delivering(tmp_path, config({"bad": bad, "good": good})) as bench:
            view = await bench.ended(await bench.send("u@example.net"))
            assert view["recipients"][0]["state"] == "bounced"
            await until(lambda: len(good.messages) == 1)
        bounce = good.messages[0]
        assert (bounce.sender, bounce.recipients) == ("", ("app@example.com",))
        assert b"multipart/report" in bounce.content
        assert b"Final-Recipient: rfc822;u@example.net" in bounce.content.replace(b"; ", b";")


async def test_the_null_sender_is_never_told(tmp_path: Path) -> None:
    async with Upstream(script={"rcpt": "550 5.1.1 no"}) as bad, delivering(tmp_path, config({"bad": bad})) as bench:
        await bench.ended(await bench.send("u@example.net", sender=""))
        await bench.ended(await bench.send(Recipient("v@example.net", notify=frozenset({"NEVER"}))))
        assert await bench.store.search(Selection(lane="bulk")) == []


async def test_a_success_report_comes_from_the_relay_when_the_upstream_does_none(tmp_path: Path) -> None:
    wants = Recipient("u@example.net", notify=frozenset({"SUCCESS"}))
    async with Upstream(("PIPELINING",)) as one, delivering(tmp_path, config({"one": one})) as bench:
        await bench.ended(await bench.send(wants))
        await until(lambda: len(one.messages) == 2)
        assert b"Action: relayed" in one.messages[1].content
    async with Upstream(("PIPELINING", "DSN")) as one, delivering(tmp_path, config({"one": one})) as bench:
        await bench.ended(await bench.send(wants, envid="QQ1", ret="HDRS"))
        assert "NOTIFY=SUCCESS" in one.messages[0].rcpts[0]
        assert len(one.messages) == 1


async def test_each_recipient_has_its_own_outcome_and_nobody_is_sent_to_twice(tmp_path: Path) -> None:
    script = {"rcpt": {"b@example.net": "550 5.1.1 no", "c@example.net": ["451 4.2.0 later", "250 2.1.5 ok"]}}
    async with Upstream(script=script) as one, delivering(tmp_path, config({"one": one})) as bench:  # type: ignore[arg-type]
        view = await bench.ended(await bench.send("a@example.net", "b@example.net", "c@example.net"))
        assert [each["state"] for each in view["recipients"]] == ["sent", "bounced", "sent"]
        assert [message.recipients for message in one.messages if message.sender] == [
            ("a@example.net",),
            ("c@example.net",),
        ]
        assert outcomes(view, 2) == [("one", "deferred"), ("one", "sent")]


@pytest.mark.parametrize("action", [Close(), Hang(), Garbage(b"\x00\r\n")], ids=str)
async def test_a_loss_behind_the_dot_goes_on_by_the_lanes_policy(tmp_path: Path, action: Any) -> None:
    async with Upstream(script={"dot": action}) as bad, Upstream() as good:
        held = config({"bad": bad, "good": good}, on_ambiguous="hold")
        async with delivering(tmp_path, held) as bench:
            id_ = await bench.send("u@example.net")
            view = await bench.ended(id_, "ambiguous")
            assert outcomes(view) == [("bad", "ambiguous")]
            assert good.messages == []
            await bench.delivery.act("drop", Selection(ids=(id_,)))
            assert (await bench.view(id_))["recipients"][0]["state"] == "bounced"
        async with delivering(tmp_path, config({"bad": bad, "good": good})) as bench:
            view = await bench.ended(await bench.send("u@example.net"))
            assert outcomes(view) == [("bad", "ambiguous"), ("good", "sent")]
            assert len(good.messages) == 1


async def test_with_one_upstream_an_ambiguous_message_comes_again_at_the_next_step(tmp_path: Path) -> None:
    async with (
        Upstream(script={"dot": [Close(), "250 2.0.0 ok"]}) as one,
        delivering(tmp_path, config({"one": one})) as bench,
    ):
        view = await bench.ended(await bench.send("u@example.net"))
        assert outcomes(view) == [("one", "ambiguous"), ("one", "sent")]


async def test_a_dead_upstream_costs_one_attempt_and_then_nobody_asks_it(tmp_path: Path) -> None:
    async with Upstream() as good, delivering(tmp_path, config({"dead": DEAD, "good": good})) as bench:
        for _ in range(3):
            await bench.ended(await bench.send("u@example.net"))
        assert [one for one in bench.events.attempts if one[0] == "dead"][1:] == []
        assert len(good.messages) == 3


async def test_nothing_is_lost_while_every_upstream_is_dead_and_it_goes_when_one_comes_back(tmp_path: Path) -> None:
    async with Upstream() as one:
        port = one.port
        settings = config({"one": one}, retry=(20.0,))
    async with delivering(tmp_path, settings) as bench:
        id_ = await bench.send("u@example.net")
        await bench.ended(id_, "deferred")
        async with Upstream(port=port) as back:
            # Long before the ladder's 20 s: a code goes as soon as the upstream is back.
            async with asyncio.timeout(10):
                await bench.ended(id_)
            assert len(back.messages) == 1


async def test_a_dead_session_costs_another_session_not_a_wait(tmp_path: Path) -> None:
    dying = Upstream(script={"mail": [Close(), "250 ok"]})
    async with dying as one, delivering(tmp_path, config({"one": one}, retry=(20.0,))) as bench:
        await until(lambda: warm(bench))
        view = await bench.ended(await bench.send("u@example.net"))
        assert outcomes(view) == [("one", "sent")]
        assert len(one.messages) == 1


async def test_what_expires_is_never_sent_and_the_sender_is_told(tmp_path: Path) -> None:
    async with Upstream() as good, delivering(tmp_path, config({"dead": DEAD}, retry=(0.1,))) as bench:
        del good
        view = await bench.ended(await bench.send("u@example.net", life_s=0.4))
        assert view["recipients"][0]["state"] == "expired"
        bounces = await bench.store.search(Selection(lane="bulk"))
        assert [one["recipients"][0]["address"] for one in bounces] == ["app@example.com"]  # type: ignore[index]


async def test_a_code_that_expires_during_the_envelope_never_reaches_the_dot(tmp_path: Path) -> None:
    async with Upstream(latency_s=0.3) as slow, delivering(tmp_path, config({"slow": slow})) as bench:
        await until(lambda: warm(bench))
        view = await bench.ended(await bench.send("u@example.net", life_s=0.2))
        assert view["recipients"][0]["state"] == "expired"
        assert slow.transfers == []


async def test_what_waits_in_the_store_is_taken_up_after_a_restart(tmp_path: Path) -> None:
    async with delivering(tmp_path, config({"dead": DEAD}, retry=(20.0,)), on_disk=True) as bench:
        ids = [await bench.send("u@example.net", claimed=claimed) for claimed in (True, False)]
        for id_ in ids:
            await bench.ended(id_, "deferred")
    async with Upstream() as good, delivering(tmp_path, config({"good": good}), recover=True) as bench:
        await bench.delivery.act("retry", Selection(ids=tuple(ids)))
        for id_ in ids:
            await bench.ended(id_)
        assert len(good.messages) == 2


async def test_held_mail_waits_for_release_and_dropped_mail_is_gone(tmp_path: Path) -> None:
    async with Upstream() as good:
        async with delivering(tmp_path, config({"dead": DEAD}, retry=(20.0,)), on_disk=True) as bench:
            kept, dropped = [await bench.send("u@example.net") for _ in range(2)]
            for id_ in (kept, dropped):
                await bench.ended(id_, "deferred")
            assert await bench.delivery.act("hold", Selection(lane="otp")) != []
            await bench.delivery.act("drop", Selection(ids=(dropped,)))
        async with delivering(tmp_path, config({"good": good}), recover=True) as bench:
            await bench.ended(await bench.send("later@example.net"))
            assert [message.recipients for message in good.messages] == [("later@example.net",)]
            await bench.delivery.act("release", Selection(ids=(kept,)))
            await bench.ended(kept)
            assert len(good.messages) == 2
            assert (await bench.view(dropped))["recipients"][0]["state"] == "bounced"


async def test_more_recipients_than_an_upstream_takes_go_in_several_transactions(tmp_path: Path) -> None:
    async with Upstream() as one:
        settings = config({"one": {"host": one.host, "port": one.port, "tls": "none", "recipients": 2}})
        async with delivering(tmp_path, settings) as bench:
            view = await bench.ended(await bench.send(*(f"u{at}@example.net" for at in range(5))))
            assert {each["state"] for each in view["recipients"]} == {"sent"}
            assert sorted(len(message.recipients) for message in one.messages) == [1, 2, 2]


async def test_a_backlog_in_the_store_drains_in_small_batches(tmp_path: Path) -> None:
    async with Upstream() as one, delivering(tmp_path, config({"one": one})) as bench:
        ids = [await bench.send("u@example.net", claimed=False) for _ in range(180)]
        for id_ in ids:
            await bench.ended(id_)
        assert len(one.messages) == 180


@pytest.mark.parametrize("script", [{"mail": Hang()}, {"greeting": Hang()}], ids=str)
async def test_hedging_races_the_next_upstream_and_one_of_them_delivers(tmp_path: Path, script: Any) -> None:
    async with Upstream(script=script) as slow, Upstream() as good:
        settings = config({"slow": slow, "good": good}, hedge=0.15, attempt=8.0)
        async with delivering(tmp_path, settings) as bench:
            view = await bench.ended(await bench.send("u@example.net"))
            assert view["recipients"][0]["upstream"] == "good"
            # In the order that they began in, though the last is judged first.
            assert outcomes(view) == [("slow", "abandoned"), ("good", "sent")]
            # Who stayed silent isn't asked by the next one.
            before = len(slow.sessions)
            await bench.ended(await bench.send("v@example.net"))
            assert len(good.messages) == 2
            assert len(slow.sessions) <= before + 1
        assert slow.transfers == []


async def test_a_hedged_message_is_sent_by_one_upstream_only_when_both_answer(tmp_path: Path) -> None:
    async with Upstream(latency_s=0.3) as slow, Upstream(latency_s=0.25) as other:
        settings = config({"slow": slow, "other": other}, hedge=0.05, attempt=8.0)
        async with delivering(tmp_path, settings) as bench:
            await until(lambda: warm(bench))
            for at in range(4):
                await bench.ended(await bench.send(f"u{at}@example.net"))
        assert len(slow.transfers) + len(other.transfers) == 4


async def test_a_newer_message_to_the_same_recipient_drops_the_older_one_that_waits(tmp_path: Path) -> None:
    async with Upstream() as up:
        port = up.port
        settings = config({"one": up}, supersede=True, retry=(0.05, 20.0))
    async with delivering(tmp_path, settings) as bench:
        older = await bench.send("u@example.net", supersede_key="k")
        await bench.ended(older, "deferred")
        other = await bench.send("v@example.net", supersede_key="other")
        newer = await bench.send("u@example.net", supersede_key="k")
        view = await bench.ended(older, "superseded")
        assert newer in view["recipients"][0]["reply"]
        async with Upstream(port=port) as back:
            await bench.ended(newer)
            await bench.ended(other)
            assert sorted(message.recipients for message in back.messages) == [("u@example.net",), ("v@example.net",)]
            # A bounce for a code that was asked for anew would only confuse.
            assert await bench.store.search(Selection(lane="bulk")) == []


async def test_an_older_message_in_flight_is_dropped_unless_its_final_dot_has_left(tmp_path: Path) -> None:
    settings: Any
    goes_on = asyncio.Event()
    async with Upstream(script={"mail": [Wait(goes_on)]}) as one:
        settings = config({"one": one}, supersede=True, attempt=10.0)
        async with delivering(tmp_path, settings) as bench:
            await until(lambda: warm(bench))
            older = await bench.send("u@example.net", supersede_key="k")
            await until(lambda: one.seen["mail"] == 1)  # its envelope is out, and unanswered
            newer = await bench.send("u@example.net", supersede_key="k")
            goes_on.set()
            assert (await bench.ended(older))["recipients"][0]["state"] == "superseded"
            assert (await bench.ended(newer))["recipients"][0]["state"] == "sent"
            assert len(one.transfers) == 1
    goes_on.clear()
    async with Upstream(("PIPELINING", "CHUNKING"), script={"dot": [Wait(goes_on)]}) as one:
        settings = config({"one": one}, supersede=True, final=10.0)
        async with delivering(tmp_path, settings) as bench:
            await until(lambda: warm(bench))
            older = await bench.send("u@example.net", supersede_key="k")
            await until(lambda: one.seen["dot"] == 1)  # BDAT LAST left with its envelope
            newer = await bench.send("u@example.net", supersede_key="k")
            goes_on.set()
            assert (await bench.ended(older))["recipients"][0]["state"] == "sent"
            assert (await bench.ended(newer))["recipients"][0]["state"] == "sent"


async def test_what_is_left_of_deliverby_is_passed_on(tmp_path: Path) -> None:
    extensions = ("PIPELINING", "DELIVERBY", "MT-PRIORITY")
    async with Upstream(extensions) as one, delivering(tmp_path, config({"one": one})) as bench:
        await bench.ended(await bench.send("u@example.net", priority=6, deliver_by=DeliverBy(60, "R")))
        assert "MT-PRIORITY=6" in one.messages[0].mail_from
        assert "BY=59;R" in one.messages[0].mail_from


async def test_mail_for_an_upstream_that_is_configured_no_more_goes_by_its_lanes_own(tmp_path: Path) -> None:
    async with Upstream() as one, delivering(tmp_path, config({"one": one})) as bench:
        id_ = await bench.send("u@example.net", claimed=False, upstreams=("gone",))
        assert (await bench.ended(id_))["recipients"][0]["upstream"] == "one"


async def test_a_fault_of_the_relays_own_leaves_a_message_deferred_not_stuck(tmp_path: Path) -> None:
    clumsy = [RuntimeError("once")]

    async def sign(message: Queued, unsigned: frozenset[str], *, express: bool) -> Sequence[bytes]:
        if clumsy:
            raise clumsy.pop()
        return (message.content,)

    async with Upstream() as one, delivering(tmp_path, config({"one": one}), sign=sign) as bench:
        view = await bench.ended(await bench.send("u@example.net"))
        assert view["recipients"][0]["state"] == "sent"
        # Where the envelope was out already, the first attempt had no content.
        assert bench.events.errors[:1] == ["sign: RuntimeError('once')"]
        assert bench.events.errors[1:] in ([], ["delivery: NotSigned()"])
        bench.events.errors.clear()


async def test_a_backlog_that_expired_ends_in_the_store_and_each_message_is_reported(tmp_path: Path) -> None:
    async with Upstream() as upstream, delivering(tmp_path, config({"up": upstream})) as on:
        await on.delivery.drain(1.0)
        put = [await on.send("user@example.net", sender="", claimed=False, life_s=0.0) for _ in range(120)]
        delivery = delivery_over(config({"up": upstream}), on.store, on.clock, on.events)
        delivery.start()
        for id_ in put:
            view = await on.ended(id_)
            assert view["recipients"][0]["state"] == "expired"
            assert view["recipients"][0]["reply"].endswith("expired before it could be sent")
        await delivery.drain(1.0)
        # The first batch was claimed as any is; the rest never was.
        assert set(on.events.expired) == {("otp", id_, 1) for id_ in put[CLAIM_MESSAGES:]}
        assert upstream.messages == []
