"""Which messages a JSON API can carry, and what they are in its terms."""

from __future__ import annotations

import re

import pytest

from relay.mail.message import MAX_FIELD_BYTES, MAX_FIELDS
from relay.mail.rebuilding import MAX_PARTS, CannotRebuild, carried_by, rebuilt
from relay.providers.api import Attachment, Mailbox, Rebuilt
from relay.providers.webhook import Field
from tests.fuzz.cost import assert_linear
from tests.mail.material import OTP

FROM = b"From: a@x.example\r\n"
HEAD = FROM + b"To: u@y.example\r\nSubject: code\r\n"
TEXT = b"\r\nYour code is 482931\r\n"
PLAIN_PART = b"--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\ntext\r\n"
HTML_PART = b"--b\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<p>html</p>\r\n"
FILE = b"Content-Type: application/pdf\r\nContent-Disposition: attachment; filename=a.pdf\r\n"
ALTERNATIVE = b"Content-Type: multipart/alternative; boundary=b\r\n\r\n"
MIXED = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"


def why_not(content: bytes) -> str:
    with pytest.raises(CannotRebuild) as error:
        rebuilt(content)
    assert str(error.value) == error.value.reason
    assert error.value.reason.isprintable()
    return error.value.reason


def with_field(line: bytes) -> bytes:
    return HEAD + line + b"\r\n" + TEXT


def with_text(fields: bytes, body: bytes) -> bytes:
    return HEAD + b"".join(line + b"\r\n" for line in fields.split(b"\n")) + b"\r\n" + body


def with_file(fields: bytes, body: bytes = b"x") -> bytes:
    return HEAD + MIXED + PLAIN_PART + b"--b\r\n" + fields + b"\r\n" + body + b"\r\n--b--\r\n"


def test_a_plain_code_is_taken_apart() -> None:
    assert rebuilt(OTP) == Rebuilt(
        author=Mailbox("no-reply@auth.example.com", "Acme"),
        to=(Mailbox("user@example.net"),),
        cc=(),
        reply_to=(),
        subject="Your verification code: 123456",
        text="Your code  is 123456.\t \n\nIt is valid for ten minutes.\n\n",
        html=None,
        attachments=(),
        headers=(Field("Message-ID", "<1@auth.example.com>"), Field("X-Campaign", "login")),
    )


def test_traces_and_mime_fields_and_the_date_are_left_out() -> None:
    dropped = (
        b"Received: from a by b; now\r\nReceived: x\r\nReturn-Path: <a@x.example>\r\nDate: now\r\nMIME-Version: 1.0\r\n"
        b"Content-Type: text/plain\r\nContent-Transfer-Encoding: 7bit\r\nContent-Disposition: inline\r\n"
        b"Content-Length: 1\r\nContent-MD5: x\r\nSender: Robot <A@X.example>\r\n"
    )
    found = rebuilt(dropped + HEAD + TEXT)
    assert found == rebuilt(HEAD + TEXT)
    assert found.headers == ()


def test_other_fields_keep_their_names_their_order_and_their_number() -> None:
    content = HEAD + b"X-B: 1\r\nReferences: <1@x>\r\n <2@x>\r\nx-a: 2\r\nX-B:\r\n" + TEXT
    assert rebuilt(content).headers == (
        Field("X-B", "1"),
        Field("References", "<1@x> <2@x>"),
        Field("x-a", "2"),
        Field("X-B", ""),
    )


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"plain", "plain"),
        (b"folded\r\n text\r\n\twith a tab", "folded text with a tab"),
        ("Grüße".encode(), "Grüße"),
        (b"=?utf-8?q?Gr=C3=BC=C3=9Fe_an?= alle", "Grüße an alle"),
        (b"Code =?UTF-8?B?w6Q=?= x", "Code ä x"),
        (b"=?utf-8?q?a?=\r\n =?utf-8?q?b?=", "ab"),
        (b"=?utf-8?q?a?= =?iso-8859-1?q?=FC?= =?utf-8?b?w6Q=?= c", "aüä c"),
        (b"=?utf-8?b?w6TD?= =?utf-8?b?pA==?=", "ää"),
        (b"=?utf-8*de?q?=C3=A4?=", "ä"),
        (b"=?iso-2022-jp?b?GyRCJDMbKEI=?=", "こ"),
        (b"2 =? 3", "2 =? 3"),
        (b"", ""),
    ],
)
def test_a_text_field_is_unfolded_and_decoded(raw: bytes, text: str) -> None:
    content = FROM + b"Subject: " + raw + b"\r\nX-Note: " + raw + b"\r\n" + TEXT
    assert rebuilt(content).subject == text
    assert rebuilt(content).headers == (Field("X-Note", text),)


