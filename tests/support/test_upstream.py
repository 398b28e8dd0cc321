"""The scripted upstream is what many tests lean on, so it is held to the protocol itself."""

from __future__ import annotations

import asyncio
import smtplib
import ssl

import pytest

from tests.support.script import Action, Script
from tests.support.tls import Certificates
from tests.support.upstream import (
    BySession,
    Close,
    Delay,
    Drip,
    Endless,
    Garbage,
    Hang,
    Moment,
    ReplyThenClose,
    Reset,
    Split,
    Upstream,
    Wait,
)

BODY = b"Subject: hi\r\n\r\n.dot\r\n..dots\r\nend\r\n"


class Raw:
    """A client that writes bytes and reads bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def reply(self) -> str:
        """One whole reply."""
        lines = [await self.line()]
        while lines[-1][3:4] == "-":
            lines.append(await self.line())
        return "\n".join(lines)

    async def line(self) -> str:
        raw = await asyncio.wait_for(self.reader.readuntil(b"\r\n"), 5)
        return raw[:-2].decode()

    async def rest(self) -> bytes:
        return await asyncio.wait_for(self.reader.read(), 5)


async def connect(upstream: Upstream) -> Raw:
    return Raw(*await asyncio.open_connection(upstream.host, upstream.port))


async def up_to_rcpt(upstream: Upstream) -> Raw:
    raw = await connect(upstream)
    await raw.reply()
    for command in (b"EHLO me\r\n", b"MAIL FROM:<a@example.com>\r\n", b"RCPT TO:<b@example.net>\r\n"):
        await raw.say(command)
        await raw.reply()
    return raw


def send_with_smtplib(upstream: Upstream, to: list[str] | None = None) -> dict[str, tuple[int, bytes]]:
    with smtplib.SMTP(upstream.host, upstream.port, timeout=5) as client:
        return client.sendmail("a@example.com", to or ["b@example.net"], BODY)


async def test_a_message_arrives_byte_for_byte_with_its_envelope() -> None:
    async with Upstream() as upstream:
        await asyncio.to_thread(send_with_smtplib, upstream, ["b@example.net", "c@example.net"])
        (received,) = await upstream.wait_for(1)
    assert received.content == BODY
    assert received.mail_from.startswith("FROM:<a@example.com> size=")
    assert received.sender == "a@example.com"
    assert received.recipients == ("b@example.net", "c@example.net")
    assert (received.via, received.session, received.tls, received.user) == ("DATA", 0, None, None)
    assert upstream.sessions[0].verbs == ["EHLO", "MAIL", "RCPT", "RCPT", "DATA", "QUIT"]
    assert (upstream.open, upstream.closed, upstream.peak) == (0, 1, 1)


async def test_an_empty_message_ends_at_once() -> None:
    async with Upstream() as upstream:
        raw = await up_to_rcpt(upstream)
        await raw.say(b"DATA\r\n")
        await raw.reply()
        await raw.say(b".\r\n")
        assert (await raw.reply()).startswith("250")
        assert upstream.messages[0].content == b""


async def test_a_pipelined_batch_is_answered_in_order() -> None:
    async with Upstream(script={"rcpt": {"bad@*": "550 5.1.1 no"}}) as upstream:
        raw = await connect(upstream)
        await raw.say(
            b"EHLO me\r\nMAIL FROM:<a@b>\r\nRCPT TO:<bad@x>\r\nRCPT TO:<c@x>\r\nDATA\r\nhello\r\n.\r\nQUIT\r\n"
        )
        replies = [await raw.reply() for _ in range(8)]
        assert [reply[:3] for reply in replies] == ["220", "250", "250", "550", "250", "354", "250", "221"]
        assert upstream.messages[0].recipients == ("c@x",)
        assert upstream.messages[0].content == b"hello\r\n"


async def test_bdat_chunks_are_joined_as_they_are() -> None:
    async with Upstream(extensions=("PIPELINING", "CHUNKING")) as upstream:
        raw = await up_to_rcpt(upstream)
        await raw.say(b"BDAT 7\r\n..a\r\n\n\nBDAT 2 LAST\r\n\r\n")
        assert (await raw.reply()).startswith("250 2.0.0 7")
        assert (await raw.reply()).startswith("250 2.0.0 Ok")
        assert upstream.messages[0].content == b"..a\r\n\n\n\r\n"
        assert upstream.messages[0].via == "BDAT"


async def test_starttls_and_auth_by_an_independent_client(certificates: Certificates) -> None:
    def send() -> None:
        with smtplib.SMTP("localhost", upstream.port, timeout=5) as client:
            client.starttls(context=certificates.client_context())
            client.login("user", "secret")
            client.sendmail("a@example.com", ["b@example.net"], BODY)

    async with Upstream(tls="starttls", certificate=certificates.good, auth={"user": "secret"}) as upstream:
        await asyncio.to_thread(send)
        (received,) = await upstream.wait_for(1)
    assert received.user == "user"
    assert received.tls is not None
    assert received.tls.startswith("TLSv1")


async def test_implicit_tls_by_an_independent_client(certificates: Certificates) -> None:
    def send() -> None:
        context = certificates.client_context()
        with smtplib.SMTP_SSL("localhost", upstream.port, timeout=5, context=context) as client:
            client.sendmail("a@example.com", ["b@example.net"], BODY)

    async with Upstream(tls="implicit", certificate=certificates.good) as upstream:
        await asyncio.to_thread(send)
        assert (await upstream.wait_for(1))[0].tls is not None


@pytest.mark.parametrize("kind", ["expired", "wrong_host", "self_signed"])
async def test_a_bad_certificate_is_refused_by_a_verifying_client(certificates: Certificates, kind: str) -> None:
    def send() -> None:
        with smtplib.SMTP("localhost", upstream.port, timeout=5) as client:
            client.starttls(context=certificates.client_context())

    async with Upstream(tls="starttls", certificate=getattr(certificates, kind)) as upstream:
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.to_thread(send)
        assert upstream.transfers == []


async def test_mail_before_a_required_login_is_refused_and_a_wrong_password_too() -> None:
    async with Upstream(auth={"user": "secret"}) as upstream:
        raw = await connect(upstream)
        await raw.say(b"EHLO me\r\nMAIL FROM:<a@b>\r\nAUTH PLAIN AHVzZXIAd3Jvbmc=\r\n")
        replies = [await raw.reply() for _ in range(4)]
        assert [reply[:3] for reply in replies] == ["220", "250", "530", "535"]


async def test_a_list_answers_one_occurrence_each_and_then_does_as_it_should() -> None:
    async with Upstream(script={"mail": ["451 4.3.0 later", "421 4.3.2 busy"]}) as upstream:
        raw = await connect(upstream)
        await raw.say(b"EHLO me\r\n" + b"MAIL FROM:<a@b>\r\n" * 3)
        assert [(await raw.reply())[:3] for _ in range(5)] == ["220", "250", "451", "421", "250"]


async def test_answers_by_session_and_by_pattern_and_by_callable() -> None:
    def third_rcpt(moment: Moment) -> str | None:
        return "452 4.5.3 too many" if moment.n_in_session == 2 else None

    script: Script = {
        "greeting": BySession(["554 5.7.1 go away"]),
        "rcpt": {"b@*": ["450 4.2.1 busy"], "*": third_rcpt},
    }
    async with Upstream(script=script) as upstream:
        assert (await (await connect(upstream)).reply()) == "554 5.7.1 go away"
        raw = await connect(upstream)
        await raw.say(b"EHLO me\r\nMAIL FROM:<>\r\n" + b"RCPT TO:<b@x>\r\n" * 2 + b"RCPT TO:<c@x>\r\n")
        assert [(await raw.reply())[:3] for _ in range(6)] == ["220", "250", "250", "450", "250", "452"]


async def test_a_table_does_not_answer_a_command_out_of_order() -> None:
    async with Upstream(script={"rcpt": "250 2.1.5 sure"}) as upstream:
        raw = await connect(upstream)
        await raw.say(b"EHLO me\r\nRCPT TO:<b@x>\r\n")
        assert [(await raw.reply())[:3] for _ in range(3)] == ["220", "250", "503"]


@pytest.mark.parametrize(
    ("action", "transferred", "accepted"),
    [
        (Close(), 1, 0),
        (Close(taken=True), 1, 1),
        (Reset(), 1, 0),
        (Reset(taken=True), 1, 1),
        (ReplyThenClose("250 2.0.0 ok"), 1, 1),
        (ReplyThenClose("451 4.3.0 later"), 1, 0),
        ("554 5.7.1 spam", 1, 0),
        ("299 odd but positive", 1, 1),
        (Hang(taken=True), 1, 1),
    ],
)
async def test_the_dot_is_noted_whatever_is_said_to_it(action: Action, transferred: int, accepted: int) -> None:
    async with Upstream(script={"dot": action}) as upstream:
        raw = await up_to_rcpt(upstream)
        await raw.say(b"DATA\r\n")
        await raw.reply()
        await raw.say(b"x\r\n.\r\n")
        await upstream.wait_until(lambda: len(upstream.transfers) == transferred)
        assert len(upstream.messages) == accepted
        raw.writer.close()
        await upstream.wait_until(lambda: upstream.open == 0)


async def test_a_reset_reaches_the_client_as_one_and_a_close_as_an_end() -> None:
    async with Upstream(script={"mail": [Reset(), Close()]}) as upstream:
        raw = await connect(upstream)
        await raw.reply()
        await raw.say(b"EHLO me\r\nMAIL FROM:<a@b>\r\n")
        with pytest.raises(ConnectionResetError):
            await raw.rest()
        raw = await connect(upstream)
        await raw.reply()
        await raw.say(b"EHLO me\r\n")
        await raw.reply()
        await raw.say(b"MAIL FROM:<a@b>\r\n")
        assert await raw.rest() == b""


async def test_odd_ways_to_say_a_reply() -> None:
    event = asyncio.Event()
    script: Script = {
        "noop": [
            Delay(0.01, "250 delayed"),
            Drip("250 dripped", 0.001),
            Split([b"250-spl", b"it\r", b"\n250 end\r\n"], 0.001),
            Garbage(b"nonsense\r\n"),
            Wait(event, "250 waited"),
            "250-one\n250 two",
        ]
    }
    async with Upstream(script=script) as upstream:
        raw = await connect(upstream)
        await raw.reply()
        said = []
        for turn in range(6):
            await raw.say(b"NOOP\r\n")
            reply = asyncio.create_task(raw.reply())
            if turn == 4:
                await upstream.wait_until(lambda: upstream.seen["noop"] == 5)
                await asyncio.sleep(0.02)
                assert not reply.done()
                event.set()
            said.append(await reply)
        assert said == [
            "250 delayed",
            "250 dripped",
            "250-split\n250 end",
            "nonsense",
            "250 waited",
            "250-one\n250 two",
        ]


async def test_an_endless_reply_ends_with_the_client() -> None:
    async with Upstream(script={"ehlo": Endless()}) as upstream:
        raw = await connect(upstream)
        await raw.say(b"EHLO me\r\n")
        for _ in range(1000):
            await raw.line()
        raw.writer.close()
        await upstream.wait_until(lambda: upstream.open == 0)


async def test_an_idle_session_is_told_421_and_closed() -> None:
    async with Upstream(idle_s=0.05) as upstream:
        raw = await connect(upstream)
        assert (await raw.reply()).startswith("220")
        assert (await raw.rest()).startswith(b"421 4.4.2")


async def test_sessions_can_be_ended_from_outside_and_the_port_goes_dead_and_comes_back() -> None:
    async with Upstream() as upstream:
        raw = await connect(upstream)
        await raw.reply()
        upstream.close_sessions()
        assert (await raw.rest()).startswith(b"421")
        await upstream.pause()
        with pytest.raises(ConnectionRefusedError):
            await connect(upstream)
        await upstream.resume()
        assert (await (await connect(upstream)).reply()).startswith("220")


async def test_the_latency_of_a_pipelined_batch_is_paid_once() -> None:
    async with Upstream(latency_s=0.2) as upstream:
        raw = await connect(upstream)
        await raw.reply()
        async with asyncio.timeout(10):  # a hundred times 0.2 s would be the latency paid for each
            await raw.say(b"NOOP\r\n" * 100)
            for _ in range(100):
                await raw.reply()


async def test_a_hanging_handshake_notices_that_the_client_left(certificates: Certificates) -> None:
    async with Upstream(tls="implicit", certificate=certificates.good, script={"handshake": Hang()}) as upstream:
        raw = await connect(upstream)
        await raw.say(b"\x16\x03\x01 a hello that nobody answers")
        raw.writer.close()
        await upstream.wait_until(lambda: upstream.closed == 1)


async def test_waiting_in_vain_says_what_was_seen() -> None:
    async with Upstream() as upstream:
        raw = await connect(upstream)
        await raw.say(b"EHLO me\r\n")
        with pytest.raises(AssertionError, match=r"0 accepted of 0, \{0: \['EHLO'\]\}"):
            await upstream.wait_for(1, within_s=0.2)
