"""What `/api/send` makes of a document: whatever its texts are, a message with the wanted fields only, or an error."""

from __future__ import annotations

import base64
import email
import email.policy
import json
import quopri
from email.message import EmailMessage
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.mail import body
from relay.mail.compose import NotComposable, mailbox
from relay.mail.header_text import decoded
from relay.mail.message import first, parse
from relay.web.letter import Letter, TooMany, Unreadable, letter_of

FROM, TO = "a@example.com", "b@example.net"
BAD = ["\r\nBcc: x@evil.example", "\n\nbody", "\0", "\ud800", "\x85", "\u2028", "\x1b[2J", "\r", "\u202e", "\t"]
OWNED = [
    "From", "to", "SUBJECT", "Bcc", "Resent-To", "resent-x", "MIME-Version", "Content-Type", "content-x", "Received",
    "Return-Path", "DKIM-Signature",
]  # fmt: skip


def compose(document: Any, client: str | None = None, most: int = 500) -> Letter:
    return letter_of(json.dumps(document).encode(), client, most, lambda: None)


def refusal(document: Any, client: str | None = None) -> str:
    with pytest.raises(NotComposable) as caught:
        compose(document, client)
    return str(caught.value)


def simple(**fields: Any) -> dict[str, Any]:
    return {"from": FROM, "to": TO, "text": "hi", **fields}


@pytest.mark.parametrize("bad", BAD)
def test_no_field_of_a_header_takes_what_could_end_it(bad: str) -> None:
    file = {"filename": "x", "content": ""}
    for document, field in [
        (simple(**{"from": f"N{bad} <{FROM}>"}), "from"),
        (simple(**{"from": f"{bad}{FROM}"}), "from"),
        (simple(to=f'"N{bad}" <{TO}>'), "to"),
        (simple(to=[TO, f"x{bad}@example.net"]), "to[1]"),
        (simple(subject=f"s{bad}"), "subject"),
        (simple(headers={"X-A": f"v{bad}"}), "headers.X-A"),
        (simple(headers={f"X{bad}": "v"}), "headers.?"),
        (simple(attachments=[{**file, "filename": f"x{bad}.pdf"}]), "attachments[0].filename"),
        (simple(attachments=[{**file, "content_type": f"text/plain{bad}"}]), "attachments[0].content_type"),
        (simple(attachments=[{**file, "content": f"eA=={bad}x"}]), "attachments[0].content"),
    ]:
        told = refusal(document)
        assert told.startswith(f"{field}: "), told
        assert "evil" not in told
    assert refusal(simple(), f"c{bad}").startswith("X-Relay-Client: ")


