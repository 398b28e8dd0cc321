"""Hostile mail costs time in proportion to its size at most."""

from __future__ import annotations

import binascii
from email import message_from_bytes

import pytest

from relay.mail.address_list import addresses_in
from relay.mail.codes.masking import MASK
from relay.mail.dkim import Signer, ascii_domain
from relay.mail.dsn_returned import MAX_HEADERS_BYTES, returned_headers
from relay.mail.header_ascii import MAX_FIELD_BYTES, Unencodable, ascii_value
from relay.mail.mailbox_provider import provider
from relay.mail.message import MAX_AUTHORS, from_addresses, normalise, parse, subject
from relay.mail.mime import leaves
from relay.mail.recode import MAX_PARTS, SLICE_BYTES, Form, recoded
from relay.mail.redact import MAX_TEXT, redact, redact_reply
from tests.fuzz.cost import assert_bounded, assert_linear

FIELDS = [
    ("to", b'\\"'), ("to", b'"'), ("to", b"<"), ("to", b"("), ("to", b"\\("), ("to", b"\\"), ("to", b"a "),
    ("to", b"<("), ("to", b'("'), ("to", b'"\xc3\xa9" '), ("to", b"a@b, "),
    ("content-disposition", b"a"), ("content-disposition", b"a-"), ("content-disposition", b'a="'),
    ("content-disposition", b'a="\\"'), ("content-disposition", b"a=;"),
    ("subject", b" "), ("subject", b"\r\n "), ("subject", b"\xc3\xa9 x "), ("subject", b"\xff"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "unit"), FIELDS)
