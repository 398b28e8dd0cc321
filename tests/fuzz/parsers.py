"""Every parser that bytes of a client or an upstream reach, as calls to measure: see `hostile`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from relay.intake.framing import DotDecoder, line_limit
from relay.intake.parameters import BadCommand, parse_mail, parse_rcpt
from relay.mail.address import parse_path, xtext_decode, xtext_encode
from relay.mail.address_list import addresses_in
from relay.mail.canonical import BodyHash, relaxed_field
from relay.mail.codes.detector import detect
from relay.mail.dkim import Unsignable, ascii_domain
from relay.mail.dsn import RecipientReport, Stamp, delivery_status
from relay.mail.dsn_returned import returned_headers
from relay.mail.envelope import Envelope, Recipient
from relay.mail.header_ascii import Unencodable, ascii_value
from relay.mail.header_text import decoded, encoded, text_of
from relay.mail.lint import lint
from relay.mail.mailbox_provider import provider
from relay.mail.message import Unacceptable, from_addresses, normalise, over_long_line, parse, prepare, subject
from relay.mail.mime import content_type, leaves
from relay.mail.rebuilding import CannotRebuild, rebuilt
from relay.mail.recode import Form, has_utf8_head, recoded
from relay.mail.redact import redact, redact_reply
from relay.mail.trace import received
from relay.routing.conditions import View
from relay.routing.facts import Facts
from relay.sendmail.compose import Failed, Request, compose
from relay.upstream.smtp.capabilities import Capabilities
from relay.upstream.smtp.replies import ProtocolError, ReplyReader
from tests.fuzz.smtp_service import DOOR
from tests.mail.material import ed25519_key, signer

KEYS = signer({"example.com": {"e1": ed25519_key()}})
FORMS: tuple[Form, ...] = ("7bit", "ASCII head")
STAMP = Stamp("relay.example.com", 0.0, "<1@relay.example.com>", "=_b")

SIGNS = [
    b'"', b"\\", b"<", b">", b"(", b")", b"[", b"]", b"{", b"}", b"@", b",", b";", b":", b".", b" ", b"\t", b"=", b"?",
    b"-", b"_", b"+", b"/", b"*", b"'", b"%", b"&", b"#", b"a", b"A", b"1", b"x" * 60, b"\xc3\xa9", b"\xff",
    b"\xe2\x91\xa0", b"\xc2\xa0",
]  # fmt: skip
CORE = [b'"', b"\\", b"<", b"(", b")", b"=", b" ", b"a", b"@", b",", b";", b":", b".", b"-", b"1", b"\r\n "]
"""signs of the grammars; tried as often as all other tokens"""
LINES = [b"\r\n", b"\n", b"\r", b"\r\n ", b"\r\n\t", b"\r\n\r\n", b".\r\n", b"\r\n.", b"\0"]
WORDS = [b"=?", b"?=", b"=?utf-8?q?", b"=?utf-8?b?", b"=?a*b?q?", b"?q?", b"=?utf-7?q?+?=", b"=20", b"=?hz?b?"]
CODES = [
    b"code",
    b"code ",
    b"is ",
    b": ",
    b"PIN ",
    b"ABC ",
    b"12 ",
    b"A1",
    b"kQz",
    b"PLAIN ",
    b"Bearer ",
    b"SCRAM-SHA-",
]
MIME = [
    b"--b\r\n", b"--b--\r\n", b"\r\n--b", b"Content-Type: multipart/mixed; boundary=b\r\n\r\n", b"boundary=b",
    b"Content-Type: message/rfc822\r\n\r\n", b"Content-Transfer-Encoding: quoted-printable\r\n",
    b"Content-Transfer-Encoding: base64\r\n", b"a=b;", b'a="', b"; charset=utf-8", b"http://", b"https://a@",
]  # fmt: skip
HTML = [
    b"<td>", b"</p>", b"<p style='display:none'>", b"<b", b"<!--", b"-->", b"<style>", b"</style>", b"&nbsp;", b"&#49;",
    b"&a", b"<a href=", b"display:none", b" hidden", b"http://a", b"@", b"www.", b"1 2 3 4 ", b"12-34", b"123456",
    b"Code: ABCD", b" code 4821", b"\xef\xb7\xba", b"\xe9\xaa\x8c\xe8\xaf\x81\xe7\xa0\x81", b"10 min",
]  # fmt: skip
HTML_HEAD = (
    b"Content-Type: text/html; charset=utf-8\r\n\r\n",
    b"Content-Type: text/html; charset=utf-8\r\n\r\nYour code 482931 ",
    b"Content-Type: text/plain; charset=utf-8\r\n\r\nYour code 482931 ",
)
HEAD = [
    b"From: ",
    b"Subject: ",
    b"To: a@b\r\n",
    b"X: y\r\n",
    b"Bcc: ",
    b"Received: x\r\n",
    b"Message-ID: ",
    b"Comments: ",
]
PATHS = [
    b"<>",
    b"FROM:<",
    b"TO:<",
    b"@a:",
    b"@a,",
    b"a.",
    b"[IPv6:",
    b" SIZE=",
    b" ENVID=",
    b"+2B",
    b" ORCPT=rfc822;",
    b"NEVER,",
]
REPLIES = [b"250 ", b"250-", b"550 5.1.1 ", b"250-\r\n", b"250 ok\r\n", b"421", b"SIZE 1\r\n", b"250-SIZE\r\n"]


@dataclass(frozen=True)
class Parser:
    """`call` is given what is made of `tokens` behind one of `starts`, in `size_bytes` and in four times as many."""

    call: Callable[[bytes], object]
    tokens: list[bytes]
    starts: tuple[bytes, ...] = (b"",)
    size_bytes: int = 15_000
    expected: tuple[type[Exception], ...] = ()


def _message(data: bytes) -> None:
    message = parse(normalise(data), limited=True)
    prepare(message, trace=b"Received: x\r\n", date=b"now", message_id="<1@a>")
    redact(subject(message))
    from_addresses(message)
    facts = Facts("", (), (), "", "", tuple((field.name, field.value) for field in message.fields), "")
    View(facts).header("x")


def _detected(data: bytes) -> None:
    detect(parse(data)).explain()


def _stored(data: bytes) -> None:
    message = parse(data)
    over_long_line(data)
    subject(message)
    from_addresses(message)
    content_type(message)


def _field(name: str) -> Callable[[bytes], object]:
    return lambda value: ascii_value(name, value)


def _texts(data: bytes) -> None:
    addresses_in(text_of(data))
    encoded(decoded(data))


def _returned(data: bytes) -> None:
    returned_headers(parse(data))


def _reply(data: bytes) -> None:
    redact_reply(text_of(data))
    redact_reply(text_of(data), data)


def _signed(data: bytes) -> None:
    keyset = KEYS.select("example.com")
    assert keyset is not None
    KEYS.prepare(parse(b"From: a@example.com\r\n" + data), keyset, now=0).sign()


def _canonical(data: bytes) -> None:
    relaxed_field(b"x", data)
    for slice_bytes in (1_000, 131_072):
        BodyHash(data, 0, slice_bytes).digest()


def _recoded(data: bytes) -> None:
    recoded(data, "as it is")
    has_utf8_head(data)
    for form in FORMS:
        with suppress(Unencodable):
            recoded(data, form)


def _parts(data: bytes) -> None:
    for part in leaves(parse(data)):
        _ = part.text


def _report(data: bytes) -> None:
    user = Recipient("user@example.net", orcpt="rfc822;" + xtext_encode(text_of(data[:500])))
    said = RecipientReport(user, "failed", "550 " + text_of(data[:2_000]))
    envelope = Envelope("a@example.com", (user,), ret="FULL" if len(data) % 2 else None, envid=text_of(data[:100]))
    delivery_status(envelope, (said,), data, stamp=STAMP, arrived_at=0.0)


def _address(data: bytes) -> None:
    text = text_of(data)
    provider(text)
    ascii_domain(text)
    received(text, text, text, text, "ESMTP", text, 0.0)
    for parsed in (parse_path, xtext_decode):
        with suppress(ValueError):
            parsed(text)


def _commands(data: bytes) -> None:
    line_limit(data)
    for parsed in (parse_mail, lambda text: parse_rcpt(text, smtputf8=True)):
        with suppress(BadCommand):
            parsed(data.decode("utf-8", "surrogateescape"))


def _framed(data: bytes) -> None:
    for step in (len(data), 1_000, 7):
        decoder = DotDecoder(1_000_000)
        for at in range(0, len(data), step or 1):
            if decoder.feed(data[at : at + step]) is not None:
                break


def _replies(data: bytes) -> None:
    for step in (len(data), 100):
        reader = ReplyReader()
        for at in range(0, len(data), step or 1):
            for reply in reader.feed(data[at : at + step]):
                _ = reply.enhanced


def _capabilities(data: bytes) -> None:
    Capabilities.parse(text_of(data).splitlines())


def _sendmail(data: bytes) -> None:
    request = Request()
    request.from_headers = True
    compose(request, data, user="app", hostname="example.com")


ALL = [*SIGNS, *LINES, *WORDS, *CODES]
ANY_HEAD = (b"", b"From: ", b"Subject: ", b"\r\n", b"Subject: code 482931\r\n", b"X: ", b"Message-ID: <")
MIME_HEAD = (
    b"",
    *(b"Content-Type: " + kind for kind in (b"multipart/mixed; boundary=b\r\n\r\n", b"text/plain; ")),
    b"\xff\r\n",
)
REBUILT_HEAD = (
    b"From: ",
    *(b"From: a@b.c\r\n" + line for line in (b"", b"Subject: ", b"To: ", b"Content-Type: text/plain; a=", b"\r\n")),
    *(
        b"From: a@b.c\r\nContent-Transfer-Encoding: %b\r\n\r\n" % encoding
        for encoding in (b"base64", b"quoted-printable")
    ),
    b"From: a@b.c\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nx\r\n",
)
UTF8 = (b"\xc3\xa9", b'"\xc3\xa9', b"<\xc3\xa9", b"(\xc3\xa9", b"a=\xc3\xa9;")

PARSERS: dict[str, Parser] = {
    "message": Parser(_message, [*ALL, *HEAD], ANY_HEAD, expected=(Unacceptable,)),
    "stored": Parser(_stored, [*ALL, *HEAD, *MIME], (*ANY_HEAD, *MIME_HEAD)),
    "to": Parser(_field("to"), [*SIGNS, *LINES], UTF8, 4_000, (Unencodable,)),
    "subject": Parser(_field("subject"), [*SIGNS, *LINES, *WORDS], UTF8, 4_000, (Unencodable,)),
    "disposition": Parser(_field("content-disposition"), [*SIGNS, *LINES, *MIME], UTF8, 4_000, (Unencodable,)),
    "texts": Parser(_texts, [*ALL, *HEAD]),
    "redacted": Parser(lambda data: redact(text_of(data)), ALL, (b"code ", b"")),
    "reply": Parser(_reply, [*ALL, *REPLIES], (b"550 ",)),
    "returned": Parser(_returned, [*ALL, *HEAD], ANY_HEAD),
    "signed": Parser(_signed, [*SIGNS, *LINES, *HEAD], ANY_HEAD, expected=(Unsignable,)),
    "canonical": Parser(_canonical, [*SIGNS, *LINES], (b"", b" ", b"\r\n")),
    "recoded": Parser(_recoded, [*SIGNS, *LINES, *MIME], MIME_HEAD),
    "parts": Parser(_parts, [*SIGNS, *LINES, *MIME], MIME_HEAD),
    "rebuilt": Parser(rebuilt, [*SIGNS, *LINES, *WORDS, *HEAD, *MIME], REBUILT_HEAD, expected=(CannotRebuild,)),
    "report": Parser(_report, [*ALL, *HEAD], ANY_HEAD),
    "lint": Parser(lambda data: lint(data, now=0.0), [*ALL, *HEAD, *MIME], ANY_HEAD, expected=(Unacceptable,)),
    "detected": Parser(_detected, [*ALL, *HEAD, *MIME, *HTML], (*ANY_HEAD, *HTML_HEAD)),
    "address": Parser(_address, [*SIGNS, *PATHS], (b"", b"<", b"a@", b'<"', b"<a@[", b"+")),
    "commands": Parser(_commands, [*SIGNS, *PATHS], (b"FROM:<", b"TO:<", b"FROM:<> ", b"TO:<a@b> "), 2_000),
    "framed": Parser(_framed, [*LINES, b"a", b".", b"\r\n..", b"\r\n.\r"], (b"", b"."), 8_000),
    "replies": Parser(_replies, [*SIGNS, *LINES, *REPLIES], (b"250-", b"250 "), expected=(ProtocolError,)),
    "capabilities": Parser(_capabilities, [*SIGNS, *REPLIES, b"\n"], (b"SIZE ", b"")),
    "sendmail": Parser(_sendmail, [*SIGNS, *LINES, *HEAD], ANY_HEAD, expected=(Failed,)),
    "dialogue": Parser(DOOR.told, [*SIGNS, *LINES, *PATHS, b"RCPT TO:<a@b>\r\n", b"NOOP\r\n", b"RSET\r\n"],
                       (b"MAIL FROM:<a@b>\r\n", b"EHLO x\r\n", b"DATA\r\n"), 2_000),
    "login": Parser(DOOR.login, [*SIGNS, b"AUTH PLAIN ", b"AUTH LOGIN", b"AAA=", b"\r\n"],
                    (b"AUTH PLAIN ", b"AUTH LOGIN\r\n"), 3_000),
    "proxy": Parser(DOOR.proxied,
                    [*SIGNS, b"PROXY ", b"TCP4 ", b"127.0.0.1 ", b"\r\n", b"\r\n\r\n\0\r\nQUIT\n", b"\x21\x11", b"\0"],
                    (b"PROXY TCP4 127.0.0.1 ", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff", b""), 2_000),
}  # fmt: skip