@pytest.mark.parametrize("name", OWNED)
def test_what_the_relay_writes_cant_be_given(name: str) -> None:
    assert refusal(simple(headers={name: "x"})).endswith("the relay writes this header field itself")


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"to": []}, "to: expected at least one address"),
        ({"to": None}, "to: expected an address or a list of addresses, got nothing"),
        ({"to": [TO, 3]}, "to[1]: expected an address, got a number"),
        ({"to": "a@x.example, b@x.example"}, "to: expected one address"),
        ({"to": "A <a@x.example>, B <b@x.example>"}, "to: expected one address"),
        ({"to": "postmaster"}, "to: expected one address"),
        ({"to": "@route.example:a@x.example"}, "to: expected one address"),
        ({"from": ""}, "from: expected one address"),
        ({"from": True}, "from: expected a text, got a boolean"),
        ({"from": f"{'n' * 501} <{FROM}>"}, "from: the name is longer than 500"),
        ({"text": None}, "text: text or html is required"),
        ({"text": "\0"}, "text: NUL and lone"),
        ({"html": "\udfff"}, "html: NUL and lone"),
        ({"html": 1}, "html: expected a text, got a number"),
        ({"code123456": 1}, "?: unknown field; known are from, to,"),
        ({"x": [0] * 20_001}, "the body: there are more than 20000 values"),
        ({"headers": []}, "headers: expected an object of names and texts, got a list"),
        ({"headers": {"X-A": 1}}, "headers.X-A: expected a text, got a number"),
        ({"headers": {"X-A": "1", "x-a": "2"}}, "headers.x-a: this name is given twice"),
        ({"headers": {"X A": "1"}}, "headers.?: expected the name"),
        ({"headers": {"X-A": "x" * 1000}}, "headers.X-A: a word is too long"),
        ({"headers": {"X-A": "x " * 20_000}}, "headers.X-A: the header field would be larger"),
        ({"headers": {"X-123456": "x" * 1000}}, "headers.?: a word is too long"),
        ({"headers": {"Cc": "ä" + "(" * 3000}}, "headers.Cc: expected a list of addresses"),
        ({"subject": " " * 40_000}, "subject: the header field would be larger"),
        ({"from": f'"{"n" * 1003}" <{FROM}>'}, "from: the name is longer than 500"),
        ({"attachments": [{"filename": "x" * 40_000, "content": ""}]}, "attachments[0].filename: expected 1 to 200"),
        ({"headers": {f"X-{n}a": "" for n in range(101)}}, "headers: more than 100"),
        ({"headers": {"Reply-To": "Jörg <ö@x.example>"}}, "headers.Reply-To: an address beyond ASCII"),
        ({"headers": {"Cc": "Jörg <x>, b@x.example"}}, "headers.Cc: expected one address"),
        ({"attachments": {}}, "attachments: expected a list, got an object"),
        ({"attachments": ["x"]}, "attachments[0]: expected an object, got a text"),
        ({"attachments": [{"content": ""}]}, "attachments[0].filename: this field is required"),
        ({"attachments": [{"filename": "", "content": ""}]}, "attachments[0].filename: expected 1 to 200"),
        ({"attachments": [{"filename": "x", "content": "x"}]}, "attachments[0].content: expected base64"),
        ({"attachments": [{"filename": "x", "content": "eA==", "type": ""}]}, "attachments[0].type: unknown field"),
        (
            {"attachments": [{"filename": "x", "content": "", "content_type": "message/rfc822"}]},
            "attachments[0].content_type: expected a media type",
        ),
    ],
)
def test_a_mistake_is_named_with_its_field(fields: dict[str, Any], told: str) -> None:
    assert refusal(simple(**fields)).startswith(told)


def test_too_many_recipients_are_counted_once_each() -> None:
    many = [f"a{n}@example.net" for n in range(11)]
    assert len(compose(simple(to=[*many[:10], "a1@EXAMPLE.net"]), most=10).recipients) == 10
    with pytest.raises(TooMany):
        compose(simple(to=many), most=10)


HOSTILE = st.text() | st.text(st.sampled_from('\r\n\0\ud800\x85,;:<>@"\\=?()[] .äa日\t')) | st.sampled_from(BAD)
"""texts that break what is written naively, and any others"""
LINE = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp", "Cf")), max_size=200)
"""of header fields"""


def mostly(usual: st.SearchStrategy[str], times: int = 20) -> st.SearchStrategy[str]:
    """Hostile once in a while, so that many a document is a message."""
    return st.sampled_from([usual] * times + [HOSTILE]).flatmap(lambda chosen: chosen)


TEXT = mostly(LINE)
NAME = LINE.map(lambda name: name.translate({ord(char): None for char in '<>"'}))
MAILBOX = st.builds("{} <{}>".format, NAME, st.sampled_from([FROM, TO, "ö@example.net", '"x.y"@example.net']))
ADDRESS = mostly(MAILBOX) | mostly(
    st.builds("{} <{}>".format, TEXT.map(lambda name: name.replace('"', "")), st.just(TO))
)
FILE = st.fixed_dictionaries(
    {"filename": TEXT.filter(bool), "content": st.binary().map(lambda data: base64.b64encode(data).decode())},
    optional={"content_type": st.sampled_from(["text/html", "image/png", "Application/X.y+z"])},
)
HEADER_NAME = st.sampled_from(["X-A", "Reply-To", "cc", "Date", "Message-ID", "List-Unsubscribe", "x-b"])
DOCUMENT = st.fixed_dictionaries(
    {"from": ADDRESS, "to": ADDRESS | st.lists(ADDRESS, min_size=1, max_size=3), "text": HOSTILE | TEXT},
    optional={
        "subject": TEXT,
        "html": TEXT,
        "headers": st.dictionaries(HEADER_NAME, TEXT, max_size=3),
        "attachments": st.lists(FILE, max_size=2),
        "lane": TEXT,
    },
)


