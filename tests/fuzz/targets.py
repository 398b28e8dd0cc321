"""The targets of fuzzing: each takes any bytes, and asserts what must hold for them."""

from __future__ import annotations

import tempfile
import unicodedata
from collections.abc import Callable
from email import message_from_bytes
from pathlib import Path

from relay.config.errors import ConfigErrors
from relay.config.load import load
from relay.intake.framing import DotDecoder
from relay.intake.parameters import BadCommand, parse_mail, parse_rcpt
from relay.mail.address import MAX_DOMAIN_OCTETS
from relay.mail.address_list import addresses_in
from relay.mail.canonical import BodyHash
from relay.mail.compose import NotComposable
from relay.mail.dsn import RecipientReport, Stamp, delivery_status
from relay.mail.dsn_returned import MAX_HEADERS_BYTES, returned_headers
from relay.mail.envelope import Envelope, Recipient
from relay.mail.header_ascii import Unencodable, ascii_value
from relay.mail.header_text import decoded, encoded, text_of
from relay.mail.mailbox_provider import KNOWN_PROVIDERS, provider
from relay.mail.message import (
    MAX_RECEIVED,
    Unacceptable,
    from_addresses,
    normalise,
    over_long_line,
    parse,
    prepare,
    subject,
)
from relay.mail.mime import MAX_PARTS, leaves
from relay.mail.recode import Form, has_utf8_head, recoded
from relay.mail.redact import MAX_REPLY, MAX_TEXT, redact, redact_reply
from relay.mail.reply import Reply
from relay.upstream.results import LOST
from relay.upstream.smtp.capabilities import Capabilities
from relay.upstream.smtp.commands import Mail, commands
from relay.upstream.smtp.replies import MAX_LINE_BYTES, MAX_REPLY_BYTES, ProtocolError, ReplyReader
from relay.upstream.smtp.transaction import EnvelopeMode, Transaction
from relay.web.letter import TooMany, Unreadable, letter_of

CONTENT = b"Subject: x\r\n\r\n.one\r\n"
TO = tuple(Recipient(f"{name}@example.net") for name in "abc")
FORMS: tuple[Form, ...] = ("7bit", "ASCII head")
USER = Recipient("user@example.net")
ENVELOPE = Envelope("a@example.com", (USER,), ret="FULL")
REPORT = RecipientReport(USER, "failed", "550 5.1.1 no such user")
STAMP = Stamp("relay.example.com", 0.0, "<1@relay.example.com>", "=_boundary")
SECRETS = {"SECRET": "hunter2-from-the-environment"}


def replies(data: bytes) -> None:
    """As an upstream's side of a session: every division into pieces gives the same replies, in bounded memory, and
    every recipient gets one correct result."""
    said, broken = _read([data])
    one_by_one, broken_too = _read([data[at : at + 1] for at in range(len(data))])
    assert (said, broken) == (one_by_one, broken_too)
    for reply in said:
        assert 200 <= reply.code <= 599
        assert len(reply.text) <= MAX_REPLY_BYTES
        assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in str(reply))
        assert len(redact_reply(str(reply))) <= MAX_REPLY
    capabilities = Capabilities.parse(line.text for line in said)
    for pipelined, chunked in ((True, True), (True, False), (False, False)):
        _transact(EnvelopeMode(pipelined, chunked), capabilities, said)


def _read(segments: list[bytes]) -> tuple[list[Reply], bool]:
    reader, replies = ReplyReader(), list[Reply]()
    unended = b""
    try:
        for segment in segments:
            for reply in reader.feed(segment):
                replies.append(reply)
            unended = (unended + segment).rpartition(b"\n")[2]
            assert len(unended) <= MAX_LINE_BYTES  # or it was refused, so that the buffer is bounded
    except ProtocolError:
        return replies, True
    return replies, False


def _transact(mode: EnvelopeMode, capabilities: Capabilities, said: list[Reply]) -> None:
    envelope = commands(Mail(Envelope("a@example.com", TO), list(enumerate(TO)), len(CONTENT)), capabilities)
    running = Transaction(envelope.mail, envelope.rcpts, mode)
    written = running.begin()
    for reply in said:
        if running.wants_content:
            written += b"".join(running.send_content([CONTENT]))
        if running.done:
            break
        written += running.receive(reply)
    if not running.done:
        running.connection_lost(LOST)
    told = {result.position: result for result in running.results}
    assert set(told) == set(range(len(TO)))
    for result in told.values():
        assert (result.outcome == "sent") == (result.reply.positive and result.phase == "dot")
        if result.outcome in ("sent", "ambiguous"):
            assert running.content_sent
    assert written.count(b"MAIL FROM:") == 1
    assert written.count(b"one\r\n") == running.content_sent


