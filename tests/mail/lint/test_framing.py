"""Mistakes in line ends, line lengths, encodings and the header section."""

from __future__ import annotations

import pytest

from relay.mail.lint.framing import ONLY_ONCE
from tests.mail.lint.material import CLEAN, HTML, Cases, changed, mail, rules, with_field, with_html, with_subject

DECLARED = "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit"

BAD: Cases = {
    "a NUL": ("nul", changed("Hello,", "Hello\0")),
    "a bare CR in the body": ("bare-cr", changed("Hello,", "Hello\r")),
    "a bare CR in the header section": ("bare-cr", changed("To: ", "To:\r")),
    "one bare LF in the body": ("bare-lf", changed("Hello,", "Hello,\n")),
    "one bare LF in the header section": ("bare-lf", changed("example.net\r\n", "example.net\n")),
    "a line of 999 octets in HTML": ("long-line", with_html(f"\n<!--{'x' * 992}-->\n")),
    "a field of 999 octets": ("long-line", with_field(f"X-Trace: {'x' * 990}")),
    "a line of 999 octets, LF throughout": ("long-line", with_field(f"X-Trace: {'x' * 990}").replace(b"\r\n", b"\n")),
    "a line without a colon": ("header", with_field("no colon")),
    "a field name with a blank within": ("header", with_field("X Trace: 1")),
    "no blank line behind the header section": (
        "header",
        mail(html=None).replace(b"8bit\r\n\r\n", b"8bit\r\n"),
    ),
    "two Dates": ("twice", with_field("Date: Sat, 01 Mar 2025 09:05:07 +0000")),
    "raw 8-bit text in the subject": ("8bit-header", with_subject("Your code for Köln")),
    "raw 8-bit text in another field": ("8bit-header", with_field("X-Place: Köln")),
    "8-bit text without an encoding": ("8bit-encoding", changed(DECLARED, "Content-Type: text/plain; charset=utf-8")),
    "8-bit text declared as 7bit": ("8bit-encoding", changed(DECLARED, DECLARED.replace("8bit", "7bit"))),
    "8-bit text declared as quoted-printable": (
        "8bit-encoding",
        changed(DECLARED, DECLARED.replace("8bit", "quoted-printable")),
    ),
    "8-bit text without a charset": ("8bit-charset", changed(DECLARED, DECLARED.replace("; charset=utf-8", ""))),
    "a multipart without a boundary": ("multipart", changed("; boundary=b", "")),
    "a multipart whose boundary never occurs": ("multipart", changed("boundary=b", "boundary=c")),
    "an unknown charset": ("charset", changed(DECLARED, DECLARED.replace("utf-8", "klingon"))),
    "8-bit text declared as US-ASCII": ("8bit-charset", changed(DECLARED, DECLARED.replace("utf-8", "us-ascii"))),
    "8-bit HTML without a charset": ("8bit-charset", changed("text/html; charset=utf-8", "text/html")),
}
FINE = {
    "a field of 998 octets": with_field(f"X-Trace: {'x' * 989}"),
    "LF throughout": CLEAN.replace(b"\r\n", b"\n"),
    "a long field that is folded": with_field("X-Trace: " + "\r\n ".join(["x" * 900] * 3)),
    "a binary part": changed("Encoding: 8bit", "Encoding: binary"),
    "an encoding in capitals": changed("Encoding: 8bit", "Encoding: 8BIT"),
    "an encoded subject": with_subject("=?utf-8?q?Your_code_for_K=C3=B6ln?="),
    "two of a field that may occur twice": with_field("Received: from a\r\nReceived: from b"),
    "ASCII text without a charset and an encoding": changed(
        DECLARED, "Content-Type: text/plain", mail(html=HTML.replace("Köln", "Bonn"))
    ).replace("Acme, Köln".encode(), b"Acme, Bonn"),
}
TWICE = dict.fromkeys(ONLY_ONCE, b"x@example.com") | {
    "date": b"Sat, 01 Mar 2025 09:05:07 +0000",
    "subject": b"Your Acme sign-in code",
    "from": b"no-reply@example.com",
    "to": b"user@example.net",
    "cc": b"user@example.net",
}


@pytest.mark.parametrize("name", ONLY_ONCE)
def test_a_field_that_may_occur_once_has_one_finding_when_it_occurs_twice(name: str) -> None:
    field = name.encode() + b": " + TWICE[name] + b"\r\n"
    assert rules(field + CLEAN) - {"twice"} == set()
    assert rules(field + field + CLEAN) == {"twice"}
