"""Upstreams that break the dialogue's rules, and sessions at the edge of their life: what a report and a pool make of
it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import pytest

from relay.clock import steady
from relay.mail.envelope import Envelope, Recipient
from relay.upstream.attempt import Progress, Terms
from relay.upstream.circuit import Circuit
from relay.upstream.gate import EXPIRED, LOST_RACE, Gate
from relay.upstream.limits import LocalLimits
from relay.upstream.quota import SessionQuota
from relay.upstream.results import TIMED_OUT, TROUBLE, OpenFailed
from relay.upstream.sessions.kept import Opening
from relay.upstream.smtp import connect
from relay.upstream.smtp.capabilities import Capabilities
from relay.upstream.smtp.commands import Mail
from relay.upstream.smtp.report import TransactionReport
from relay.upstream.smtp.session import Session
from tests.support.upstream import Close, Drip, Hang, ReplyThenClose, Reset, Upstream
from tests.upstream.test_pool import CONTENT, config, eventually, pool, send, watched

TWO = (Recipient("a@example.net"), Recipient("b@example.net"))


class Line(asyncio.Transport):
    """A connection whose other end is the test."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.protocol: asyncio.BaseProtocol | None = None
        self.ended = False
        self.takes = 10**9
        """bytes until it is full"""

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def is_closing(self) -> bool:
        return self.ended

    def write(self, data: Any) -> None:
        self.written += data
        if len(self.written) >= self.takes:
            cast(Session, self.protocol).pause_writing()

    def close(self) -> None:
        if not self.ended:
            self.ended = True
            asyncio.get_running_loop().call_soon(cast(Session, self.protocol).connection_lost, None)

    abort = close


@dataclass
class Talk:
    """One transaction over a `Line`."""

    line: Line
    session: Session
    gate: Gate
    report: asyncio.Task[TransactionReport]

    async def says(self, *segments: bytes) -> None:
        for segment in segments:
            await asyncio.sleep(0)
            self.session.data_received(segment)


def talk(
    *extensions: str,
    to: Sequence[Recipient] = TWO,
    content: bytes = CONTENT,
    is_open: bool = True,
    within_s: float = 30.0,
    final_s: float = 30.0,
    life_s: float = 60.0,
) -> Talk:
    line = Line()
    session = Session(line, Capabilities.parse(extensions), Opening(), asyncio.get_running_loop())
    gate = Gate(steady() + life_s)
    if is_open:
        gate.open()
    mail = Mail(Envelope("a@example.com", tuple(to)), list(enumerate(to)), len(content))
    deadline, terms = time.monotonic() + within_s, Terms(30.0, final_s, Progress())
    return Talk(
        line,
        session,
        gate,
        asyncio.create_task(session.transact(mail, lambda: [content], gate, deadline=deadline, terms=terms)),
    )


def outcomes(report: TransactionReport) -> list[str]:
    return [result.outcome for result in report.results]


async def test_two_replies_to_one_command_answer_no_other() -> None:
    one = talk()
    await one.says(b"250 sender ok\r\n250 and once more\r\n")
    assert outcomes(await one.report) == ["abandoned", "abandoned"]
    assert one.line.written.count(b"RCPT") == 0


@pytest.mark.parametrize("more", [b"250 taken already\r\n", b"250 tak"])
@pytest.mark.parametrize("extensions", [("PIPELINING",), ()], ids=["pipelined", "one by one"])
async def test_a_reply_that_came_before_the_content_left_does_not_answer_it(
    extensions: tuple[str, ...], more: bytes
) -> None:
    one = talk(*extensions)
    await one.says(b"250 ok\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go on\r\n" + more)
    report = await one.report
    assert outcomes(report) == ["abandoned", "abandoned"]
    assert CONTENT[:10] not in one.line.written


