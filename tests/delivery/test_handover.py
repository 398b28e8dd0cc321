"""The hand-over: a new message's commit, signature and envelope are under way together, and its content waits."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from relay.delivery import lane
from relay.delivery.dispatch import OwnLanes
from relay.delivery.message import Job
from relay.store.base import StoreError
from relay.store.model import BOOKED, Booking, NewMessage, Queued
from tests.delivery.harness import CONTENT, Bench, config, delivering, failing, outcomes, until, warm
from tests.support.upstream import Upstream, Wait

WAYS = [("PIPELINING",), ("PIPELINING", "CHUNKING")]


class Signatures:
    """Signs with a field that names what is left out; the signature is complete once `ready` is set."""

    def __init__(self, *, ready: bool = True) -> None:
        self.asked: list[frozenset[str]] = []
        self.ready = asyncio.Event()
        self.error: Exception | None = None
        if ready:
            self.ready.set()

    def __call__(self, message: Queued, unsigned: frozenset[str], *, express: bool) -> Awaitable[Sequence[bytes]]:
        self.asked.append(unsigned)
        return self._signed(message, unsigned)

    async def _signed(self, message: Queued, unsigned: frozenset[str]) -> Sequence[bytes]:
        await self.ready.wait()
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        return field(*unsigned), message.content


def field(*unsigned: str) -> bytes:
    return f"X-Signed-But: {' '.join(sorted(unsigned))}\r\n".encode()


def commit_waits_for(bench: Bench, goes_on: asyncio.Event, begun: Callable[[], None] = lambda: None) -> None:
    """The store's next puts are complete once `goes_on` is set; `begun` is called when one is asked for."""
    put = bench.store.put

    async def late(message: NewMessage, booking: Booking) -> None:
        await goes_on.wait()
        await put(message, claimed=True, booking=booking)

    def start_put(
        message: NewMessage, *, express: bool, booking: Booking = BOOKED, others: Sequence[NewMessage] = ()
    ) -> asyncio.Future[None]:
        begun()
        return asyncio.ensure_future(late(message, booking))

    bench.store.start_put = start_put  # type: ignore[method-assign]


def envelopes(upstream: Upstream) -> int:
    return sum(session.verbs.count("RCPT") for session in upstream.sessions)


@pytest.mark.parametrize("way", WAYS, ids=" ".join)
async def test_the_envelope_leaves_before_the_commit_and_the_content_after_it(
    tmp_path: Path, way: tuple[str, ...]
) -> None:
    goes_on = asyncio.Event()
    async with Upstream(way) as one, delivering(tmp_path, config({"one": one}, attempt=10.0)) as bench:
        await until(lambda: warm(bench))
        commit_waits_for(bench, goes_on)
        coming = asyncio.create_task(bench.send("u@example.net"))
        await one.wait_until(lambda: envelopes(one) == 1)
        assert (one.transfers, coming.done()) == ([], False)
        goes_on.set()
        view = await bench.ended(await coming)
        assert outcomes(view) == [("one", "sent")]
        assert view["timings_ms"]["gate"] > 0.0


@pytest.mark.parametrize("way", WAYS, ids=" ".join)
async def test_the_content_waits_for_its_signature_too(tmp_path: Path, way: tuple[str, ...]) -> None:
    sign = Signatures(ready=False)
    async with Upstream(way) as one, delivering(tmp_path, config({"one": one}, attempt=10.0), sign=sign) as bench:
        await until(lambda: warm(bench))
        coming = asyncio.create_task(bench.send("u@example.net"))
        await one.wait_until(lambda: envelopes(one) == 1)
        async with asyncio.timeout(10):
            while bench.store.size()[0] == 0:  # until it is committed
                await asyncio.sleep(0.01)
        assert (one.transfers, coming.done()) == ([], False)
        sign.ready.set()
        await bench.ended(await coming)
        assert one.messages[0].content == field() + CONTENT
        assert len(sign.asked) == 1


async def test_the_signature_is_begun_before_the_commit(tmp_path: Path) -> None:
    sign, goes_on, signed_before = Signatures(), asyncio.Event(), []
    goes_on.set()
    async with Upstream() as one, delivering(tmp_path, config({"one": one}), sign=sign) as bench:
        commit_waits_for(bench, goes_on, lambda: signed_before.append(len(sign.asked)))
        await bench.ended(await bench.send("u@example.net"))
    assert signed_before == [1]


