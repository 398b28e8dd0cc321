"""Parse messages, and normalise their line ends."""

from __future__ import annotations

from email import message_from_bytes, policy

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay.mail.header_text import decoded, encoded, one_line
from relay.mail.message import (
    MAX_HEADER_BYTES,
    Unacceptable,
    first,
    from_addresses,
    normalise,
    over_long_line,
    parse,
    subject,
)
from tests.mail.material import OTP, any_content, well_formed

SHAPES = [
    pytest.param(b"", [], b"", id="nothing"),
    pytest.param(b"\r\nbody\r\n", [], b"body\r\n", id="no header section"),
    pytest.param(b"\nbody\n", [], b"body\n", id="no header section, bare LF"),
    pytest.param(b"just text\r\n\r\nmore: text\r\n", [], b"just text\r\n\r\nmore: text\r\n", id="body only"),
    pytest.param(b"A: 1\r\nB: 2\r\n", ["a", "b"], b"", id="no blank line"),
    pytest.param(b"A: 1", ["a"], b"", id="no line end"),
    pytest.param(b"A: 1\r\ntext\r\nB: 2\r\n", ["a"], b"text\r\nB: 2\r\n", id="no blank line, then text"),
    pytest.param(b"A: 1\r\njunk\r\nB: 2\r\n\r\nx", ["a", "", "b"], b"x", id="a line without a colon"),
    pytest.param(b" folded\r\nA: 1\r\n\r\nx", ["", "a"], b"x", id="first line folded"),
    pytest.param(b"From me Sat Mar  1\r\nA: 1\r\n\r\nx", ["", "a"], b"x", id="mbox separator"),
    pytest.param(b"S\xe9: 1\r\n\r\nx", ["s\xe9"], b"x", id="8-bit name"),
    pytest.param(b"A : 1\r\n\r\n", ["a"], b"", id="blank before the colon"),
    pytest.param(b"A b: 1\r\n\r\nx", [], b"A b: 1\r\n\r\nx", id="blank inside the name is no field"),
    pytest.param(b"A: 1\rB: 2\r\n\r\nx", ["a"], b"x", id="a bare CR ends no line"),
    pytest.param(b"A: 1\n\nx", ["a"], b"x", id="bare LF"),
    pytest.param(b"A: 1\r\n b\r\n\tc\r\n\r\nx", ["a"], b"x", id="folded value"),
    pytest.param(b":\r\n\r\nx", [], b":\r\n\r\nx", id="a colon without a name"),
]


@pytest.mark.parametrize(("content", "names", "body"), SHAPES)
def test_fields_and_body_are_found_in_every_shape(content: bytes, names: list[str], body: bytes) -> None:
    message = parse(content)
    assert [field.name for field in message.fields] == names
    assert content[message.body_at :] == body


@given(any_content)
def test_fields_cover_the_header_section_without_gap_or_overlap(content: bytes) -> None:
    message = parse(content)
    at = 0
    for field in message.fields:
        assert field.start == at < field.end
        at = field.end
        assert not field.name or content[field.start : field.end].lower().startswith(field.name.encode("latin-1"))
    assert at == message.head_end
    assert content[message.head_end : message.body_at] in (b"", b"\n", b"\r\n")


@given(well_formed())
def test_well_formed_messages_read_as_pythons_email_reads_them(content: bytes) -> None:
    ours, theirs = parse(content), message_from_bytes(content, policy=policy.compat32)
    assert [field.name for field in ours.fields] == [name.lower() for name in theirs]
    assert content[ours.body_at :].decode() == theirs.get_payload(decode=True).decode()  # type: ignore[union-attr]


def test_a_value_keeps_its_folding_and_loses_only_the_last_line_end() -> None:
    assert first(parse(b"A: 1\r\n\t2 \r\nB: 3\r\n\r\n"), "a") == b" 1\r\n\t2 "


def test_the_first_of_several_fields_is_given_and_none_for_a_missing_one() -> None:
    message = parse(b"A: 1\r\na: 2\r\n\r\n")
    assert (first(message, "a"), first(message, "b")) == (b" 1", None)


def test_an_endless_header_section_is_refused_before_it_costs_memory() -> None:
    with pytest.raises(Unacceptable, match=r"554 5\.6\.0"):
        parse(b"a:\r\n" * MAX_HEADER_BYTES, limited=True)