async def test_half_a_reply_that_came_while_the_gate_was_shut_is_no_answer_to_the_content() -> None:
    one = talk("PIPELINING", is_open=False)
    await one.says(b"250 ok\r\n250 ok\r\n250 ok\r\n354 go on\r\n", b"250 al")
    one.gate.open()
    assert outcomes(await one.report) == ["abandoned", "abandoned"]
    assert one.report.result().lost


async def test_when_replies_are_out_of_step_no_recipient_gets_the_reply_to_another() -> None:
    one = talk("PIPELINING")
    # Twice 250 to MAIL: what is said of `a` looks as though it was said of `b`.
    await one.says(b"250 ok\r\n250 ok\r\n550 5.1.1 no a here\r\n250 b is fine\r\n")
    assert outcomes(await one.report) == ["abandoned", "abandoned"]


async def test_a_surplus_reply_behind_bdat_makes_no_recipient_sent() -> None:
    one = talk("PIPELINING", "CHUNKING")
    await one.says(b"250 mail\r\n250 mail\r\n250 a\r\n250 b\r\n451 4.3.0 full\r\n")
    assert outcomes(await one.report) == ["ambiguous", "ambiguous"]
    closing = talk("PIPELINING", "CHUNKING")
    await closing.says(b"250 mail\r\n250 a\r\n250 b\r\n250 taken\r\n421 4.3.2 closing\r\n")
    assert outcomes(await closing.report) == ["sent", "sent"]


async def test_421_to_the_envelope_of_a_bdat_is_no_ambiguity() -> None:
    one = talk("PIPELINING", "CHUNKING")
    await one.says(b"250 mail\r\n250 a\r\n421 4.3.2 closing\r\n")
    one.line.close()
    assert outcomes(await one.report) == ["deferred", "deferred"]
    stays = talk("PIPELINING", "CHUNKING")
    await stays.says(b"250 mail\r\n250 a\r\n421 4.3.2 closing\r\n", b"250 2.0.0 taken, for a\r\n")
    assert outcomes(await stays.report) == ["sent", "deferred"]
    assert not stays.session.usable


@pytest.mark.parametrize("ends", ["250 2.0.0 taken", "", "hangs"])
async def test_a_content_that_was_not_sent_to_its_end_was_not_accepted(ends: str) -> None:
    content = b"Subject: x\r\n\r\n" + b"x" * 900_000 + b"\r\n"
    one = talk("PIPELINING", content=content, final_s=0.05 if ends == "hangs" else 30.0)
    one.line.takes = 400_000
    await one.says(b"250 ok\r\n250 ok\r\n250 ok\r\n354 go on\r\n")
    assert one.line.written.endswith(b"x")
    match ends:
        case "":
            one.line.close()
        case "hangs":
            pass
        case _:
            await one.says(ends.encode() + b"\r\n")
    assert outcomes(await one.report) == ["abandoned", "abandoned"]


async def test_an_early_refusal_of_a_large_content_counts() -> None:
    one = talk("PIPELINING", content=b"Subject: x\r\n\r\n" + b"x" * 900_000 + b"\r\n")
    one.line.takes = 400_000
    await one.says(b"250 ok\r\n250 ok\r\n250 ok\r\n354 go on\r\n", b"552 5.3.4 too big\r\n")
    assert outcomes(await one.report) == ["refused", "refused"]


async def test_an_upstream_that_waits_for_our_commit_has_not_timed_out() -> None:
    one = talk("PIPELINING", is_open=False, within_s=0.05)
    await one.says(b"250 ok\r\n250 ok\r\n250 ok\r\n354 go on\r\n")
    report = await one.report
    assert not report.timed_out
    assert {result.reply for result in report.results} == {TROUBLE}
    silent = talk("PIPELINING", is_open=False, within_s=0.05)
    assert (await silent.report).timed_out


async def test_a_message_whose_time_is_up_says_nothing_about_the_upstream() -> None:
    one = talk("PIPELINING", life_s=0.05, within_s=0.05)
    report = await one.report
    assert not report.timed_out
    assert {result.reply for result in report.results} == {EXPIRED}