@pytest.mark.parametrize("where", ["at once", "later"])
async def test_what_the_store_refuses_is_not_sent(tmp_path: Path, where: str) -> None:
    async with Upstream() as one, delivering(tmp_path, config({"one": one})) as bench:
        await until(lambda: warm(bench))
        really, fails = bench.store.start_put, [True]

        async def failed() -> None:
            raise StoreError("disk full")

        def start_put(message: NewMessage, **options: Any) -> asyncio.Future[None]:
            if not fails:
                return really(message, **options)
            fails.clear()
            if where == "at once":
                raise StoreError("disk full")
            return asyncio.ensure_future(failed())

        bench.store.start_put = start_put  # type: ignore[method-assign]
        with pytest.raises(StoreError, match="disk full"):
            await bench.send("refused@example.net")
        await bench.ended(await bench.send("later@example.net"))
        assert [message.recipients for message in one.messages] == [("later@example.net",)]


async def test_a_message_whose_signature_fails_is_stored_and_goes_out_signed_by_the_next_attempt(
    tmp_path: Path,
) -> None:
    sign, goes_on = Signatures(ready=False), asyncio.Event()
    async with Upstream() as one, delivering(tmp_path, config({"one": one}, attempt=10.0), sign=sign) as bench:
        await until(lambda: warm(bench))
        sign.error = RuntimeError("once")
        commit_waits_for(bench, goes_on)
        coming = asyncio.create_task(bench.send("u@example.net"))
        await one.wait_until(lambda: envelopes(one) == 1)
        sign.ready.set()
        goes_on.set()
        view = await bench.ended(await coming)
        assert outcomes(view) == [("one", "abandoned"), ("one", "sent")]
        assert one.messages[0].content == field() + CONTENT
        assert bench.events.errors == ["sign: RuntimeError('once')", "delivery: NotSigned()"]
        bench.events.errors.clear()


async def test_a_signature_that_cannot_be_begun_keeps_no_message_from_the_store(tmp_path: Path) -> None:
    broken = [RuntimeError("once")]
    later = Signatures()

    def sign(message: Queued, unsigned: frozenset[str], *, express: bool) -> Awaitable[Sequence[bytes]]:
        if broken:
            raise broken.pop()
        return later(message, unsigned, express=express)

    async with Upstream() as one, delivering(tmp_path, config({"one": one}), sign=sign) as bench:
        view = await bench.ended(await bench.send("u@example.net"))
        assert outcomes(view) == [("one", "sent")]
        assert one.messages[0].content == field() + CONTENT
        assert bench.events.errors == ["sign: RuntimeError('once')"]
        bench.events.errors.clear()


def rewriting(upstream: Upstream, *headers: str) -> dict[str, Any]:
    return {"host": upstream.host, "port": upstream.port, "tls": "none", "unsigned_headers": headers}


async def test_an_upstream_that_rewrites_other_headers_gets_a_signature_of_its_own(tmp_path: Path) -> None:
    sign = Signatures()
    script: Any = {"rcpt": "450 4.2.0 later"}
    async with Upstream(script=script) as one, Upstream() as two:
        settings = config({"one": rewriting(one, "Date"), "two": rewriting(two, "Message-ID")})
        async with delivering(tmp_path, settings, sign=sign) as bench:
            await until(lambda: warm(bench))
            view = await bench.ended(await bench.send("u@example.net"))
            assert outcomes(view) == [("one", "deferred"), ("two", "sent")]
    assert sign.asked == [frozenset({"date"}), frozenset({"message-id"})]
    assert two.messages[0].content == field("message-id") + CONTENT


async def test_a_session_waits_with_its_envelope_for_a_signature_that_nothing_else_makes(tmp_path: Path) -> None:
    sign = Signatures()
    async with Upstream(script={"rcpt": "450 4.2.0 later"}) as one, Upstream() as two:
        settings = config({"one": rewriting(one, "Date"), "two": two}, attempt=10.0)
        async with delivering(tmp_path, settings, sign=sign) as bench:
            await until(lambda: warm(bench))
            id_ = await bench.send("u@example.net")
            sign.ready.clear()
            await until(lambda: len(sign.asked) == 2)
            assert envelopes(two) == 0
            sign.ready.set()
            assert outcomes(await bench.ended(id_)) == [("one", "deferred"), ("two", "sent")]
    assert two.messages[0].content == field() + CONTENT


