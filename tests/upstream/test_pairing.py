"""Which command a reply answers: a reply that no command asked for is never taken for an answer."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import pytest

from relay.clock import steady
from relay.mail.envelope import Envelope, Recipient
from relay.upstream.attempt import Progress, Terms
from relay.upstream.gate import Answer, Carrier, Gate
from relay.upstream.sessions.kept import Opening
from relay.upstream.smtp.capabilities import Capabilities
from relay.upstream.smtp.commands import Mail
from relay.upstream.smtp.report import TransactionReport
from relay.upstream.smtp.session import Session
from tests.upstream.test_faults import outcomes, talk
from tests.upstream.test_pool import CONTENT

TO = (Recipient("u@example.net"),)
MAIL, RCPT = b"250 2.1.0 sender ok\r\n", b"250 2.1.5 u@example.net ok\r\n"


def begin(session: Session, gate: Gate | None = None, to: Sequence[Recipient] = TO) -> asyncio.Task[TransactionReport]:
    if gate is None:
        gate = Gate(steady() + 60)
        gate.open()
    mail = Mail(Envelope("a@example.com", tuple(to)), list(enumerate(to)), len(CONTENT))
    deadline, terms = time.monotonic() + 30, Terms(30.0, 30.0, Progress())
    return asyncio.create_task(session.transact(mail, lambda: [CONTENT], gate, deadline=deadline, terms=terms))


class WatchedGate(Gate):
    """`asked` once a session has come to it."""

    def __init__(self, deadline: float) -> None:
        super().__init__(deadline)
        self.asked = asyncio.Event()

    def ask(self, carrier: Carrier, now: float, *, needs_mark: bool = True) -> Answer:
        self.asked.set()
        return super().ask(carrier, now, needs_mark=needs_mark)


@asynccontextmanager
async def connected(*extensions: str) -> AsyncIterator[tuple[Session, socket.socket]]:
    """A session over a real connection; the other end is read and written by hand, without the loop."""
    ours, theirs = socket.socketpair()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
    try:
        yield Session(transport, Capabilities.parse(extensions), Opening(), loop), theirs
    finally:
        transport.abort()
        theirs.close()


@pytest.mark.parametrize("said", [b"250 2.0.0 once more\r\n", b"4", None], ids=["a reply", "a byte", "the end"])
async def test_what_lies_unread_before_a_transaction_is_no_answer_to_it(said: bytes | None) -> None:
    async with connected("PIPELINING", "CHUNKING") as (session, server):
        running = begin(session)
        if said is None:
            server.shutdown(socket.SHUT_WR)
        else:
            server.send(said)
        report = await running
        assert outcomes(report) == ["abandoned"]
        assert (report.lost, report.answered) == (True, 0)
        server.settimeout(5)
        with suppress(ConnectionResetError):
            assert server.recv(1000) == b""
        assert session.state == "closed"


async def test_what_lies_unread_when_the_content_is_about_to_leave_is_no_answer_to_it() -> None:
    async with connected("PIPELINING") as (session, server):
        gate = WatchedGate(steady() + 60)
        running = begin(session, gate)
        await asyncio.sleep(0)
        server.send(MAIL + RCPT + b"354 go on\r\n")
        async with asyncio.timeout(5):
            await gate.asked.wait()
        server.send(b"250 2.0.0 taken already\r\n")
        gate.open()
        assert outcomes(await running) == ["abandoned"]
        server.settimeout(5)
        assert CONTENT not in server.recv(1000)


async def test_a_large_content_in_one_flight_with_its_envelope_goes_on_while_that_is_answered() -> None:
    one = talk("PIPELINING", "CHUNKING", content=b"Subject: x\r\n\r\n" + b"x" * 900_000 + b"\r\n")
    one.line.takes = 400_000
    await one.says(b"250 mail\r\n", b"250 a\r\n", b"250 b\r\n")
    one.line.takes = 10**9
    one.session.resume_writing()
    await one.says(b"250 taken\r\n")
    assert outcomes(await one.report) == ["sent", "sent"]


async def test_a_large_content_in_one_flight_is_not_taken_before_it_left() -> None:
    one = talk("PIPELINING", "CHUNKING", content=b"Subject: x\r\n\r\n" + b"x" * 900_000 + b"\r\n")
    one.line.takes = 400_000
    await one.says(b"250 mail\r\n", b"250 a\r\n", b"250 b\r\n", b"250 taken\r\n")
    assert outcomes(await one.report) == ["abandoned", "abandoned"]