@pytest.mark.parametrize(
    "content",
    [
        b"A:" + b" " * 5_000_000 + b"\r\n\r\n",
        b"a" * 5_000_000,
        b"A" + b" " * 5_000_000,
        b" \r\n" * 2_000_000,
        b"From:" + b'"\\' * 100_000,
        b"From:" + b"(" * 200_000,
        b"From:" + b"[" * 200_000,
        b"From: a@" + b" " * 200_000 + b"b",
        b"Subject:" + b"=?a?q?" * 40_000,
        b"Subject:" + b"=?utf-8?b?" + b"A" * 200_000,
    ],
    ids=["blanks", "one line", "no colon", "folds", "quotes", "comments", "brackets", "around the at", "words", "word"],
)
def test_hostile_headers_take_linear_time(content: bytes) -> None:
    # The suite's time-out ends a quadratic one, which would take hours.
    try:
        message = parse(content)
    except Unacceptable:
        return
    subject(message)
    from_addresses(message)


FROMS = [
    ("a@Example.COM", ("a@example.com",)),
    ("Acme <A@Example.com>", ("A@example.com",)),
    ('"x@evil.example" <a@b.example>', ("a@b.example",)),
    ("=?utf-8?q?=3Cx=40evil.example=3E?= <a@b.example>", ("a@b.example",)),
    ("a@b.example, Doe, John <c@d.example>", ("a@b.example", "c@d.example")),
    ("Team: a@b.example, c@d.example;", ("a@b.example", "c@d.example")),
    ("undisclosed:;", ()),
    ("(x@evil.example) a@b.example (and (nested) more)", ("a@b.example",)),
    ("a (comment) @ b . example", ("a@b.example",)),
    ('"john doe"@b.example', ('"john doe"@b.example',)),
    ('"a\\"b" <c@d.example>', ("c@d.example",)),
    ("<@r.example,@s.example:a@b.example>", ("a@b.example",)),
    ("John Doe a@b.example", ("a@b.example",)),
    ("[Acme <a@b.example>", ("a@b.example",)),
    ('"never closed <a@b.example>', ("a@b.example",)),
    ("Foo\r\n\t<a@b.example>", ("a@b.example",)),
    ("\ta@b.example", ("a@b.example",)),
    ("Jürgen <j@ü.example>", ("j@ü.example",)),
    ("a@[192.0.2.1]", ("a@[192.0.2.1]",)),
    ("no address", ()),
    ("a@", ()),
    ("@b.example", ()),
    ("a@b@c.example", ()),
    ("", ()),
]


@pytest.mark.parametrize(("value", "addresses"), FROMS)
def test_the_authors_are_found_in_every_form_of_from(value: str, addresses: tuple[str, ...]) -> None:
    assert from_addresses(parse(f"From: {value}\r\n\r\n".encode())) == addresses


def test_every_from_field_counts() -> None:
    assert from_addresses(parse(b"From: a@b.example\r\nfrom: c@d.example\r\n\r\n")) == ("a@b.example", "c@d.example")


@given(st.binary(max_size=60), st.text(max_size=40))
def test_no_from_value_breaks_the_reading(raw: bytes, text: str) -> None:
    for value in (raw, text.encode("utf-8", "replace")):
        for address in from_addresses(parse(b"From: " + value + b" <a@b>\r\n\r\n")):
            assert address.isprintable()


WORDS = [
    (b" plain ", "plain"),
    (b" a\r\n b\r\n\tc", "a b c"),
    (b"=?utf-8?q?Best=C3=A4tigung?=", "Bestätigung"),
    (b"=?UTF-8?B?QmVzdMOkdGlndW5n?=", "Bestätigung"),
    (b"=?utf-8*de?q?=C3=A4?=", "ä"),
    (b"a =?utf-8?q?b?= c", "a b c"),
    (b"=?utf-8?q?a?= \r\n =?utf-8?q?b?=", "ab"),
    (b"=?utf-8?q?=C3?= =?utf-8?q?=A4?=", "ä"),
    (b"=?iso-8859-1?q?=E4?= =?utf-8?q?=C3=A4?=", "ää"),
    (b"=?koi8-r?b?68/E?=", "Код"),
    (b"=?no-such-charset?q?=C3=A4?=", "ä"),
    (b"=?idna?q?xn--a?=", "xn--a"),
    (b"=?zlib?b?eJw=?=", "x"),
    (b"=?utf-8?b?QQ?=", "A"),
    (b"=?utf-8?b?Q?=", "Q"),
    (b"=?utf-8?q?a=0D=0ABcc:_b?=", "a Bcc: b"),
    (b"=?utf-8?q?a=00b?=", "a b"),
    (b"=?utf-7?q?+2AA-x?=", "x"),
    (b"raw \xc3\xa4", "raw ä"),
    (b"raw \xe4", "raw ä"),
    (b"bare\rCR and\x00NUL", "bare CR and NUL"),
    (b"=?broken", "=?broken"),
    ("=?utf-8?q?a\u202eb?=".encode(), "a b"),
]


