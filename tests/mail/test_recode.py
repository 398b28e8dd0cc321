"""Re-encoded messages decode to the same text, by the standard library's parser."""

from __future__ import annotations

import email
import email.header
import email.policy
from email.message import Message

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from relay.mail.header_ascii import ascii_value
from relay.mail.message import normalise, over_long_line, parse
from relay.mail.recode import Unencodable, has_utf8_head, recoded

HEAD = b"From: a@example.com\r\nMIME-Version: 1.0\r\n"
UTF8 = "Grüße, 日本\r\n".encode()


def leaf(kind: bytes, encoding: bytes, body: bytes) -> bytes:
    said = b"Content-Transfer-Encoding: " + encoding + b"\r\n" if encoding else b""
    return b"Content-Type: " + kind + b"\r\n" + said + b"\r\n" + body


def multi(subtype: bytes, boundary: bytes, *parts: bytes, encoding: bytes = b"") -> bytes:
    said = b"Content-Transfer-Encoding: " + encoding + b"\r\n" if encoding else b""
    inner = b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts)
    head = b'Content-Type: multipart/%b; boundary="%b"\r\n' % (subtype, boundary)
    return head + said + b"\r\n" + inner + b"--" + boundary + b"--\r\n"


def said(content: bytes) -> list[tuple[str, bytes]]:
    """The leaves, decoded."""
    walked: list[Message] = list(email.message_from_bytes(content, policy=email.policy.compat32).walk())
    return [(one.get_content_type(), one.get_payload(decode=True)) for one in walked if not one.is_multipart()]  # type: ignore[misc]


LINES = st.lists(
    st.one_of(
        st.binary(max_size=90).map(lambda raw: raw.translate(None, b"\r\n\0")),
        st.sampled_from([b"", b".", b"..", b"From x", b"--", b"-- ", b"a=C3", b"x \t", b"=" * 80, b"x" * 999,
                         b"\xc3" * 1500]),
        st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace").translate(None, b"\r\n\0")),
    ),
    max_size=6,
)  # fmt: skip
BODIES = LINES.map(b"\r\n".join)
TYPES = st.sampled_from([b"text/plain; charset=utf-8", b'text/html; charset="iso-8859-1"', b"application/x-any"])
LEAVES = st.builds(leaf, TYPES, st.sampled_from([b"", b"7bit", b"8bit", b"binary", b"8BIT"]), BODIES)
_names = iter(range(10**9))
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: multi(b"mixed", b"b%d=_" % next(_names), *parts)),
        inner.map(lambda one: leaf(b"message/rfc822", b"8bit", b"From: b@example.com\r\n" + one)),
    ),
    max_leaves=5,
)


@given(tree=TREES)
@settings(max_examples=200, deadline=None)
def test_every_leaf_decodes_to_itself_in_seven_bits(tree: bytes) -> None:
    content = HEAD + tree + b"\r\n"
    made = recoded(content, "7bit")
    assert made.isascii()
    assert not over_long_line(made)
    assert said(made) == said(content)
    assert recoded(made, "7bit") is made or said(recoded(made, "7bit")) == said(made)


@given(tree=TREES)
@settings(max_examples=100, deadline=None)
def test_long_lines_are_wrapped_and_the_rest_stays(tree: bytes) -> None:
    content = HEAD + tree + b"\r\n"
    made = recoded(content, "as it is")
    assert not over_long_line(made)
    assert said(made) == said(content)
    assert over_long_line(content) or made is content


@given(content=st.one_of(st.binary(max_size=300), st.lists(st.sampled_from([
    b"Content-Type: multipart/mixed; boundary=b\r\n", b"Content-Type: message/rfc822\r\n", b"--b\r\n", b"--b--\r\n",
    b"\r\n", b"\xff\r\n", b"x" * 1200 + b"\r\n", b"Content-Transfer-Encoding: base64\r\n", b" \xe4\r\n", b"\xe4: x\r\n",
    b"Content-Transfer-Encoding: quoted-printable\r\n", b"Content-Type: text/plain; name=\"\xe4\"\r\n",
    b"To: \xe4 <a@b>, \"\xff\r\n",
]), max_size=14).map(b"".join)))  # fmt: skip
@example(content=b"DKIM-Signature: x\r\n\r\n")
@settings(max_examples=400, deadline=None)
def test_any_content_becomes_ascii_or_is_refused(content: bytes) -> None:
    content = content.replace(b"\0", b"").replace(b"\r", b"").replace(b"\n", b"\r\n")
    recoded(content, "as it is")
    try:
        assert recoded(content, "7bit").isascii()
    except Unencodable:
        assert not content.isascii()
    try:
        assert not has_utf8_head(recoded(content, "ASCII head"))
    except Unencodable:
        assert has_utf8_head(content)


