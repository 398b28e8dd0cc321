"""Whose answer a reply is: what nobody asked for is taken for no answer, however late or early it comes."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import pytest

from relay.clock import steady
from relay.mail.envelope import Envelope, Recipient
from relay.mail.reply import Reply
from relay.upstream.base import Progress, Terms
from relay.upstream.gate import Gate
from relay.upstream.smtp.capabilities import Capabilities
from relay.upstream.smtp.commands import Mail
from relay.upstream.smtp.session import Opening, Session, TransactionReport
from relay.upstream.smtp.wording import Wording
from tests.support.script import Script
from tests.support.upstream import Split, Upstream
from tests.upstream.test_faults import Line, talk, told
from tests.upstream.test_pool import CONTENT, config, pool, send

TO = (Recipient("u@example.net"),)
MAIL, RCPT = b"250 2.1.0 sender ok\r\n", b"250 2.1.5 u@example.net ok\r\n"


def begin(session: Session, gate: Gate | None = None, to: Sequence[Recipient] = TO) -> asyncio.Task[TransactionReport]:
    if gate is None:
        gate = Gate(steady() + 60)
        gate.open()
    mail = Mail(Envelope("a@example.com", tuple(to)), list(enumerate(to)), len(CONTENT))
    before, terms = time.monotonic() + 30, Terms(30.0, 30.0, Progress())
    return asyncio.create_task(session.transact(mail, lambda: [CONTENT], gate, before=before, terms=terms))


LATE = {
    "to the content, again": [b"250 2.0.0 Ok: queued as 4XyZ\r\n", MAIL, RCPT],
    "to RCPT, again": [RCPT, MAIL, RCPT],
    "of any kind": [b"250 2.0.0 go on\r\n", MAIL, RCPT],
}


@pytest.mark.parametrize("replies", LATE.values(), ids=LATE)
@pytest.mark.parametrize("truth", [b"451 4.3.0 disk full\r\n", b"550 5.7.1 spam\r\n"])
async def test_a_late_reply_too_many_makes_no_false_sent(replies: list[bytes], truth: bytes) -> None:
    """It comes in the middle of the next transaction, in a segment of its own: then RCPT's answer would be BDAT's."""
    line = Line()
    session = Session(line, Capabilities.parse(["PIPELINING", "CHUNKING"]), Opening(), asyncio.get_running_loop())
    first = begin(session)
    for segment in (MAIL, RCPT, b"250 2.0.0 Ok: queued as 4XyA\r\n"):
        await asyncio.sleep(0)
        session.data_received(segment)
    assert told(await first) == ["sent"]
    second = begin(session)
    for segment in (*replies, truth):
        await asyncio.sleep(0)
        session.data_received(segment)
    assert told(await second) == ["ambiguous"]
    assert line.ended


async def test_over_a_real_connection_too() -> None:
    late = Split([b"250 2.0.0 Ok: queued as 1\r\n", b"250 2.0.0 Ok: queued as 1\r\n"], pause_s=0.02)
    script: Script = {"dot": [late, "451 4.3.0 later"]}
    async with (
        Upstream(["PIPELINING", "CHUNKING"], script=script, latency_s=0.05) as upstream,
        pool(config(upstream)) as one,
    ):
        session = await one.get(within_s=3)
        assert told(await send(one, session)) == ["sent"]
        assert told(await send(one, session)) == ["ambiguous"]
        assert not session.usable


WORDS = [
    ("MAIL", "2.1.0 sender ok", False),
    ("RCPT", "2.1.5 other@example.org ok", False),
    ("DOT", "2.0.0 Ok: queued as 77B", False),
    ("DOT", "2.6.0 something never heard", False),
    ("MAIL", "2.0.0 Ok: queued as 4XyA", True),
    ("RCPT", "2.1.0 sender ok", True),
    ("DOT", "2.1.5 u@example.net ok", True),
]


@pytest.mark.parametrize(("asked", "text", "strange"), WORDS)
def test_a_reply_in_the_words_for_another_command_is_noticed(asked: str, text: str, strange: bool) -> None:
    wording = Wording()
    assert not wording.is_for_another(asked, Reply(250, text))
    wording.learn(
        [("MAIL", Reply(250, "2.1.0 sender ok")), ("RCPT", Reply(250, "2.1.5 <u@example.net> ok")),
         ("DOT", Reply(250, "2.0.0 Ok: queued as 4XyA"))]
    )  # fmt: skip
    assert wording.is_for_another(asked, Reply(250, text)) is strange


def test_a_server_with_one_word_for_everything_is_believed() -> None:
    wording = Wording()
    wording.learn([(asked, Reply(250, "ok")) for asked in ("MAIL", "RCPT", "DOT")])
    assert not any(wording.is_for_another(asked, Reply(250, "ok")) for asked in ("MAIL", "RCPT", "DOT"))


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
        assert told(report) == ["abandoned"]
        assert (report.lost, report.answered) == (True, 0)
        server.settimeout(5)
        with suppress(ConnectionResetError):
            assert server.recv(1000) == b""
        assert session.state == "closed"


async def test_what_lies_unread_when_the_content_is_about_to_leave_is_no_answer_to_it() -> None:
    async with connected("PIPELINING") as (session, server):
        gate = Gate(steady() + 60)
        running = begin(session, gate)
        await asyncio.sleep(0)
        server.send(MAIL + RCPT + b"354 go on\r\n")
        async with asyncio.timeout(5):
            while session._flight is None or not session._flight.transaction.wants_content:
                await asyncio.sleep(0)
        server.send(b"250 2.0.0 taken already\r\n")
        gate.open()
        assert told(await running) == ["abandoned"]
        server.settimeout(5)
        assert CONTENT not in server.recv(1000)


async def test_a_large_content_in_one_flight_with_its_envelope_goes_on_while_that_is_answered() -> None:
    one = talk("PIPELINING", "CHUNKING", content=b"Subject: x\r\n\r\n" + b"x" * 900_000 + b"\r\n")
    one.line.takes = 400_000
    await one.says(b"250 mail\r\n", b"250 a\r\n", b"250 b\r\n")
    one.line.takes = 10**9
    one.session.resume_writing()
    await one.says(b"250 taken\r\n")
    assert told(await one.report) == ["sent", "sent"]


async def test_a_large_content_in_one_flight_is_not_taken_before_it_left() -> None:
    one = talk("PIPELINING", "CHUNKING", content=b"Subject: x\r\n\r\n" + b"x" * 900_000 + b"\r\n")
    one.line.takes = 400_000
    await one.says(b"250 mail\r\n", b"250 a\r\n", b"250 b\r\n", b"250 taken\r\n")
    assert told(await one.report) == ["abandoned", "abandoned"]
