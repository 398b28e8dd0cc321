"""The SMTP dialogue, case by case: what is said, what is answered, what is taken."""

# ruff: noqa: E501 (a case is a line)

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.intake.harness import Service, service, whole

LIMIT_BYTES = 3000
RECIPIENTS = 100
ENHANCED = re.compile(r"[245]\.\d{1,3}\.\d{1,3} ")

HELLO = [("EHLO me.test", "250-relay.test")]
MAIL = [*HELLO, ("MAIL FROM:<a@x.test>", "250 2.1.0")]
RCPT = [*MAIL, ("RCPT TO:<b@x.test>", "250 2.1.5")]
DATA = [*RCPT, ("DATA", "354")]
SENT = "250 2.0.0 queued as id-1"
AGAIN = [("MAIL FROM:<a@x.test>", "250"), ("RCPT TO:<b@x.test>", "250"), ("DATA", "354"), ("again\r\n.", "250 2.0.0")]
LONG = "x" * 1001


@dataclass(frozen=True)
class Case:
    """`says` is sent line by line (CRLF added); `contents`: what was taken by the end."""

    name: str
    dialogue: list[tuple[str, str]]
    contents: tuple[bytes, ...] = ()


CASES = [
    # Commands and their order.
    Case("helo will do", [("HELO me.test", "250 relay.test"), *MAIL[1:]]),
    Case("verbs in lower case", [("ehlo me.test", "250"), ("mail from:<a@x.test>", "250"), ("rcpt to:<b@x.test>", "250")]),
    Case("a blank behind the colon", [*HELLO, ("MAIL FROM: <a@x.test>", "250"), ("RCPT TO: <b@x.test>", "250")]),
    Case("no angle brackets", [*HELLO, ("MAIL FROM:a@x.test", "250"), ("RCPT TO:b@x.test", "250")]),
    Case("trailing blanks", [("EHLO me.test  ", "250"), ("MAIL FROM:<a@x.test>  ", "250"), ("RSET ", "250"), ("NOOP ", "250")]),
    Case("ehlo needs a name", [("EHLO", "501 5.5.4"), ("EHLO ", "501 5.5.4"), ("HELO", "501 5.5.4"), *HELLO]),
    Case("mail before ehlo", [("MAIL FROM:<a@x.test>", "503 5.5.1"), *MAIL]),
    Case("rcpt before ehlo", [("RCPT TO:<b@x.test>", "503 5.5.1"), *RCPT]),
    Case("data before ehlo", [("DATA", "503 5.5.1"), *RCPT]),
    Case("rcpt before mail", [*HELLO, ("RCPT TO:<b@x.test>", "503 5.5.1"), *RCPT[1:]]),
    Case("data before mail", [*HELLO, ("DATA", "503 5.5.1"), *RCPT[1:]]),
    Case("data before rcpt", [*MAIL, ("DATA", "503 5.5.1"), ("RCPT TO:<b@x.test>", "250")]),
    Case("data after refused recipients only", [*MAIL, ("RCPT TO:<>", "553"), ("DATA", "554 5.5.1"), ("RSET", "250")]),
    Case("mail within mail", [*RCPT, ("MAIL FROM:<c@x.test>", "503 5.5.1"), ("DATA", "354"), ("m\r\n.", SENT)], (b"m\r\n",)),
    Case("rset forgets", [*RCPT, ("RSET", "250 2.0.0"), ("DATA", "503 5.5.1"), *RCPT[1:]]),
    Case("ehlo forgets", [*RCPT, *HELLO, ("DATA", "503 5.5.1"), *RCPT[1:]]),
    Case("a refused mail leaves no transaction", [*HELLO, ("MAIL FROM:<a b@x.test>", "501"), ("RCPT TO:<b@x.test>", "503"), *AGAIN], (b"again\r\n",)),
    Case("noop, help, vrfy, expn", [("NOOP x", "250 2.0.0"), ("HELP", "214 2.0.0"), ("VRFY b", "252 2.0.0"), ("VRFY", "501 5.5.4"), ("EXPN l", "502 5.5.1")]),
    Case("rset as a ping", [("RSET", "250 2.0.0"), ("NOOP", "250 2.0.0"), *RCPT]),
    Case("no arguments where none belong", [*RCPT, ("RSET x", "501 5.5.4"), ("DATA x", "501 5.5.4"), ("QUIT x", "501 5.5.4"), ("QUIT", "221 2.0.0")]),
    Case("unknown commands", [("XYZZY", "500 5.5.2"), ("", "500 5.5.2"), (" NOOP", "500 5.5.2"), ("BDAT 3 LAST", "500 5.5.2"), ("ÄHLO", "500 5.5.2"), *HELLO]),
    Case("starttls and auth where they aren't offered", [*HELLO, ("STARTTLS", "502 5.5.1"), ("AUTH PLAIN AGEAYg==", "502 5.5.1"), *AGAIN], (b"again\r\n",)),
    Case("quit says goodbye", [("QUIT", "221 2.0.0")]),
    # Lines.
    Case("a bare LF in a command", [("EHLO me.test", "250"), ("NOOP\nMAIL FROM:<a@x.test>", "500 5.5.2 A line must end in CRLF, not in LF alone"), ("RCPT TO:<b@x.test>", "503")]),
    Case("a bare CR in a command", [*HELLO, ("NOOP\rMAIL FROM:<a@x.test>", "500 5.5.2 A line can't contain CR without LF"), ("RCPT TO:<b@x.test>", "503")]),
    Case("a NUL in a command", [*HELLO, ("NO\0OP", "500 5.5.2 A line can't contain NUL"), ("NOOP", "250")]),
    Case("CR before CRLF", [*HELLO, ("NOOP\r", "500 5.5.2"), ("NOOP", "250")]),
    Case("CR in an address", [*HELLO, ("MAIL FROM:<a\rb@x.test>", "500 5.5.2"), *RCPT[1:]]),
    Case("LF in an address", [*MAIL, ("RCPT TO:<a\nb@x.test>", "500 5.5.2"), *RCPT[2:]]),
    Case("NUL in an address", [*MAIL, ("RCPT TO:<a\0b@x.test>", "500 5.5.2 A line can't contain NUL"), *RCPT[2:]]),
    Case("a command of 1,001 bytes", [*HELLO, ("NOOP " + LONG, "500 5.5.6"), ("EHLO " + LONG, "500 5.5.6"), *RCPT]),
    Case("an address of 1,001 bytes", [*HELLO, (f"MAIL FROM:<{LONG}@x.test>", "500 5.5.6"), *MAIL[1:], (f"RCPT TO:<{LONG}@x.test>", "500 5.5.6"), *RCPT[2:]]),
    Case("a command of 20,000 bytes", [*HELLO, ("NOOP " + LONG * 20, "500 5.5.6"), ("MAIL FROM:<" + LONG * 20, "500 5.5.6"), *RCPT]),
    Case("parameters of 2,000 bytes", [*HELLO, ("MAIL FROM:<a@x.test> AUTH=" + "e" * 2000, "250"), ("RCPT TO:<b@x.test> ORCPT=rfc822;" + "+2B" * 500, "250")]),
    Case("an ENVID of 101 characters", [*HELLO, ("MAIL FROM:<a@x.test> ENVID=" + "e" * 101, "501 5.5.4 ENVID: longer than 100 characters"), ("MAIL FROM:<a@x.test> ENVID=" + "e" * 100, "250"), *RCPT[2:]]),
    # Addresses.
    Case("blanks in an address", [*MAIL, ("RCPT TO:<b c@x.test>", "501 5.1.3"), ("RCPT TO:< b@x.test>", "501 5.1.3"), *RCPT[2:]]),
    Case("> in an address", [*MAIL, ("RCPT TO:<b>c@x.test>", "501 5.1.3"), *RCPT[2:]]),
    Case("no recipient", [*MAIL, ("RCPT TO:<>", "553 5.1.3"), ("RCPT TO:", "501"), ("RCPT", "501"), ("RCPT TO:<b>", "501"), *RCPT[2:]]),
    Case("UTF-8 without SMTPUTF8", [*HELLO, ("MAIL FROM:<ä@x.test>", "553 5.6.7"), *MAIL[1:], ("RCPT TO:<ä@x.test>", "553 5.6.7"), *RCPT[2:]]),
    Case("UTF-8 with SMTPUTF8", [*HELLO, ("MAIL FROM:<ä@x.test> SMTPUTF8", "250"), ("RCPT TO:<ö@ü.test>", "250")]),
    # Parameters.
    Case("unknown parameters", [*HELLO, ("MAIL FROM:<a@x.test> FOO=1", "555 5.5.4"), *MAIL[1:], ("RCPT TO:<b@x.test> FOO=1", "555 5.5.4"), *RCPT[2:]]),
    Case("malformed parameters", [*HELLO, ("MAIL FROM:<a@x.test> SIZE=x", "501 5.5.4"), ("MAIL FROM:<a@x.test> BY=0;R", "501 5.5.4"), *RCPT[1:]]),
    Case("AUTH= without a user", [*HELLO, ("MAIL FROM:<a@x.test> AUTH=<>", "250"), *RCPT[2:]]),
    Case("a size too large", [*HELLO, (f"MAIL FROM:<a@x.test> SIZE={LIMIT_BYTES + 1}", "552 5.3.4"), *RCPT[1:]]),
    Case("the size that is allowed", [*HELLO, (f"MAIL FROM:<a@x.test> SIZE={LIMIT_BYTES}", "250"), *RCPT[2:]]),
    # Data.
    Case("a message", [*DATA, ("Subject: x\r\n\r\ntext\r\n.", SENT)], (b"Subject: x\r\n\r\ntext\r\n",)),
    Case("a message of nothing", [*DATA, (".", SENT)], (b"",)),
    Case("dots unstuffed once", [*DATA, ("..\r\n...\r\n..a\r\n.b\r\n.", SENT)], (b".\r\n..\r\n.a\r\nb\r\n",)),
    Case("LF . LF ends nothing", [*DATA, ("a\n.\nMAIL FROM:<evil@x.test>\r\n.", SENT)], (b"a\n.\nMAIL FROM:<evil@x.test>\r\n",)),
    Case("CR . CR ends nothing", [*DATA, ("a\r.\rMAIL FROM:<evil@x.test>\r\n.", SENT)], (b"a\r.\rMAIL FROM:<evil@x.test>\r\n",)),
    Case("LF . CRLF ends nothing", [*DATA, ("a\n.\r\nRCPT TO:<evil@x.test>\r\n.", SENT)], (b"a\n.\r\nRCPT TO:<evil@x.test>\r\n",)),
    Case("CRLF . LF ends nothing", [*DATA, ("a\r\n.\nRCPT TO:<evil@x.test>\r\n.", SENT)], (b"a\r\n\nRCPT TO:<evil@x.test>\r\n",)),
    Case("CRLF . CR ends nothing", [*DATA, ("a\r\n.\rRCPT TO:<evil@x.test>\r\n.", SENT)], (b"a\r\n\rRCPT TO:<evil@x.test>\r\n",)),
    Case("CRLF NUL . CRLF ends nothing", [*DATA, ("a\r\n\0.\r\nb\r\n.", SENT)], (b"a\r\n\0.\r\nb\r\n",)),
    Case("CRLF . NUL CRLF ends nothing", [*DATA, ("a\r\n.\0\r\nb\r\n.", SENT)], (b"a\r\n\0\r\nb\r\n",)),
    Case("LF . CR LF then commands", [*DATA, ("a\n.\r\n\r\n.", SENT), ("QUIT", "221")], (b"a\n.\r\n\r\n",)),
    Case("8-bit without being announced", [*DATA, ("h\u00e4\r\n.", SENT)], ("hä\r\n".encode(),)),
    Case("a line of 2,500 bytes", [*DATA, ("y" * 2500 + "\r\n.", SENT)], (b"y" * 2500 + b"\r\n",)),
    Case("too much data", [*DATA, ("z" * LIMIT_BYTES + "\r\n.", "552 5.3.4"), *AGAIN], (b"again\r\n",)),
    Case("just enough data", [*DATA, ("z" * (LIMIT_BYTES - 2) + "\r\n.", SENT)], (b"z" * (LIMIT_BYTES - 2) + b"\r\n",)),
    Case("dots don't count", [*DATA, ("..\r\n" * (LIMIT_BYTES // 3) + ".", SENT)], (b".\r\n" * (LIMIT_BYTES // 3),)),
    Case("two messages, one session", [*DATA, ("one\r\n.", SENT), *AGAIN], (b"one\r\n", b"again\r\n")),
    Case("too many recipients", [*MAIL, *[(f"RCPT TO:<r{n}@x.test>", "250") for n in range(RECIPIENTS)], ("RCPT TO:<more@x.test>", "452 4.5.3"), ("RCPT TO:<r0@x.test>", "250"), ("DATA", "354"), ("m\r\n.", SENT)], (b"m\r\n",)),
    Case("text behind the dot is a command", [*DATA, ("a\r\n.\r\nXYZZY", SENT), *[("NOOP", "500 5.5.2"), ("QUIT", "250 2.0.0")]], (b"a\r\n",)),
    Case("http", [("GET / HTTP/1.1", "421 4.7.0")]),
    Case("http by another name", [("Host: localhost", "421 4.7.0")]),
]  # fmt: skip


@pytest.fixture
async def relay() -> AsyncIterator[Service]:
    async with service(limits={"message_size_bytes": LIMIT_BYTES, "recipients": RECIPIENTS}) as running:
        yield running


def as_sent(case: Case) -> bytes:
    return b"".join(line.encode() + b"\r\n" for line, _ in case.dialogue)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_each_command_gets_its_answer(relay: Service, case: Case) -> None:
    async with relay.connect() as client:
        assert (await client.reply()).startswith("220 relay.test ESMTP otp-relay")
        for line, beginning in case.dialogue:
            answer = await client.ask(line)
            assert answer.startswith(beginning), line[:60]
            assert line[:4].upper() in ("EHLO", "HELO") or answer[:3] in ("354", "") or ENHANCED.match(answer[4:])
    assert tuple(each.content for each in relay.recorder.taken) == case.contents


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_the_same_in_one_segment_gets_the_same_answers_in_order(relay: Service, case: Case) -> None:
    async with relay.connect() as client:
        await client.send(as_sent(case) + b"QUIT\r\n")
        await client.reply()
        for line, beginning in case.dialogue:
            assert (await client.reply()).startswith(beginning), line[:60]
    await relay.quiet()
    assert tuple(each.content for each in relay.recorder.taken) == case.contents


FRAGMENTS = st.sampled_from(
    [
        *("EHLO me\r\n", "MAIL FROM:<a@x.test>\r\n", "RCPT TO:<b@x.test>\r\n", "DATA\r\n", "\r\n.\r\n", ".\r\n"),
        *(
            "RSET\r\n",
            "NOOP\n",
            "NOOP\r",
            "\r\n",
            "\n",
            "\r",
            "\0",
            ".",
            "x" * 600,
            "\n.\n",
            "\r\n.\n",
            " ",
            "AUTH\r\n",
        ),
    ]
)


@given(st.lists(FRAGMENTS, max_size=25), st.lists(st.integers(0, 2000), max_size=12))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_however_the_stream_is_cut_the_answers_are_the_same(
    relay: Service, fragments: list[str], places: list[int]
) -> None:
    stream = "".join(fragments).encode()
    relay.recorder.taken.clear()
    whole, taken = await transcript(relay, [stream])
    cuts = sorted({0, len(stream), *(place % (len(stream) + 1) for place in places)})
    again = await transcript(relay, [stream[a:b] for a, b in pairwise(cuts)])
    assert again == (whole, taken)


async def transcript(relay: Service, segments: list[bytes]) -> tuple[bytes, list[bytes]]:
    """All the service says to these segments and an end, and the contents it takes."""
    relay.recorder.taken.clear()
    async with relay.connect() as client:
        await client.reply()
        for segment in segments:
            await client.send(segment)
            for _ in range(4):  # so that the service reads it as a segment of its own
                await asyncio.sleep(0)
        client.writer.write_eof()
        said = await client.everything()
    await relay.quiet()
    return said, [whole(each.content) for each in relay.recorder.taken]