def test_content_that_fits_is_the_same_object() -> None:
    content = HEAD + b"\r\n" + b"x" * 998 + b"\r\n"
    assert recoded(content, "as it is") is content
    assert recoded(HEAD + b"\r\n" + UTF8, "as it is") == HEAD + b"\r\n" + UTF8


REFUSED = {
    "signed by another": b"DKIM-Signature: v=1; a=rsa-sha256; b=x\r\n" + HEAD + b"\r\n" + UTF8,
    "sealed by another": b"ARC-Seal: i=1\r\n" + HEAD + b"\r\n" + UTF8,
    "S/MIME": HEAD + multi(b"signed", b"s", leaf(b"text/plain", b"8bit", UTF8), leaf(b"application/x", b"", b"x")),
    "S/MIME inside": HEAD + multi(b"mixed", b"m", multi(b"signed", b"s", leaf(b"text/plain", b"8bit", UTF8))),
    "a signed message inside": HEAD
    + leaf(b"message/rfc822", b"8bit", b"DKIM-Signature: v=1\r\nFrom: b@c\r\n\r\n" + UTF8),
    "a partial message": HEAD + leaf(b"message/partial; id=x", b"8bit", UTF8),
    "an encoding unheard of": HEAD + leaf(b"text/plain", b"x-uuencode", UTF8),
    "base64 that is none": HEAD + leaf(b"text/plain", b"base64", UTF8),
    "two encodings": HEAD + b"Content-Transfer-Encoding: base64\r\n" + leaf(b"text/plain", b"8bit", UTF8),
    "two types": HEAD + b"Content-Type: text/html\r\n" + leaf(b"text/plain", b"8bit", UTF8),
    "a multipart that is encoded": HEAD + multi(b"mixed", b"m", leaf(b"a/b", b"", UTF8), encoding=b"base64"),
    "a multipart without parts": HEAD + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + UTF8,
    "a preamble": HEAD + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + UTF8 + b"--b\r\n\r\nx\r\n--b--\r\n",
    "an epilogue": HEAD + multi(b"mixed", b"m", leaf(b"a/b", b"", b"x")) + UTF8,
    "an 8-bit address": "From: ü@example.com\r\n\r\nx\r\n".encode(),
    "an 8-bit Message-ID": b"From: a@b\r\nMessage-ID: <\xe4@b>\r\n\r\nx\r\n",
    "an 8-bit field name": b"From: a@b\r\nX-\xe4: x\r\n\r\nx\r\n",
    "an 8-bit line that is no field": b"From: a@b\r\nno \xe4 field\r\nTo: b@c\r\n\r\nx\r\n",
}


@pytest.mark.parametrize("content", REFUSED.values(), ids=REFUSED)
def test_content_that_would_break_is_refused(content: bytes) -> None:
    with pytest.raises(Unencodable):
        recoded(content, "7bit")
    assert recoded(content, "as it is") is content


LONG = {name: content.replace(UTF8, b"x" * 1500 + b"\r\n") for name, content in REFUSED.items() if UTF8 in content}
LONG.pop("base64 that is none")


@pytest.mark.parametrize("content", LONG.values(), ids=LONG)
def test_a_long_line_that_cant_be_wrapped_stays(content: bytes) -> None:
    assert recoded(content, "as it is") == content


@pytest.mark.parametrize("body", [b"text\r\n", b"x" * 1_500 + b"\r\n", UTF8], ids=["short", "long", "8-bit"])
def test_a_long_header_line_goes_out_as_it_came(body: bytes) -> None:
    line = b"X-Report: " + b"x" * 100_000 + b"\r\n"
    content = HEAD + line + b"\r\n" + body
    assert recoded(content, "as it is").startswith(HEAD + line)
    assert recoded(content, "7bit").startswith(HEAD + line)