class Winner:
    """Another upstream's try, faster at the gate."""

    def proceed(self) -> None: ...

    def stop(self) -> None: ...


async def test_nothing_is_begun_for_what_may_not_leave_any_more() -> None:
    expired = talk("PIPELINING", life_s=-1.0)
    assert {result.reply for result in (await expired.report).results} == {EXPIRED}
    assert expired.session.usable
    outrun = talk("PIPELINING")
    assert outrun.gate.ask(Winner(), steady()) == "go"
    assert {result.reply for result in (await outrun.report).results} == {LOST_RACE}
    assert outrun.line.written == expired.line.written == b""


async def test_a_session_that_ended_at_its_hand_over_is_noticed_at_once() -> None:
    async with Upstream() as upstream, pool(config(upstream)) as one:
        session = await one.pool.acquire(within_s=3)
        upstream.close_sessions(None)
        await eventually(lambda: session.state == "closed")
        report = await send(one, session)
        assert outcomes(report) == ["abandoned"]
        assert not report.timed_out
        assert report.lost


async def test_a_session_with_part_of_a_reply_buffered_is_not_used() -> None:
    line = Line()
    session = Session(line, Capabilities(), Opening(), asyncio.get_running_loop())
    assert session.usable
    session.data_received(b"42")
    assert not session.usable


async def test_a_session_with_part_of_a_reply_buffered_is_replaced() -> None:
    async with (
        Upstream(script={"idle": [Drip(None, 1.0)]}, idle_s=0.1) as upstream,
        pool(config(upstream, sessions={"max": 1})) as one,
    ):
        await eventually(lambda: one.counts()["idle"] == 1 and not one.pool.idle[0].usable)
        assert (await one.pool.acquire(within_s=3)).usable
        assert one.counts() == {"idle": 0, "busy": 1, "opening": 0}


async def test_a_session_that_we_closed_teaches_nothing_about_idle_time() -> None:
    async with (
        Upstream(script={"dot": "250 2.0.0 ok\n250 2.0.0 ok"}) as upstream,
        pool(config(upstream)) as one,
    ):
        for _ in range(3):
            assert outcomes(await send(one, await one.pool.acquire(within_s=3))) == ["sent"]
        await eventually(lambda: upstream.closed >= 3)
        assert one.maintenance.idle_limit_s == 45.0


async def test_one_restart_of_a_server_is_no_habit() -> None:
    async with Upstream() as upstream, pool(config(upstream)) as one:
        await eventually(lambda: one.counts()["idle"] == 1)
        one.pool.idle[0].idle_since -= 1.0  # it has been idle for a second
        upstream.close_sessions()
        await eventually(lambda: len(upstream.sessions) == 2)
        assert one.maintenance.idle_limit_s == 45.0


async def test_two_restarts_are_no_habit_where_sessions_were_idle_for_longer_between() -> None:
    async with Upstream() as upstream, pool(config(upstream)) as one:
        for idle_s, restarts in ((2.0, True), (46.0, False), (3.0, True)):
            await eventually(lambda: one.counts()["idle"] == 1)
            session, opened = one.pool.idle[0], len(upstream.sessions)
            session.idle_since -= idle_s
            if restarts:
                upstream.close_sessions()
            await eventually(
                lambda session=session, opened=opened: session.state == "closed" and len(upstream.sessions) > opened
            )
        assert one.maintenance.idle_limit_s == 45.0


async def test_an_upstream_that_closes_idle_sessions_at_once_is_used_on_demand() -> None:
    async with Upstream(script={"idle": Close()}, idle_s=0.05) as upstream, pool(config(upstream)) as one:
        await eventually(lambda: "on demand" in watched(one))
        await eventually(lambda: one.pool.session_count == 0)
        opened = len(upstream.sessions)
        for _ in range(3):
            assert outcomes(await send(one, await one.pool.acquire(within_s=3))) == ["sent"]
            await eventually(lambda: one.pool.session_count == 0)
        assert len(upstream.sessions) == opened + 3
        assert one.circuit.state == "closed"
        assert watched(one) == ["on demand"]