def headers(data: bytes) -> None:
    """As a message from an app: it is accepted or refused, nothing unprintable is logged, the body is unchanged."""
    try:
        content = normalise(data)
        message = parse(content)
        prepared = prepare(message, trace=b"Received: by us\r\n", date=b"now", message_id="<1@example.com>")
    except Unacceptable:
        return
    assert b"\0" not in content
    assert content.count(b"\n") == content.count(b"\r") == content.count(b"\r\n")
    for text in (subject(message), redact(subject(message)), prepared.message_id, *from_addresses(message)):
        assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in text)
    over_long_line(content)
    sent = parse(prepared.content)
    names = [field.name for field in sent.fields]
    assert names.count("received") == [field.name for field in message.fields].count("received") + 1
    assert "date" in names
    assert "message-id" in names
    assert not any(name in ("bcc", "resent-bcc") or name.startswith("x-relay-") for name in names)
    assert prepared.content.endswith(content[message.body_at :])
    if names.count("received") <= MAX_RECEIVED:
        again = prepare(sent, trace=b"", date=b"then", message_id="<2@example.com>")
        assert again.content == prepared.content


def fields(data: bytes) -> None:
    """As a header field's value: decoded and encoded in ASCII, without controls and 8-bit bytes."""
    for name in ("to", "subject", "content-type", "date"):
        try:
            value = ascii_value(name, data)
        except Unencodable:
            continue
        assert value.isascii()
        assert value == data or not data.isascii()
    text = decoded(data)
    assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in text)
    assert encoded(text).isascii()
    assert len(redact(text)) <= MAX_TEXT
    for address in addresses_in(text_of(data)):
        local, _, domain = address.rpartition("@")
        assert local
        assert domain
        assert address.isprintable()
        assert len(domain) <= MAX_DOMAIN_OCTETS + 1
        assert provider(address) in ("", domain) or provider(address) in KNOWN_PROVIDERS
    kept = redact_reply(text_of(data), data)
    assert len(kept) <= MAX_REPLY
    assert "\n" not in kept


def contents(data: bytes) -> None:
    """As a stored content: it can be signed, re-encoded, parsed and reported."""
    try:
        content = normalise(data)
    except Unacceptable:
        return
    message = parse(content)
    assert len(list(leaves(message))) <= MAX_PARTS
    assert len({BodyHash(content, message.body_at, size).digest() for size in (1, 7, 50, 131_072)}) == 1
    recoded(content, "as it is")
    for form in FORMS:
        try:
            made = recoded(content, form)
        except Unencodable:
            continue
        assert not has_utf8_head(made)
        assert made.isascii() or form != "7bit"
    assert len(returned_headers(message)) <= MAX_HEADERS_BYTES
    report = delivery_status(ENVELOPE, (REPORT,), content, stamp=STAMP, arrived_at=0.0)
    assert normalise(report) is report
    assert message_from_bytes(report).get_content_type() == "multipart/report"


def commands_in(data: bytes) -> None:
    """As a client's commands: values have no line end, or the command is refused; DATA ends at the same place for
    every division into pieces."""
    text = data.decode("utf-8", "surrogateescape")
    for parsed in (parse_mail, lambda argument: parse_rcpt(argument, smtputf8=True)):
        try:
            said = parsed(text)
        except BadCommand:
            continue
        # An address may have unassigned and private characters; Python's tables decide whether they are printable.
        unseen = {char for value in said if isinstance(value, str) for char in value if not char.isprintable()}
        assert {unicodedata.category(char) for char in unseen} <= {"Cn", "Co"}
    ends = {_framed(data, step) for step in (1, 2, 5, max(1, len(data)))}
    assert len(ends) == 1
    ((content, rest),) = ends
    if rest is not None:
        before, _, behind = (b"\r\n" + data).partition(b"\r\n.\r\n")
        assert rest == behind
        assert content == (before + b"\r\n").replace(b"\r\n.", b"\r\n")[2:]


def _framed(data: bytes, step: int) -> tuple[bytes | None, bytes | None]:
    decoder = DotDecoder(1_000_000)
    for at in range(0, len(data), step):
        rest = decoder.feed(data[at : at + step])
        if rest is not None:
            content = decoder.content()
            assert isinstance(content, bytes)
            return content, rest + data[at + step :]
    return None, None


def config(data: bytes) -> None:
    """As the configuration file: loaded, or refused with errors that name the file and show no secret."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "relay.yaml"
        path.write_bytes(data)
        try:
            told = repr(load(path, SECRETS, machine_name=lambda: "machine.example.com"))
        except ConfigErrors as errors:
            told = str(errors)
            assert all(line.startswith(str(path)) for line in told.splitlines())
        assert SECRETS["SECRET"] not in told


def letters(data: bytes) -> None:
    """As the document of a request to send: a message with lines that fit and no field of its own, or an error."""
    try:
        letter = letter_of(data, None, 10, lambda: None)
    except (NotComposable, TooMany, Unreadable):
        return
    message = parse(letter.content, limited=True)
    names = [field.name for field in message.fields]
    assert names[:2] == ["from", "to"]
    assert not {"bcc", "received", "return-path", "dkim-signature"} & set(names)
    assert names.count("from") == names.count("to") == names.count("mime-version") == 1
    assert not over_long_line(letter.content)
    assert normalise(letter.content) is letter.content


TARGETS: dict[str, Callable[[bytes], None]] = {
    "replies": replies,
    "headers": headers,
    "fields": fields,
    "contents": contents,
    "commands": commands_in,
    "config": config,
    "letters": letters,
}