def test_a_message_without_subject_and_recipients_has_none() -> None:
    found = rebuilt(FROM + TEXT)
    assert (found.subject, found.to, found.cc, found.reply_to) == ("", (), (), ())


def test_an_encoded_word_in_a_structured_field_stays_as_it_is() -> None:
    value = "=?utf-8?q?J=C3=B6rg?= <j@x.example>"
    for name in ("Disposition-Notification-To", "List-Id"):
        assert rebuilt(with_field(f"{name}: {value}".encode())).headers == (Field(name, value),)


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (b"u@y.example", [("u@y.example", "")]),
        (b"<u@y.example>", [("u@y.example", "")]),
        (b"U@Y.example , v@y.example", [("U@Y.example", ""), ("v@y.example", "")]),
        (b"John  Q. Public <u@y.example>", [("u@y.example", "John Q. Public")]),
        (rb'"Public, \"J\" (x) <z@z.example>" <u@y.example>', [("u@y.example", 'Public, "J" (x) <z@z.example>')]),
        (b'Dr. "Doe, J" Jr. <u@y.example>', [("u@y.example", "Dr. Doe, J Jr.")]),
        (b'"A  B" "C" <u@y.example>', [("u@y.example", "A  B C")]),
        (b'"" <u@y.example>', [("u@y.example", "")]),
        (b"=?utf-8?q?J=C3=B6?= =?utf-8?q?rg?= D <u@y.example>", [("u@y.example", "Jörg D")]),
        (b'=?utf-8?q?=C3=84?= "b" <u@y.example>', [("u@y.example", "Ä b")]),
        ("Jörg <u@y.example>".encode(), [("u@y.example", "Jörg")]),
        (b'Name\r\n <u@y.example>,\r\n\t"a, b" <v@y.example>', [("u@y.example", "Name"), ("v@y.example", "a, b")]),
        (b'"a b"@y.example, u@[127.0.0.1]', [('"a b"@y.example', ""), ("u@[127.0.0.1]", "")]),
    ],
)
def test_a_list_of_addresses_is_taken_apart(raw: bytes, found: list[tuple[str, str]]) -> None:
    for name, attribute in ((b"To", "to"), (b"Cc", "cc"), (b"Reply-To", "reply_to")):
        mail = rebuilt(FROM + name + b": " + raw + b"\r\n" + TEXT)
        assert getattr(mail, attribute) == tuple(Mailbox(*one) for one in found)


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"u", b"u@y.example v@y.example", b"u@y.example,", b"undisclosed-recipients:;", b"A: u@y.example;",
        b"<@r.example:u@y.example>", b"u@y.example (work)", b"(a) <u@y.example>", b'"a" <u@y.example', b"a@b@c",
        "ü@y.example".encode(), "u@ü.example".encode(), b"N\xff <u@y.example>", b"=?utf-8?q?=FF?= <u@y.example>",
        b"=?what?q?a?= <u@y.example>", b"=?utf-8?q?a=0D=0Ab?= <u@y.example>", b"a=?utf-8?q?b?= <u@y.example>",
        b'"=?utf-8?q?b?=" <u@y.example>', b'a"b" <u@y.example>', b'"a"b <u@y.example>', b'"a""b" <u@y.example>',
        b"=?utf-8?q?=3D=3Futf-8=3Fq=3Fa=3F=3D?= <u@y.example>", b"u@" + b"a" * 64 + b".example", b"u@[1.2.3]",
        b"a, b <u@y.example>", b"u@y.example; v@y.example", b"u\0@y.example", b"u@y.example," * 3_000 + b"u@y.example",
    ],
)  # fmt: skip
def test_a_list_of_addresses_that_could_be_read_in_two_ways_is_not_carried(raw: bytes) -> None:
    for name in (b"To", b"Cc", b"Reply-To"):
        why_not(FROM + name + b": " + raw + b"\r\n" + TEXT)


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (b"To: u@y.example\r\n", "no From"),
        (FROM * 2, "more than one field from"),
        (b"From: a@x.example, b@x.example\r\n", "more than one author"),
        (b"From: \r\n", "no plain list"),
        (FROM + b"Sender: b@x.example\r\n", "Sender"),
        (FROM + b"Sender: A@x.example, a@x.example\r\n", "Sender"),
        *((FROM + name + b": u@y.example\r\n" + name.lower() + b": u@y.example\r\n", "more than one field")
          for name in (b"Subject", b"To", b"Cc", b"Reply-To", b"Message-ID", b"Date", b"Sender", b"MIME-Version",
                       b"Content-Type", b"Content-Transfer-Encoding", b"Content-Language", b"References")),
        *((FROM + name + b": x\r\n", reason)
          for name, reason in ((b"DKIM-Signature", "signature"), (b"DomainKey-Signature", "signature"),
                               (b"ARC-Seal", "signature"), (b"ARC-Authentication-Results", "signature"),
                               (b"Resent-From", "resent"), (b"Resent-Message-ID", "resent"), (b"Bcc", "Bcc"),
                               (b"Content-ID", "Content-ID"), (b"Content-Location", "Content-Location"))),
        (FROM + b"X-A: b\r\n" * MAX_FIELDS, "too much in the header section"),
        (FROM + b"Subject: " + b"a" * MAX_FIELD_BYTES + b"\r\n", "too much in the header section"),
        (FROM + b"no field\r\n", "no field"),
        (b">From someone\r\n" + FROM, "no field"),
        (b" folded\r\n" + FROM, "no field"),
        (FROM + b"Subject : x\r\n", "no field"),
        (FROM + b"X\xc3\xa4: x\r\n", "no field"),
        (FROM + b"X-A: b\r\n \t\r\n c\r\n", "line of blanks"),
        (FROM + b"X-A: b\r\n \r\n", "line of blanks"),
        (FROM + b"X-A: \xff\r\n", "not UTF-8"),
        (FROM + b"X-A: a\x1bb\r\n", "control"),
        (FROM + b"X-A: =?utf-8?q?a=0D=0ABcc:_b?=\r\n", "control"),
        (FROM + b"X-A: =?utf-7?q?+2AA-?=\r\n", "control"),
        (FROM + "List-Id: ü <a.b>\r\n".encode(), "8-bit bytes in a field List-Id"),
        *((FROM + b"Subject: " + value + b"\r\n", reason)
          for value, reason in ((b"=?no-such?q?a?=", "unknown charset"), (b"=?utf-8?q?=FF?=", "declared charset"),
                                (b"=?utf-8?q?=F?=", "quoted-printable"), (b"=?utf-8?b?YQ?=", "base64"),
                                (b"=?utf-8?b?Y!Q=?=", "base64"), (b"=?utf-8?q?a b?=", "can't be decoded"),
                                (b"=?utf-8?x?ab?=", "can't be decoded"), (b"x=?utf-8?q?a?=", "another word"),
                                (b"=?utf-8?q?a?==?utf-8?q?b?=", "another word"), (b"=?utf-8?q?a?=:", "another word"),
                                (b"=?utf-8?q?=3D=3Fa=3Fq=3Fb=3F=3D?=", "can't be decoded"),
                                ("=?utf-8?q?ü?=".encode(), "8-bit bytes in an encoded word"))),
    ],
)  # fmt: skip
def test_a_header_section_that_an_api_would_change_is_not_carried(head: bytes, reason: str) -> None:
    assert re.search(reason, why_not(head + TEXT))


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\r\n", b"\r\ntext\r\n", FROM, HEAD, HEAD + b"\r\n", HEAD + b"\r\n \r\n", HEAD + b"text\r\n",
        (HEAD + TEXT).replace(b"\r\n", b"\n"), HEAD + TEXT + b"\r", HEAD + TEXT + b"a\rb\r\n", HEAD + TEXT + b"\n",
        HEAD + TEXT + b"\0", b"\xff" * 100, HEAD + b"X: y" + TEXT.replace(b"\r\n", b""),
    ],
)  # fmt: skip
def test_what_is_no_whole_message_with_a_text_is_not_carried(content: bytes) -> None:
    why_not(content)