@pytest.mark.parametrize("start", [b"\xc3\xa9", b'\xc3\xa9"', b"\xc3\xa9 <", b"\xc3\xa9 ("])
def test_a_field_is_put_into_ascii_in_linear_time(name: str, unit: bytes, start: bytes) -> None:
    def made(size: int) -> bytes:
        return start + unit * (size // len(unit))

    assert_linear(lambda value: ascii_value(name, value), made, 3_900, Unencodable)


@pytest.mark.parametrize("name", ["to", "subject", "content-type"])
def test_a_field_beyond_what_any_program_writes_is_not_put_into_ascii(name: str) -> None:
    fits = b'\xc3\xa9; name="\xc3\xa9"'.ljust(MAX_FIELD_BYTES)
    if name != "content-type":
        assert ascii_value(name, fits).isascii()
    with pytest.raises(Unencodable):
        ascii_value(name, fits + b" ")


@pytest.mark.parametrize("domain", ["a.", "é.", ".", "xn--a.", "İ."])
def test_no_key_belongs_to_a_domain_that_cannot_be(domain: str) -> None:
    signer = Signer((), {})

    def select(value: bytes) -> None:
        assert signer.select(value.decode()) is None

    assert_linear(select, lambda size: (domain * (size // len(domain))).encode(), 20_000)
    assert ascii_domain(domain * 300 + "com") == ""


def test_a_domain_beyond_253_octets_is_none() -> None:
    longest = ".".join(["a" * 61] * 4) + ".com.a"
    assert len(longest) == 253
    assert ascii_domain(longest) == ascii_domain(longest.upper() + ".") == longest
    assert addresses_in(f"<x@{longest}>") == [f"x@{longest}"]
    assert provider(f"x@{longest}") == longest
    assert ascii_domain(longest + "b") == ""
    assert addresses_in(f"<x@{longest}b>, y@example.com") == ["y@example.com"]
    assert provider(f"x@{longest}b") == ""


@pytest.mark.parametrize("unit", [b"a@b,", b"<a@b>,", b"(", b"()", b'"', b"[", b":", b"\\", b"<"])
def test_the_authors_of_a_hostile_from_are_found_in_linear_time(unit: bytes) -> None:
    def authors(value: bytes) -> None:
        assert len(from_addresses(parse(b"From: " + value + b"\r\n\r\n"))) <= MAX_AUTHORS

    assert_bounded(authors, lambda size: unit * (size // len(unit)), 60_000)


def test_at_most_a_hundred_authors_are_found() -> None:
    value = b", ".join(b"a%d@example.com" % number for number in range(400))
    for head in (b"From: " + value, b"\r\n".join(b"From: " + one for one in value.split(b", "))):
        found = from_addresses(parse(head + b"\r\n\r\n"))
        assert found == tuple(f"a{number}@example.com" for number in range(MAX_AUTHORS))


def test_a_name_of_too_many_signs_poses_as_no_author() -> None:
    name = b'"admin@victim.example, ' + b'\\"' * 2_500 + b'"'
    assert from_addresses(parse(b"From: " + name + b" <a@example.com>\r\n\r\n")) == ()


@pytest.mark.parametrize("unit", [b"=?utf-8?q?a?=", b"=?utf-7?q?a?= =?hz?q?b?= ", b"=?utf-8?b?NDgy?= "])
def test_the_encoded_words_of_a_subject_are_bounded(unit: bytes) -> None:
    message = [parse(b"Subject: " + unit * (size // len(unit)) + b"\r\n\r\n") for size in (40_000, 160_000)]
    assert_bounded(lambda one: subject(message[len(one) > 40_000]), lambda size: b"x" * size, 40_000)


@pytest.mark.parametrize("unit", ["code ", "12 ", "A1 ", "code: kqzvtb ", "é", "\u2460"])
def test_the_redacted_text_is_bounded(unit: str) -> None:
    assert_bounded(lambda text: redact(text.decode()), lambda size: (unit * (size // len(unit))).encode(), 20_000)


def headers(size: int) -> bytes:
    return b"Subject: " + b"x1234 " * (size // 6) + b"\r\n" + b"X: a z\r\n" * (size // 8) + b"\r\n"


def test_the_headers_in_a_report_are_bounded() -> None:
    assert_bounded(lambda content: returned_headers(parse(content)), headers, 20_000)
    assert len(returned_headers(parse(headers(60_000)))) <= MAX_HEADERS_BYTES


@pytest.mark.parametrize(("name", "unit"), [("Comments", "code 1234 "), ("Keywords", "é"), ("X-Topic", "words ")])
def test_the_texts_that_a_report_redacts_are_bounded(name: str, unit: str) -> None:
    line = f"{name}: {unit * 30}\r\n".encode()
    assert_bounded(lambda head: returned_headers(parse(head)), lambda size: line * (size // len(line)), 32_000)


def test_a_reply_of_many_words_parses_the_content_once() -> None:
    content = b"Subject: 482931\r\n\r\n" + b"z 9 " * 15_000

    def reply(words: bytes) -> None:
        redact_reply("550 " + words.decode(), content)

    assert_bounded(reply, lambda size: b" ".join(b"%d" % word for word in range(10_000, 10_000 + size // 6)), 2_000)
    many = " ".join(f"{word}x" for word in range(100, 200))
    assert redact_reply(f"550 482931 {many} tail", content) == f"550 {MASK} {' '.join(many.split()[:19])} {MASK}"


BODIES = [b"a  b\t ", b" ", b"\n", b"\r\n", b"\r", b".\r\n", b"--b\r\n", b"=\r\n", b"\xc3\xa9", b"x\xff y\r\n"]


@pytest.mark.parametrize("unit", BODIES)
def test_line_ends_are_normalised_in_linear_time(unit: bytes) -> None:
    assert_linear(
        lambda content: normalise(content), lambda size: b"a: b\r\n\r\n" + unit * (size // len(unit)), 600_000
    )


HEADS = [
    b"Content-Type: text/plain\r\n",
    b"Content-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n",
    b"Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n",
    b"Content-Type: multipart/mixed; boundary=b\r\n",
    b"Content-Type: multipart/mixed; boundary=-\r\n",
    b'Content-Type: multipart/mixed; boundary="-- "\r\n',
]
PARTS = [
    b"--b\r\n", b"--b\r\n\r\n\xc3\xa9\r\n", b"--b ", b"\r\n--b x", b"-", b"\xff" * 2_000, b"=", b"A=\r\n",
    b"\xc3\xa9 \r\n",
]  # fmt: skip


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("unit", PARTS)
@pytest.mark.parametrize("form", ["7bit", "as it is"])
def test_a_content_is_re_encoded_and_read_in_linear_time(head: bytes, unit: bytes, form: Form) -> None:
    def made(size: int) -> bytes:
        return head + b"\r\n--b\r\n" + unit * (size // len(unit)) + b"\r\n\xff\r\n"

    assert_linear(lambda content: recoded(content, form), made, 100_000, Unencodable)
    assert_linear(lambda content: list(leaves(parse(content))), made, 100_000)


def test_a_message_of_too_many_parts_is_left_alone() -> None:
    def made(parts: int) -> bytes:
        return HEADS[3] + b"\r\n" + b"--b\r\n\r\n\xc3\xa9\r\n" * parts + b"--b--\r\n"

    assert recoded(made(MAX_PARTS - 1), "7bit").isascii()
    with pytest.raises(Unencodable):
        recoded(made(MAX_PARTS), "7bit")


@pytest.mark.parametrize("line", [b"\xc3\xa9 = 1 \t", b"x=", b"\xff", b"a " * 40 + b"\r\n"])
@pytest.mark.parametrize("encoding", [b"8bit", b"quoted-printable", b"base64"])
def test_a_large_body_encoded_in_pieces_decodes_to_itself(line: bytes, encoding: bytes) -> None:
    body = line * (3 * SLICE_BYTES // len(line)) + b"\r\n"
    encoded = {
        b"8bit": lambda: body,
        b"quoted-printable": lambda: binascii.b2a_qp(body, istext=False).replace(b"\n", b"\r\n"),
        b"base64": lambda: binascii.b2a_base64(body, newline=False) + b"\r\n",
    }[encoding]()
    head = b"MIME-Version: 1.0\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: " + encoding + b"\r\n\r\n"
    made = recoded(head + encoded, "7bit")
    assert made.isascii()
    theirs = [message_from_bytes(one).get_payload(decode=True) for one in (head + encoded, made)]
    assert theirs[0] == theirs[1]


def test_a_kept_text_is_cut() -> None:
    assert len(redact("word " * 1_000)) <= MAX_TEXT
