"""A stop that doesn't wait for an upstream's answer says what can't be known: the attempt behind its final dot is
`ambiguous`, in the log and in the store, and goes on as its lane's policy has it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from relay.store.model import NewMessage
from relay.upstream.smtp.session import Session
from relay.upstream.smtp.upstream import SmtpUpstream
from tests.delivery.harness import Bench, config, delivering, failing, outcomes, until, warm
from tests.support.upstream import Hang, Upstream

STOPPED = "451 4.3.2 otp-relay: the relay stopped before the upstream answered"
WAYS = [("PIPELINING",), ("PIPELINING", "CHUNKING")]


async def cut_short(bench: Bench, one: Upstream, *to: str) -> dict[str, Any]:
    """The view of a message whose content the upstream has, and doesn't answer, when the drain ends."""
    id_ = await bench.send(*to)
    await one.wait_until(lambda: bool(one.transfers))
    await bench.delivery.drain(0.2)
    return await bench.view(id_)


@pytest.mark.parametrize("way", WAYS, ids=" ".join)
async def test_with_resend_it_is_said_and_waits_for_its_next_step(tmp_path: Path, way: tuple[str, ...]) -> None:
    async with Upstream(way, script={"dot": Hang()}) as one:
        settings = config({"one": one}, final=30.0, retry=(20.0,))
        async with delivering(tmp_path, settings) as bench:
            before = bench.clock.now()
            (recipient,) = (view := await cut_short(bench, one, "u@example.net"))["recipients"]
            assert (recipient["state"], recipient["reply"]) == ("queued", STOPPED)
            assert outcomes(view) == [("one", "ambiguous")]
            assert bench.events.attempts == [("one", "ambiguous", STOPPED)]
            due = await bench.store.next_due("otp")
            assert due is not None
            assert due >= before + 20.0


async def test_with_resend_and_another_upstream_that_one_has_it_next_and_at_once(tmp_path: Path) -> None:
    async with Upstream(script={"dot": Hang()}) as one, Upstream() as two:
        settings = config({"one": one, "two": two}, final=30.0, retry=(300.0,))
        async with delivering(tmp_path, settings, on_disk=True) as bench:
            view = await cut_short(bench, one, "u@example.net")
        async with delivering(tmp_path, settings, recover=True) as bench:
            view = await bench.ended(view["id"], "sent")
            assert outcomes(view) == [("one", "ambiguous"), ("two", "sent")]
            assert len(one.transfers) == 1


async def test_with_hold_it_is_said_as_well(tmp_path: Path) -> None:
    async with Upstream(script={"dot": Hang()}) as one:
        settings = config({"one": one}, final=30.0, on_ambiguous="hold")
        async with delivering(tmp_path, settings) as bench:
            view = await cut_short(bench, one, "a@example.net", "b@example.net")
            assert [each["state"] for each in view["recipients"]] == ["ambiguous", "ambiguous"]
            assert outcomes(view) == [("one", "ambiguous")]
            assert bench.events.attempts == [("one", "ambiguous", STOPPED)] * 2


async def test_what_stands_before_its_final_dot_is_only_given_back(tmp_path: Path) -> None:
    async with Upstream(script={"mail": Hang()}) as one:
        async with delivering(tmp_path, config({"one": one}, attempt=30.0), on_disk=True) as bench:
            id_ = await bench.send("u@example.net")
            await one.wait_until(lambda: bool(one.sessions) and "MAIL" in one.sessions[0].verbs)
            await bench.delivery.drain(0.2)
            assert [each["state"] for each in (await bench.view(id_))["recipients"]] == ["queued"]
            assert bench.events.attempts == []
        one.set_script({})
        async with delivering(tmp_path, config({"one": one}), recover=True) as bench:
            assert outcomes(await bench.ended(id_, "sent")) == [("one", "sent")]


async def test_a_fault_behind_an_accepted_final_dot_takes_nothing_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Upstream() as one, delivering(tmp_path, config({"one": one})) as bench:
        returned = SmtpUpstream.return_session

        def broken(upstream: SmtpUpstream, session: Session, *args: Any, **options: Any) -> None:
            returned(upstream, session, *args, **options)
            raise RuntimeError("broken")

        monkeypatch.setattr(SmtpUpstream, "return_session", broken)
        view = await bench.ended(await bench.send("u@example.net"))
        assert outcomes(view) == [("one", "sent")]
        assert bench.events.errors == ["delivery: RuntimeError('broken')"]
        bench.events.errors.clear()
        assert len(one.transfers) == 1


async def test_a_fault_behind_an_unanswered_final_dot_is_ambiguous(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        Upstream(script={"dot": Hang()}) as one,
        delivering(tmp_path, config({"one": one}, on_ambiguous="hold")) as bench,
    ):
        # What its timer does, when the answer takes too long.
        monkeypatch.setattr(Session, "transact", _failing(Session.transact))
        view = await bench.ended(await bench.send("u@example.net"), "ambiguous")
        assert outcomes(view) == [("one", "ambiguous")]
        await until(lambda: bench.events.errors == ["delivery: RuntimeError('broken')"])
        bench.events.errors.clear()


def _failing(really: Any) -> Any:
    async def transact(*args: Any, **options: Any) -> Any:
        await really(*args, **options)
        raise RuntimeError("broken")

    return transact


async def test_a_drain_that_ends_while_messages_are_being_stored_sends_none_of_them_and_the_next_start_does(
    tmp_path: Path,
) -> None:
    written = asyncio.Event()
    async with Upstream() as one:
        settings = config({"one": one}, concurrency=1)
        async with delivering(tmp_path, settings, on_disk=True) as bench:
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


async def test_it_is_said_which_write_failed_behind_a_drain(tmp_path: Path) -> None:
    async with Upstream() as one, delivering(tmp_path, config({"one": one})) as bench:
        settle, errors = bench.store.settle, bench.events.errors
        failing(bench, "settle", 99)
        id_ = await bench.send("u@example.net")
        await until(lambda: bool(errors))
        await bench.delivery.drain(0.0)
        assert not await bench.delivery.retry_settlements()
        assert {error.partition(":")[0] for error in errors} == {"settle"}
        errors.clear()
        bench.store.settle = settle  # type: ignore[method-assign]
        failing(bench, "unclaim", 1)
        assert not await bench.delivery.retry_settlements()
        assert errors == ["unclaim: StoreError('disk I/O error')"]
        errors.clear()
        assert await bench.delivery.retry_settlements()
        assert (await bench.view(id_))["recipients"][0]["state"] == "sent"