def test_a_reason_holds_nothing_of_the_mail() -> None:
    assert why_not(with_field(b"X482931: \xff")) == "8-bit bytes in a field that are not UTF-8"
    assert why_not(with_field(b"Content-482931: x")) == "a field ? that an API can't set"
    assert "482931" not in why_not(with_file(FILE + b"X-482931: x\r\n"))
    assert "482931" not in why_not(with_text(b"Content-Type: multipart/x482931; boundary=482931", b"482931"))


@pytest.mark.parametrize(
    ("headers", "recipients", "reason"),
    [
        (b"", ("u@y.example", "c@y.example"), None),
        (b"", ("U@Y.Example", "C@y.example", "bcc@y.example"), None),
        (b"", (), "no recipient"),
        (b"", ("u@y.example",), "an address in To or Cc that is no recipient"),
        (b"", ("c@y.example",), "an address in To or Cc that is no recipient"),
        (b"X-Fine: 1\r\n", ("u@y.example", "c@y.example"), None),
        (b"List-Post: <x>\r\n", ("u@y.example", "c@y.example"), "a field List-Post that the API can't set"),
        (b"X-Fine: 1\r\nx-fine: 2\r\n", ("u@y.example", "c@y.example"), "more than one field x-fine"),
    ],
)
def test_an_api_and_an_envelope_can_be_in_the_way(headers: bytes, recipients: list[str], reason: str | None) -> None:
    mail = rebuilt(FROM + b"To: N <u@y.example>\r\nCc: c@y.example\r\n" + headers + TEXT)
    assert carried_by(mail, lambda name: name.startswith("x-"), recipients) == reason