@given(DOCUMENT, st.none() | TEXT)
def test_any_document_becomes_the_message_it_describes_or_an_error(
    document: dict[str, Any], client: str | None
) -> None:
    try:
        letter = compose(document, client)
    except NotComposable:
        return
    again = compose(document, client)
    assert again.content == letter.content
    message = parse(letter.content, limited=True)
    names = [field.name for field in message.fields if not field.name.startswith(("content-", "mime-"))]
    wanted = ["from", "to", *(["subject"] if document.get("subject") is not None else [])]
    given_names = [name.lower() for name in document.get("headers") or {}]
    added = ["x-relay-client"] if client is not None and "x-relay-client" not in given_names else []
    assert names == [*wanted, *given_names, *added]
    assert all(len(line) <= 998 for line in letter.content.split(b"\r\n"))
    assert b"\n" not in letter.content.replace(b"\r\n", b"")
    assert letter.content[message.body_at :].isascii()
    assert letter.content.isascii() or not (letter.sender + "".join(letter.recipients)).isascii()
    assert len(letter.recipients) <= 3
    found = email.message_from_bytes(letter.content, policy=email.policy.default)
    assert isinstance(found, EmailMessage)
    if "html" not in document and not document.get("attachments"):
        lines = str(document["text"]).replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").split("\n")
        assert found.get_content().replace("\r\n", "\n").removesuffix("\n").split("\n") == lines
    assert len(list(found.iter_attachments())) == len(document.get("attachments") or [])


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    with pytest.raises((NotComposable, Unreadable)):
        letter_of(body, None, 1, lambda: None)


@given(
    st.text(st.characters(exclude_categories=["Cs"])) | st.text(st.sampled_from("a \t\n\r=.äé日€")), st.integers(5, 90)
)
def test_a_text_is_read_back_however_it_is_divided(text: str, at_once: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(body, "AT_ONCE", at_once)
        encoded = body.encoded_text(text, lambda: None)
    lines = text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").split("\n")
    head = f"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: {encoded.encoding}\r\n\r\n"
    found = email.message_from_bytes(head.encode() + encoded.content, policy=email.policy.default)
    assert isinstance(found, EmailMessage)
    raw = found.get_payload(decode=True)
    assert isinstance(raw, bytes)
    assert raw.decode().replace("\r\n", "\n").removesuffix("\n").split("\n") == lines
    assert encoded.content.isascii()
    assert encoded.content.endswith(b"\r\n")
    longest = 78 if encoded.encoding == "7bit" else 76
    assert max(map(len, encoded.content.split(b"\r\n"))) <= longest


@pytest.mark.parametrize("last", ["x", "ä"])
@pytest.mark.parametrize("at_once", range(70, 90))
def test_no_line_is_too_long_where_a_text_is_divided(at_once: int, last: str) -> None:
    text = "ä" + "x" * 70 + last * 3 + "y" * 100
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(body, "AT_ONCE", at_once)
        encoded = body.encoded_text(text, lambda: None)
    assert encoded.encoding == "quoted-printable"
    assert max(map(len, encoded.content.split(b"\r\n"))) <= 76
    assert quopri.decodestring(encoded.content).decode().rstrip("\r\n") == text


@given(st.text())
def test_a_mailbox_is_read_back_as_it_was_written(name: str) -> None:
    try:
        one = mailbox("to", f'"{name}" <{TO}>')
    except NotComposable:
        return
    letter = compose(simple(to=f'"{name}" <{TO}>'))
    found: Any = email.message_from_bytes(letter.content, policy=email.policy.default)["To"]
    assert [each.addr_spec for each in found.addresses] == [TO]
    raw = first(parse(letter.content), "to")
    assert raw is not None
    # The library puts a blank between two encoded words of a name.
    shown = found.addresses[0].display_name if raw.isascii() and b"=?" not in raw else decoded(raw).rpartition(" <")[0]
    assert shown.split() == one.name.split()