@pytest.mark.parametrize(("raw", "text"), WORDS)
def test_header_text_is_decoded_to_one_clean_line(raw: bytes, text: str) -> None:
    assert decoded(raw) == text


@given(st.one_of(st.binary(max_size=80), st.binary(max_size=30).map(lambda raw: b"=?utf-16?q?" + raw.hex().encode())))
def test_decoded_text_has_no_control_and_can_be_written(raw: bytes) -> None:
    text = decoded(raw)
    assert not any(ord(sign) < 32 or 0x7F <= ord(sign) < 0xA0 for sign in text)
    text.encode()


@given(st.text(max_size=80))
def test_encoded_text_decodes_to_itself(text: str) -> None:
    line = encoded(text)
    assert line.isascii()
    assert all(len(piece) <= 78 for piece in line.split(b"\r\n")) or text.isascii()
    assert decoded(line) == one_line(text) or "=?" in text


def test_a_missing_subject_is_empty() -> None:
    assert subject(parse(b"To: a@b\r\n\r\n")) == ""


def test_clean_content_is_returned_as_the_same_object() -> None:
    assert normalise(OTP) is OTP


@example(b"Subject: x\r\n\n\r\n")
@given(any_content)
def test_normalised_content_has_only_crlf_and_the_same_fields(content: bytes) -> None:
    try:
        clean = normalise(content)
    except Unacceptable:
        # Only for text that could become a new field.
        assert b"\r" in content.replace(b"\r\n", b"")
        return
    bare = clean.replace(b"\r\n", b"")
    assert b"\r" not in bare
    assert b"\n" not in bare
    assert not clean or clean.endswith(b"\r\n")
    assert normalise(clean) is clean
    assert [field.name for field in parse(clean).fields] == [field.name for field in parse(content).fields]
    assert clean.replace(b"\r\n", b"").replace(b"\r", b"") == content.replace(b"\r", b"").replace(b"\n", b"")


NORMALISED = [
    (b"A: b\n\nc\n", b"A: b\r\n\r\nc\r\n"),
    (b"A: b\r\n\r\nc\rd\r\n", b"A: b\r\n\r\nc\r\nd\r\n"),
    (b"A: b\r\n\r\nc\r\r\n", b"A: b\r\n\r\nc\r\n\r\n"),
    (b"A: b\r\n\r\n.\n.\r\n", b"A: b\r\n\r\n.\r\n.\r\n"),
    (b"A: b\r\n\r\nno end", b"A: b\r\n\r\nno end\r\n"),
    (b"\r\nbody\rmore", b"\r\nbody\r\nmore\r\n"),
    (b"", b""),
]


@pytest.mark.parametrize(("content", "clean"), NORMALISED)
def test_line_ends_are_normalised(content: bytes, clean: bytes) -> None:
    assert normalise(content) == clean


REFUSED = [
    b"Subject: a\rBcc: evil@example.com\r\n\r\nx\r\n",
    b"Subject: a\r\r\nBcc: evil@example.com\r\n\r\nx\r\n",
    b"Subject: a\n\rBcc: evil@example.com\r\n\r\nx\r\n",
    b"text\rSubject: a",
    b"Subject: a\0\r\n\r\n",
    b"Subject: a\r\n\r\nbody\0",
]


@pytest.mark.parametrize("content", REFUSED)
def test_a_bare_cr_in_the_header_section_and_any_nul_is_refused(content: bytes) -> None:
    with pytest.raises(Unacceptable) as refused:
        normalise(content)
    assert refused.value.reply.code == 554
    assert refused.value.reply.enhanced == "5.6.0"


@pytest.mark.parametrize(
    ("content", "long"),
    [
        (b"", False),
        (b"a" * 998 + b"\r\n", False),
        (b"a" * 999 + b"\r\n", True),
        (b"x\r\n" + b"a" * 999 + b"\r\nx\r\n", True),
        ((b"a" * 998 + b"\r\n") * 3, False),
        (b"\r\n" * 5000, False),
    ],
)
def test_over_long_lines_are_seen(content: bytes, long: bool) -> None:
    assert over_long_line(content) is long


@given(st.lists(st.integers(0, 30), max_size=12), st.integers(1, 20))
def test_over_long_lines_are_seen_at_any_limit(lengths: list[int], limit: int) -> None:
    content = b"".join(b"x" * length + b"\r\n" for length in lengths)
    assert over_long_line(content, limit) == any(length > limit for length in lengths)