def test_a_mail_with_all_its_recipients_in_bcc_is_carried() -> None:
    assert carried_by(rebuilt(FROM + TEXT), lambda _: False, ["u@y.example"]) is None


FILES = tuple(Attachment(f"{number}.pdf", "application/pdf", b"x") for number in range(MAX_PARTS - 1))


def test_a_hundred_parts_are_carried_and_no_more() -> None:
    parts = b"".join(
        b"--b\r\n" + FILE.replace(b"a.pdf", one.filename.encode()) + b"\r\n" + one.data + b"\r\n" for one in FILES
    )
    assert rebuilt(HEAD + MIXED + PLAIN_PART + parts + b"--b--\r\n").attachments == FILES
    assert why_not(HEAD + MIXED + PLAIN_PART + parts + b"--b\r\n" + FILE + b"\r\n\r\n--b--\r\n") == (
        f"more than {MAX_PARTS} parts"
    )


@pytest.mark.parametrize(
    "unit",
    [
        b"--b\r\n", b"\r\n--b", b"--b\r\n\r\nx\r\n", b"--b\r\n" + FILE + b"\r\n\r\n", b"=", b"=41", b" ", b"a \r\n",
        b"\xc3\xa9", b"X: y\r\n", b"X: =?utf-8?q?a?= \r\n", b"YQ==", b"\r\n\r\n", b";a=b", b"=?a*", b" =?utf-8?q?a?=",
        b'"', b"\\", b",", b"<", b"a@b,", b"\r\n ",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "head",
    [
        HEAD + MIXED + PLAIN_PART,
        HEAD + b"Content-Transfer-Encoding: quoted-printable\r\n\r\n",
        HEAD + b"Content-Transfer-Encoding: base64\r\n\r\n",
        FROM + b"Subject: ",
        FROM + b"To: ",
        HEAD + b"Content-Type: text/plain",
        HEAD + b'Content-Type: text/plain; a="',
        HEAD,
    ],
)
def test_a_hostile_message_takes_linear_time(head: bytes, unit: bytes) -> None:
    def made(size: int) -> bytes:
        return head + unit * (size // len(unit)) + b"\r\n--b--\r\n\r\n"

    assert_linear(rebuilt, made, 100_000, CannotRebuild)