async def test_an_upstream_that_closes_each_session_behind_a_message_keeps_warm_ones() -> None:
    """It allows so many messages on a session, which says nothing about idle ones."""
    async with (
        Upstream(script={"dot": [ReplyThenClose("250 2.0.0 ok")] * 4}) as upstream,
        pool(config(upstream)) as one,
    ):
        for opened in range(2, 6):
            await eventually(lambda: one.counts()["idle"] == 1)
            assert outcomes(await send(one, await one.pool.acquire(within_s=3))) == ["sent"]
            await eventually(lambda opened=opened: len(upstream.sessions) == opened)
        assert watched(one) == []


async def test_a_session_that_stays_idle_for_a_second_ends_the_suspicion_that_none_does() -> None:
    async with Upstream() as upstream, pool(config(upstream)) as one:
        await eventually(lambda: one.counts()["idle"] == 1)
        target, now = one.maintenance.target, time.monotonic()
        assert not target.closed_at_once(now, now - 0.2, 0.2)
        one.pool.idle[0].idle_since -= 1.0
        await asyncio.sleep(0.6)  # until it is maintained
        assert not target.closed_at_once(now + 10, now + 9.8, 0.2)
        assert target.closed_at_once(now + 20, now + 19.8, 0.2)


async def test_a_probe_that_is_one_session_too_many_is_not_the_last() -> None:
    """With other sessions open, 421 in the greeting isn't taken for a dead host, yet the circuit must be probed on."""
    greets = {"greeting": [None, "421 4.7.0 too many connections"]}
    async with Upstream(script=greets) as upstream, pool(config(upstream)) as one:  # type: ignore[arg-type]
        session = await one.pool.acquire(within_s=3)
        one.condemn(OpenFailed("connect", TIMED_OUT))
        await eventually(lambda: one.circuit.state == "closed")
        assert len(upstream.sessions) >= 3
        session.quit()


@pytest.mark.parametrize("refusal", [ReplyThenClose("554 5.7.0 too many"), Close(), Reset()], ids=str)
async def test_one_session_too_many_is_no_dead_host_however_it_is_refused(refusal: Any) -> None:
    upstream = Upstream(script={"greeting": lambda _: refusal if upstream.open > 1 else None})
    async with upstream, pool(config(upstream)) as one:
        first = await one.pool.acquire(within_s=3)
        waiting = asyncio.create_task(one.pool.acquire(within_s=3))
        await eventually(lambda: upstream.closed >= 1)
        await send(one, first)
        assert await waiting is first
        assert one.circuit.state == "closed"


async def test_an_idle_session_in_the_only_place_makes_room_for_a_probe() -> None:
    async with Upstream() as upstream, pool(config(upstream, sessions={"max": 1})) as one:
        await eventually(lambda: one.counts()["idle"] == 1)
        one.condemn(OpenFailed("connect", TIMED_OUT))
        await eventually(lambda: one.circuit.state == "closed")


async def test_a_fault_of_ours_while_opening_fails_the_waiting_tries_and_is_probed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    really, faults = connect.open_session, [ValueError("once"), ValueError("twice")]

    async def opened(*args: Any, **options: Any) -> Session:
        if faults:
            raise faults.pop()
        return await really(*args, **options)

    monkeypatch.setattr("relay.upstream.smtp.upstream.open_session", opened)
    async with Upstream() as upstream, pool(config(upstream)) as one:
        with pytest.raises(OpenFailed, match="ValueError"):
            await one.pool.acquire(within_s=8)
        await eventually(lambda: one.circuit.state == "closed" and one.counts()["idle"] == 1)


