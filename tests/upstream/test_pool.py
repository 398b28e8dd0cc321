"""Sessions, kept and replaced, against real sockets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakKeyDictionary

import pytest

from relay.clock import steady
from relay.config.model import Upstream as Config
from relay.mail.envelope import Envelope, Recipient
from relay.upstream.attempt import Progress, Terms
from relay.upstream.gate import Gate
from relay.upstream.limits import LocalLimits, UpstreamLimits
from relay.upstream.results import OpenFailed
from relay.upstream.smtp.commands import Mail
from relay.upstream.smtp.report import TransactionReport
from relay.upstream.smtp.session import Session
from relay.upstream.smtp.upstream import SmtpUpstream
from relay.upstream.target import Target
from tests.support.tls import Certificates
from tests.support.upstream import Close, Garbage, Hang, ReplyThenClose, Upstream

CONTENT = b"Subject: x\r\n\r\n.dot\r\n"


class Watch:
    def __init__(self) -> None:
        self.events: list[str] = []
        self.changed = asyncio.Event()

    def down(self, lane: str, upstream: str, reason: str) -> None:
        self.events.append(f"down {reason}")
        self.changed.set()

    def up(self, lane: str, upstream: str) -> None:
        self.events.append("up")
        self.changed.set()

    def on_demand(self, lane: str, upstream: str, after_s: float) -> None:
        self.events.append("on demand")
        self.changed.set()

    def one_at_a_time(self, lane: str, upstream: str, reason: str) -> None:
        self.events.append("one at a time")
        self.changed.set()

    def way_down(self, lane: str, upstream: str, way: str, reason: str) -> None:
        self.events.append(f"{way} down {reason}")

    def way_up(self, lane: str, upstream: str, way: str) -> None:
        self.events.append(f"{way} up")


WATCHES: WeakKeyDictionary[SmtpUpstream, Watch] = WeakKeyDictionary()


def config(upstream: Upstream, **changes: object) -> Config:
    given = changes.pop("sessions", {})
    sessions = {"warm": 1, "max": 3, "idle": 45.0, "messages": 100, "depth": 1, **given}  # type: ignore[dict-item]
    values = {"host": upstream.host, "port": upstream.port, "tls": "none", "sessions": sessions, **changes}
    return Config.model_validate(values)


@asynccontextmanager
async def pool(
    settings: Config, *, express: bool = True, shared: UpstreamLimits | None = None
) -> AsyncIterator[SmtpUpstream]:
    target = Target.of("up", settings, "relay.example.com")
    limits = shared or LocalLimits.of(settings)
    watch = Watch()
    one = SmtpUpstream("otp", target, limits, express=express, open_within_s=3.0, watcher=watch)
    WATCHES[one] = watch
    one.start()
    try:
        yield one
    finally:
        await one.close()


def watched(one: SmtpUpstream) -> list[str]:
    """The calls to its watcher."""
    return WATCHES[one].events


async def eventually(true: object) -> None:
    assert callable(true)
    async with asyncio.timeout(8):
        while not true():
            await asyncio.sleep(0.01)


async def send(one: SmtpUpstream, session: Session, *to: str) -> TransactionReport:
    recipients = tuple(Recipient(address) for address in to or ("u@example.net",))
    mail = Mail(Envelope("a@example.com", recipients), list(enumerate(recipients)), len(CONTENT))
    gate = Gate(steady() + 60)
    gate.open()
    report = await session.transact(
        mail, lambda: [CONTENT], gate, deadline=time.monotonic() + 2, terms=Terms(2.0, 2.0, Progress())
    )
    one.return_session(session, report)
    return report


async def test_a_warm_session_stands_before_anything_is_sent_and_is_used_again() -> None:
    async with Upstream() as upstream, pool(config(upstream)) as one:
        await eventually(lambda: one.counts()["idle"] == 1)
        for _ in range(3):
            report = await send(one, await one.pool.acquire(within_s=3))
            assert [result.outcome for result in report.results] == ["sent"]
        assert len(upstream.sessions) == 1
        assert [message.content for message in upstream.messages] == [CONTENT] * 3


async def test_bursts_open_up_to_max_and_no_more() -> None:
    async with Upstream() as upstream, pool(config(upstream)) as one:
        held = [await one.pool.acquire(within_s=3) for _ in range(3)]
        with pytest.raises(OpenFailed, match="no session free"):
            await one.pool.acquire(within_s=0.2)
        waiting = asyncio.create_task(one.pool.acquire(within_s=3))
        await asyncio.sleep(0)
        await send(one, held[0])
        assert await waiting is held[0]
        assert upstream.peak == 3


async def test_a_cancelled_wait_loses_no_session() -> None:
    async with Upstream() as upstream, pool(config(upstream, sessions={"max": 1})) as one:
        session = await one.pool.acquire(within_s=3)
        waiting = asyncio.create_task(one.pool.acquire(within_s=3))
        await asyncio.sleep(0)
        await send(one, session)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert await one.pool.acquire(within_s=1) is session


async def test_a_session_ends_after_its_messages() -> None:
    async with Upstream() as upstream, pool(config(upstream, sessions={"messages": 2})) as one:
        for _ in range(4):
            await send(one, await one.pool.acquire(within_s=3))
        assert [len([verb for verb in each.verbs if verb == "MAIL"]) for each in upstream.sessions[:2]] == [2, 2]


async def test_an_idle_session_is_replaced_before_it_grows_old() -> None:
    async with Upstream() as upstream, pool(config(upstream, sessions={"idle": 0.2})) as one:
        await eventually(lambda: len(upstream.sessions) >= 3)
        assert upstream.sessions[0].verbs[-1] == "QUIT"
        await eventually(lambda: one.counts()["idle"] >= 1)


async def test_an_upstream_that_closes_idle_sessions_teaches_the_pool() -> None:
    async with Upstream(idle_s=1.5) as upstream, pool(config(upstream)) as one:
        await eventually(lambda: len(upstream.sessions) >= 2)
        await eventually(lambda: any(each.verbs[-1:] == ["QUIT"] for each in upstream.sessions))
        assert (await send(one, await one.pool.acquire(within_s=3))).results[0].outcome == "sent"


async def test_the_lanes_of_an_upstream_share_its_budget_and_bulk_leaves_room() -> None:
    async with Upstream() as upstream:
        settings = config(upstream, sessions={"max": 3, "warm": 1})
        shared = LocalLimits.of(settings)
        async with pool(settings, shared=shared) as express, pool(settings, express=False, shared=shared) as bulk:
            await eventually(lambda: express.counts()["idle"] == 1)
            for _ in range(2):
                await bulk.pool.acquire(within_s=3)
            with pytest.raises(OpenFailed):
                await bulk.pool.acquire(within_s=0.2)
            assert await express.pool.acquire(within_s=0.2)
            assert upstream.peak == 3


async def test_with_one_session_allowed_bulk_gives_it_up_to_a_code() -> None:
    async with Upstream() as upstream:
        settings = config(upstream, sessions={"max": 1, "warm": 0})
        shared = LocalLimits.of(settings)
        async with pool(settings, shared=shared) as express, pool(settings, express=False, shared=shared) as bulk:
            session = await bulk.pool.acquire(within_s=3)
            code = asyncio.create_task(express.pool.acquire(within_s=3))
            await asyncio.sleep(0)
            await send(bulk, session)
            assert (await send(express, await code)).results[0].outcome == "sent"
            assert upstream.peak == 1


@pytest.mark.parametrize(
    ("script", "phase"),
    [
        ({"greeting": "554 5.7.1 go away"}, "greeting"),
        ({"greeting": Garbage(b"\xff\xfe\r\n")}, "greeting"),
        ({"greeting": Hang()}, "connect"),
        ({"greeting": Close()}, "connect"),
        ({"ehlo": "550 5.7.1 not you"}, "ehlo"),
    ],
)
async def test_an_upstream_that_turns_us_away_opens_the_circuit(script: dict[str, object], phase: str) -> None:
    async with Upstream(script=script) as upstream, pool(config(upstream)) as one:  # type: ignore[arg-type]
        await eventually(lambda: one.circuit.state != "closed")
        assert phase in one.circuit.reason or one.circuit.state == "half-open"


async def test_a_recovered_upstream_is_found_by_probes() -> None:
    async with Upstream() as gone:
        port, settings = gone.port, config(gone)
    async with pool(settings) as one:
        await eventually(lambda: one.circuit.state == "open")
        async with Upstream(port=port):
            await eventually(lambda: one.circuit.state == "closed" and one.counts()["idle"] == 1)


async def test_credentials_never_travel_in_clear_and_a_stripped_starttls_gets_nothing(
    certificates: Certificates,
) -> None:
    async with Upstream(auth={"u": "s3cret"}) as upstream:
        settings = config(upstream, tls="starttls", ca_file=certificates.ca_file, username="u", password="s3cret")
        async with pool(settings) as one:
            await eventually(lambda: one.circuit.state == "open")
        assert "STARTTLS is not offered" in one.circuit.reason
        assert not any(verb in ("AUTH", "MAIL") for each in upstream.sessions for verb in each.verbs)


@pytest.mark.parametrize("name", ["expired", "wrong_host", "self_signed"])
@pytest.mark.parametrize("tls", ["starttls", "implicit"])
async def test_a_bad_certificate_gets_no_credentials(certificates: Certificates, name: str, tls: str) -> None:
    certificate = getattr(certificates, name)
    async with Upstream(tls=tls, certificate=certificate, auth={"u": "s3cret"}) as upstream:  # type: ignore[arg-type]
        settings = config(upstream, tls=tls, ca_file=certificates.ca_file, username="u", password="s3cret")
        async with pool(settings) as one:
            await eventually(lambda: one.circuit.state == "open")
        assert "certificate not trusted" in one.circuit.reason
        assert not any(verb in ("AUTH", "MAIL") for each in upstream.sessions for verb in each.verbs)


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
async def test_a_secured_session_authenticates_and_carries_mail(certificates: Certificates, tls: str) -> None:
    async with Upstream(tls=tls, certificate=certificates.good, auth={"u": "s3cret"}) as upstream:  # type: ignore[arg-type]
        settings = config(
            upstream, host="localhost", tls=tls, ca_file=certificates.ca_file, username="u", password="s3cret"
        )
        async with pool(settings) as one:
            report = await send(one, await one.pool.acquire(within_s=3))
        assert [result.outcome for result in report.results] == ["sent"]
        assert upstream.messages[0].tls


@pytest.mark.parametrize(
    ("script", "outcome", "answered"),
    [
        ({"mail": Close()}, "abandoned", 0),
        ({"mail": Hang()}, "abandoned", 0),
        ({"mail": "451 4.3.0 later"}, "deferred", 3),
        ({"mail": "550 5.1.0 no"}, "refused", 3),
        ({"rcpt": Close()}, "abandoned", 1),
        ({"rcpt": "550 5.1.1 no such user"}, "refused", 3),
        ({"data": Close()}, "abandoned", 2),
        ({"data": "554 5.7.1 no"}, "refused", 3),
        ({"data": Garbage(b"what?\r\n")}, "abandoned", 2),
        ({"dot": Close()}, "ambiguous", 3),
        ({"dot": Hang()}, "ambiguous", 3),
        ({"dot": Garbage(b"\x00\x01\r\n")}, "ambiguous", 3),
        ({"dot": "451 4.3.0 later"}, "deferred", 4),
        ({"dot": "552 5.2.2 full"}, "refused", 4),
        ({"dot": "299 2.0.0 strange but fine"}, "sent", 4),
        ({"dot": ReplyThenClose("250 2.0.0 ok")}, "sent", 4),
        ({"rcpt": "421 4.3.2 closing"}, "deferred", 2),
    ],
)
@pytest.mark.parametrize("pipelining", [True, False], ids=["pipelined", "one by one"])
async def test_each_end_of_a_transaction_has_an_outcome_of_its_own(
    script: dict[str, object], outcome: str, answered: int, pipelining: bool
) -> None:
    extensions = ("PIPELINING", "8BITMIME") if pipelining else ("8BITMIME",)
    async with Upstream(extensions, script=script) as upstream, pool(config(upstream)) as one:  # type: ignore[arg-type]
        report = await send(one, await one.pool.acquire(within_s=3))
        assert [result.outcome for result in report.results] == [outcome]
        if pipelining:
            assert report.answered == answered


async def test_a_session_is_reset_off_the_way_and_then_used_again() -> None:
    async with Upstream(("PIPELINING",), script={"rcpt": ["550 5.1.1 no"]}) as upstream, pool(config(upstream)) as one:
        assert (await send(one, await one.pool.acquire(within_s=3))).results[0].outcome == "refused"
        assert (await send(one, await one.pool.acquire(within_s=3))).results[0].outcome == "sent"
        assert upstream.sessions[0].verbs.count("RSET") == 1
        assert upstream.sessions[0].transfers == 1


async def test_a_warm_session_that_takes_the_only_place_doesnt_starve_bulk() -> None:
    async with Upstream() as upstream:
        settings = config(upstream, sessions={"max": 1, "warm": 1})
        shared = LocalLimits.of(settings)
        async with pool(settings, shared=shared) as express, pool(settings, express=False, shared=shared) as bulk:
            await eventually(lambda: express.counts()["idle"] == 1)
            assert (await send(bulk, await bulk.pool.acquire(within_s=3))).results[0].outcome == "sent"
            assert (await send(express, await express.pool.acquire(within_s=3))).results[0].outcome == "sent"
            assert upstream.peak == 1


async def test_sessions_that_a_burst_of_codes_left_idle_dont_starve_bulk() -> None:
    async with Upstream() as upstream:
        settings = config(upstream, sessions={"max": 3, "warm": 1})
        shared = LocalLimits.of(settings)
        async with pool(settings, shared=shared) as express, pool(settings, express=False, shared=shared) as bulk:
            for session in [await express.pool.acquire(within_s=3) for _ in range(3)]:
                await send(express, session)
            waiting = [asyncio.create_task(bulk.pool.acquire(within_s=8)) for _ in range(4)]
            assert (await send(bulk, await waiting[0])).results[0].outcome == "sent"
            assert express.counts()["idle"] >= 1
            assert upstream.peak == 3
            for one in waiting:
                one.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)


async def test_bulk_that_never_ends_gives_its_session_up_to_a_code() -> None:
    async with Upstream() as upstream:
        settings = config(upstream, sessions={"max": 1, "warm": 0})
        shared = LocalLimits.of(settings)
        async with pool(settings, shared=shared) as express, pool(settings, express=False, shared=shared) as bulk:
            session = await bulk.pool.acquire(within_s=3)
            backlog = [asyncio.create_task(bulk.pool.acquire(within_s=8)) for _ in range(3)]
            code = asyncio.create_task(express.pool.acquire(within_s=3))
            await asyncio.sleep(0)
            await send(bulk, session)
            assert (await send(express, await code)).results[0].outcome == "sent"
            assert not any(one.done() for one in backlog)
            assert (await send(bulk, await backlog[0])).results[0].outcome == "sent"
            for one in backlog:
                one.cancel()
            await asyncio.gather(*backlog, return_exceptions=True)


async def test_a_lowered_limit_holds_as_soon_as_sessions_end_their_work() -> None:
    async with Upstream() as upstream:
        settings = config(upstream, sessions={"max": 4, "warm": 0})
        shared = LocalLimits.of(settings)
        async with pool(settings, express=False, shared=shared) as bulk:
            bulk.window.opened(4)
            for _ in range(40):  # the window grows with what is sent
                held = [
                    await bulk.pool.acquire(within_s=3) for _ in range(min(bulk.window.sessions(time.monotonic()), 4))
                ]
                await asyncio.gather(*(send(bulk, one) for one in held))
            held = [await bulk.pool.acquire(within_s=3) for _ in range(4)]
            waiting = asyncio.create_task(bulk.pool.acquire(within_s=8))
            shared.apply(config(upstream, sessions={"max": 2, "warm": 0}))
            assert bulk.pool.session_count == 4
            for one in held:
                await send(bulk, one)
            await eventually(lambda: bulk.pool.session_count == 2 and upstream.open == 2)
            assert (await send(bulk, await waiting)).results[0].outcome == "sent"


@pytest.mark.parametrize("begun", [False, True], ids=["idle", "busy"])
async def test_a_session_whose_task_is_over_is_closed_and_its_place_is_free_again(begun: bool) -> None:
    async with (
        Upstream(script={"mail": [Hang()]} if begun else {}) as upstream,
        pool(config(upstream, sessions={"max": 1, "warm": 0})) as one,
    ):
        kept: list[object] = []

        async def forgets() -> None:
            session = await one.pool.acquire(within_s=3)
            if begun:
                recipients = (Recipient("u@example.net"),)
                mail = Mail(Envelope("a@example.com", recipients), list(enumerate(recipients)), len(CONTENT))
                deadline, terms = time.monotonic() + 60, Terms(60.0, 60.0, Progress())
                transacting = session.transact(
                    mail, lambda: [CONTENT], Gate(steady() + 60), deadline=deadline, terms=terms
                )
                kept.append(transacting.send(None))
            kept.append(session)

        await asyncio.create_task(forgets())
        assert one.counts() == {"idle": 0, "busy": 1, "opening": 0}
        assert (await send(one, await one.pool.acquire(within_s=8))).results[0].outcome == "sent"
        assert len(upstream.sessions) == 2


async def test_a_session_in_use_is_not_swept_up_however_long_that_takes() -> None:
    async with Upstream() as upstream, pool(config(upstream, sessions={"idle": 0.4, "warm": 2})) as one:
        session = await one.pool.acquire(within_s=3)
        swept = len(upstream.sessions)
        await eventually(lambda: len(upstream.sessions) >= swept + 3)  # retired in time, so as many rounds have passed
        assert (await send(one, session)).results[0].outcome == "sent"


async def test_a_burst_of_codes_leaves_bulk_mail_what_isnt_reserved() -> None:
    async with Upstream() as upstream:
        settings = config(upstream, sessions={"warm": "auto", "max": 6})
        shared = LocalLimits.of(settings)
        async with pool(settings, shared=shared) as express, pool(settings, express=False, shared=shared) as bulk:
            express.maintenance.note_demand(6)
            await eventually(lambda: express.counts()["idle"] == 6)
            for _ in range(3):
                await bulk.pool.acquire(within_s=3)
            assert express.counts()["idle"] == 3
            with pytest.raises(OpenFailed, match="no session free"):
                await bulk.pool.acquire(within_s=0.2)
            assert express.counts()["idle"] == 3, "none is closed in vain"


async def test_express_lanes_that_reserve_more_than_there_is_share_it() -> None:
    async with Upstream() as upstream:
        settings = config(upstream, sessions={"warm": 0, "max": 6})
        shared = LocalLimits.of(settings)
        async with (
            pool(settings, shared=shared) as one,
            pool(settings, shared=shared) as two,
            pool(settings, shared=shared) as three,
        ):
            lanes = (one, two, three)
            for lane in lanes:
                await lane.pool.acquire(within_s=3)
            for lane in lanes:
                lane.maintenance.stop()
                lane.pool.reserved = 3  # as bursts in all of them leave it
            for lane in lanes:
                await lane.pool.acquire(within_s=3)
            assert upstream.open == shared.quota.open == 6