async def test_the_signature_is_for_the_upstream_that_is_asked_first_not_for_one_that_is_down(tmp_path: Path) -> None:
    sign = Signatures()
    gone = {"host": "127.0.0.1", "port": 9, "tls": "none", "unsigned_headers": ("Date",)}
    async with Upstream() as two, delivering(tmp_path, config({"gone": gone, "two": two}), sign=sign) as bench:
        await until(lambda: bench.delivery.lane("otp").upstreams[0].circuit.state != "closed")
        await bench.ended(await bench.send("u@example.net"))
    assert sign.asked == [frozenset()]


async def test_what_does_not_fit_into_memory_waits_in_the_store_and_is_claimed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "EXPRESS_IN_MEMORY", (1, 1_000_000))
    goes_on = asyncio.Event()
    async with (
        Upstream(script={"mail": [Wait(goes_on)]}) as one,
        delivering(tmp_path, config({"one": one}, concurrency=1, attempt=10.0)) as bench,
    ):
        await until(lambda: warm(bench))
        first = await bench.send("first@example.net")
        second = await bench.send("second@example.net")
        assert [each["state"] for each in (await bench.view(second))["recipients"]] == ["queued"]
        goes_on.set()
        for id_ in (first, second):
            await bench.ended(id_, "sent")
        assert len(one.messages) == 2


def of_otp_only(settings: Any, woken: list[tuple[str, float]]) -> OwnLanes:
    whole = OwnLanes.whole(settings)
    return OwnLanes(("otp",), whole.upstreams, lambda name, at: woken.append((name, at)))


async def test_mail_for_another_process_is_stored_and_that_process_is_woken(tmp_path: Path) -> None:
    woken: list[tuple[str, float]] = []
    async with Upstream() as one:
        settings = config({"one": one})
        async with delivering(tmp_path, settings, own=of_otp_only(settings, woken)) as bench:
            id_ = await bench.send("u@example.net", lane="bulk")
            view = await bench.view(id_)
            assert (view["lane"], view["recipients"][0]["state"]) == ("bulk", "queued")
            assert [name for name, _ in woken] == ["bulk"]


async def test_mail_of_a_lane_that_a_reload_removed_goes_to_the_default_lane_by_its_upstreams(tmp_path: Path) -> None:
    woken: list[tuple[str, float]] = []
    async with Upstream() as one:
        settings = config({"one": one})
        async with delivering(tmp_path, settings, own=of_otp_only(settings, woken)) as bench:
            id_ = await bench.send("u@example.net", lane="gone", upstreams=("two",), supersede_key="k")
            assert (await bench.view(id_))["lane"] == "bulk"
            (queued,) = await bench.store.claim("bulk", bench.clock.now() + 1.0, messages=1, size_bytes=1)
            assert (queued.upstreams, queued.supersede_key) == ((), None)
            assert [name for name, _ in woken] == ["bulk"]


async def test_a_message_is_accepted_although_the_older_ones_cannot_be_superseded(tmp_path: Path) -> None:
    async with Upstream() as one, delivering(tmp_path, config({"one": one}, supersede=True)) as bench:
        otp = bench.delivery.lane("otp")
        await until(lambda: not otp.feeder.store_may_have_some)
        otp.wake(bench.clock.now() + 60.0)  # as if an older one waited in the store
        failing(bench, "supersede", 1)
        view = await bench.ended(await bench.send("u@example.net", supersede_key="k"))
        assert view["recipients"][0]["state"] == "sent"
        assert bench.events.errors == ["supersede: StoreError('disk I/O error')"]
        bench.events.errors.clear()


@pytest.mark.parametrize("extensions", WAYS)
async def test_a_message_that_was_sent_leaves_memory_at_once(tmp_path: Path, extensions: tuple[str, ...]) -> None:
    """A circle of references would keep each content until Python looks for circles, which takes a while."""
    async with Upstream(extensions=extensions) as one, delivering(tmp_path, config({"one": one})) as bench:
        await bench.ended(await bench.send("first@example.net"), "sent")
        gc.collect()
        gc.disable()
        try:
            await bench.ended(await bench.send("second@example.net"), "sent")
            await until(lambda: not any(isinstance(each, Job) for each in gc.get_objects()))
        finally:
            gc.enable()