def test_ascii_inside_of_a_signed_part_doesnt_keep_the_rest_from_being_encoded() -> None:
    signed = multi(b"signed", b"s", leaf(b"text/plain", b"7bit", b"x" * 1200), leaf(b"application/x", b"", b"x"))
    made = recoded(HEAD + multi(b"mixed", b"m", leaf(b"text/plain", b"8bit", UTF8), signed), "7bit")
    assert made.isascii()
    assert signed in made


@pytest.mark.parametrize(
    ("body", "charset"), [(UTF8, "utf-8"), (b"\xe4\xff\r\n", "unknown-8bit"), (b"x" * 1000 + b"\r\n", "us-ascii")]
)
def test_text_without_a_type_gets_one(body: bytes, charset: str) -> None:
    made = email.message_from_bytes(recoded(b"From: a@example.com\r\nSubject: x\r\n\r\n" + body, "7bit"))
    assert (made["MIME-Version"], made.get_content_charset()) == ("1.0", charset)
    assert made.get_payload(decode=True) == body


def test_a_soft_line_break_never_makes_the_end_of_a_part() -> None:
    for pad in range(60, 80):
        body = b"x" * pad + b"--m--" + b"\xff" + b"\r\n"
        cut = b"x" * pad + b"--m \xc3\xa4"
        content = HEAD + multi(b"mixed", b"m", leaf(b"text/plain", b"8bit", body), leaf(b"text/plain", b"8bit", cut))
        assert said(recoded(content, "7bit")) == said(content)


def test_wrapped_base64_and_quoted_printable_decode_to_themselves() -> None:
    for encoding, body in ((b"base64", b"QUJD" * 400), (b"quoted-printable", b"=41=0A=0D=C3=A4" * 100)):
        content = HEAD + leaf(b"text/plain", encoding, body + b"\r\n")
        made = recoded(content, "as it is")
        assert not over_long_line(made)
        assert b"".join(said(made)[0][1].split()) == b"".join(said(content)[0][1].split())


FIELDS = [
    ("subject", " Bestätigung: 123", "Bestätigung: 123"),
    ("subject", " für große Leute", "für große Leute"),
    ("subject", " a\r\n ö\r\n\tü b", "a ö\tü b"),
    ("subject", " " + "ü" * 100, "ü" * 100),
    ("from", ' "Jürgen, B." <a@example.com>', "Jürgen, B. <a@example.com>"),
    ("to", " Jürgen Müller <a@b>, c@d (é), <e@f>", "Jürgen Müller <a@b>, c@d (é), <e@f>"),
    ("x-note", " 日本", "日本"),
]


@pytest.mark.parametrize(("name", "value", "text"), FIELDS)
def test_raw_text_in_a_field_becomes_encoded_words(name: str, value: str, text: str) -> None:
    made = ascii_value(name, value.encode())
    assert made.isascii()
    assert max(map(len, made.split())) <= 75
    decoded = str(email.header.make_header(email.header.decode_header(made.decode().strip().replace("\r\n", ""))))
    assert decoded.replace("  ", " ") == text


def test_a_file_name_becomes_a_parameter_of_rfc_2231() -> None:
    made = b"Content-Disposition:" + ascii_value("content-disposition", ' attachment; filename="Größe 1.pdf"'.encode())
    assert made.isascii()
    assert email.message_from_bytes(made + b"\r\n\r\n").get_filename() == "Größe 1.pdf"


def test_only_the_header_is_changed_for_a_server_without_smtputf8() -> None:
    content = "From: a@b\r\nSubject: Grüße\r\n\r\nGrüße\r\n".encode()
    made = recoded(content, "ASCII head")
    assert parse(made).content[parse(made).body_at :] == "Grüße\r\n".encode()
    assert not has_utf8_head(made)
    assert has_utf8_head(content)


def test_normalised_content_stays_normalised() -> None:
    assert recoded(normalise(b"From: a@b\n\n\xff"), "7bit").endswith(b"\r\n")
