"""A connection whose packets are lost without an RST ends soon; one whose peer merely reads slowly does not."""

from __future__ import annotations

import asyncio
import socket
import sys
import time

import pytest

from relay.clock import steady
from relay.config.model import Upstream as Config
from relay.mail.envelope import Envelope, Recipient
from relay.upstream import flow
from relay.upstream.attempt import Progress, Terms
from relay.upstream.gate import Gate
from relay.upstream.results import LOST
from relay.upstream.smtp.commands import Mail
from relay.upstream.smtp.connect import open_session
from relay.upstream.smtp.report import TransactionReport
from relay.upstream.smtp.session import Session
from relay.upstream.target import Target
from tests.support.upstream import Stall, Upstream, Wait

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="TCP_USER_TIMEOUT is Linux's")

SMALL = b"Subject: x\r\n\r\n482931\r\n"
LARGE = b"Subject: x\r\n\r\n" + (b"x" * 70 + b"\r\n") * 300_000
"""more than the kernels' buffers take"""


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "LOST_AFTER_S", 0.3)


async def opened(upstream: Upstream, *, express: bool = True) -> Session:
    settings = Config.model_validate({"host": upstream.host, "port": upstream.port, "tls": "none"})
    return await open_session(Target.of("up", settings, "relay.example.com"), timeout_s=5.0, express=express)


async def send(session: Session, content: bytes) -> TransactionReport:
    to = Recipient("u@example.net")
    gate = Gate(steady() + 60)
    gate.open()
    return await session.transact(
        Mail(Envelope("a@example.com", (to,)), [(0, to)], len(content)),
        lambda: [content],
        gate,
        deadline=time.monotonic() + 50,
        terms=Terms(50.0, 50.0, Progress()),
    )


def limit_ms(session: Session) -> int:
    """What the kernel has for the connection; 0: no limit."""
    connection: socket.socket = session.transport_info("socket")
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)


async def test_only_connections_of_express_lanes_have_the_limit() -> None:
    async with Upstream() as upstream:
        express, bulk = await opened(upstream), await opened(upstream, express=False)
        assert (limit_ms(express), limit_ms(bulk)) == (3000, 0)
        express.abort()
        bulk.abort()


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize(
    ("extensions", "outcome"), [((), "abandoned"), (("PIPELINING",), "abandoned"), (("CHUNKING",), "ambiguous")]
)
async def test_a_dead_connection_ends_long_before_the_deadlines(extensions: tuple[str, ...], outcome: str) -> None:
    async with Upstream(("PIPELINING", *extensions) if extensions else ()) as upstream:
        session = await opened(upstream)
        upstream.swallow_sessions()
        async with asyncio.timeout(20):  # the deadlines are 50 s
            report = await send(session, SMALL)
        assert [(result.outcome, result.reply) for result in report.results] == [(outcome, LOST)]
        assert session.state == "closed"


@pytest.mark.usefixtures("soon")
async def test_an_upstream_that_stops_reading_a_large_content_for_longer_than_the_limit_gets_it_all() -> None:
    async with Upstream(("PIPELINING", "CHUNKING"), script={"rcpt": Stall(1.5)}) as upstream:
        session = await opened(upstream)
        report = await send(session, LARGE)
        assert [result.outcome for result in report.results] == ["sent"]
        assert upstream.messages[0].content == LARGE
        assert limit_ms(session) == 300  # again, for what comes next
        session.abort()


async def test_the_limit_is_off_while_several_contents_together_are_large() -> None:
    answer = asyncio.Event()
    async with Upstream(("PIPELINING", "CHUNKING"), script={"dot": Wait(answer)}) as upstream:
        session = await opened(upstream)
        content = b"Subject: x\r\n\r\n" + b"x" * 70 * 300 + b"\r\n"
        first = asyncio.create_task(send(session, content))
        await upstream.wait_until(lambda: len(upstream.transfers) == 1)
        assert limit_ms(session) == 3000
        assert session.has_room
        second = asyncio.create_task(send(session, content))
        async with asyncio.timeout(8):
            while limit_ms(session):
                await asyncio.sleep(0.01)
        answer.set()
        assert [one.results[0].outcome for one in await asyncio.gather(first, second)] == ["sent", "sent"]
        assert limit_ms(session) == 3000
        session.abort()