async def test_a_session_that_opens_behind_the_pools_back_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.11's wait_for may swallow a cancellation: then the opening goes on."""
    really = connect.open_session
    go = asyncio.Event()

    async def opened(*args: Any, **options: Any) -> Session:
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                continue
        return await really(*args, **options)

    monkeypatch.setattr("relay.upstream.smtp.upstream.open_session", opened)
    monkeypatch.setattr("relay.upstream.sessions.openings.CLOSE_WITHIN_S", 0.05)
    monkeypatch.setattr("relay.upstream.sessions.pool.CLOSE_WITHIN_S", 0.05)
    async with Upstream() as upstream:
        async with pool(config(upstream)) as one:
            await asyncio.sleep(0)
        go.set()
        await upstream.wait_until(lambda: len(upstream.sessions) == 1 and upstream.open == 0)
        await eventually(lambda: one.pool.session_count == 0)


async def test_an_opening_that_is_called_off_before_it_began_gives_its_place_back() -> None:
    async with Upstream() as upstream:
        settings = config(upstream)
        shared = LocalLimits.of(settings)
        async with pool(settings, shared=shared) as one:
            assert one.counts()["opening"] == 1
        assert one.pool.session_count == 0
        assert shared.quota.open == 0


async def test_a_pool_can_be_closed_again() -> None:
    async with Upstream() as upstream, pool(config(upstream)) as one:
        await one.close()
        await one.close()


@pytest.mark.parametrize("script", [{"mail": Hang()}, {"rcpt": Close()}, {"mail": ReplyThenClose("250 ok")}], ids=str)
async def test_an_upstream_that_accepts_sessions_but_no_mail_is_probed_ever_less_often(script: Any) -> None:
    def one() -> Circuit:
        circuit = Circuit()
        circuit.succeeded()
        return circuit

    circuit, now, waits = one(), 1_000.0, []
    for _ in range(6):
        assert circuit.failed(now, "connection lost")
        waits.append(circuit.probe_at - now)
        now = circuit.probe_at
        circuit.probing()
        assert circuit.connected()
    assert waits == [0.25, 1.0, 5.0, 10.0, 20.0, 20.0]
    circuit.succeeded()
    circuit.failed(now, "connection lost")
    assert circuit.probe_at - now == 0.25
    async with Upstream(script=script) as upstream, pool(config(upstream)) as real:
        for _ in range(2):
            await send(real, await real.pool.acquire(within_s=3))
        assert real.circuit.state != "closed"


def test_losses_far_apart_say_nothing() -> None:
    circuit = Circuit()
    assert not circuit.lost(100.0, "lost")
    assert not circuit.lost(200.0, "lost")
    assert circuit.lost(201.0, "lost")


def test_what_codes_reserve_is_not_lent_to_several_others_together() -> None:
    class Lane:
        def __init__(self, *, express: bool) -> None:
            self.express, self.reserved, self.session_count = express, int(express), 0

        def close_idle(self) -> bool:
            return False

        def on_capacity(self) -> None: ...

    quota = SessionQuota(3)
    codes, bulk, more = Lane(express=True), Lane(express=False), Lane(express=False)
    for lane in (codes, bulk, more):
        quota.join(lane)

    def take(lane: Lane) -> bool:
        taken = quota.acquire(lane)
        lane.session_count += taken
        return taken

    assert take(bulk)
    assert take(more)
    assert not take(more)
    assert not take(bulk)
    assert take(codes)


async def test_the_answer_to_quit_is_not_taken_for_a_lost_step() -> None:
    """It switched pipelining off: for 5 minutes at first, then for an hour, then for a day."""
    async with Upstream() as upstream, pool(config(upstream)) as one:
        session = await one.pool.acquire(within_s=3)
        await send(one, session)
        session.quit()
        await eventually(lambda: session not in one.pool.sessions)
        assert not session.is_out_of_step
        assert one.pool.depth.reason == ""
