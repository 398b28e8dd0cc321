"""Lint finds each mistake in a message that has it, and in no other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.mail.lint import lint
from relay.mail.message import Unacceptable, parse
from relay.mail.mime import MAX_DEPTH, MAX_PARTS, Part, content_type, leaves
from tests.mail.material import any_content

GOOD = (
    b"From: Acme <no-reply@auth.example.com>\r\n"
    b"To: user@example.net\r\n"
    b"Subject: Sign in to Acme\r\n"
    b"Date: Sat, 01 Mar 2025 09:05:07 +0000\r\n"
    b"Message-ID: <1@auth.example.com>\r\n"
    b"Auto-Submitted: auto-generated\r\n"
    b"MIME-Version: 1.0\r\n"
    b'Content-Type: multipart/alternative; boundary="b"\r\n'
    b"\r\n"
    b"--b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    b"Code: 123456 (g\xc3\xbcltig), https://www.example.com/x\r\n"
    b"--b\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
    b'<html xmlns=3D"http://www.w3.org/1999/xhtml"><a href=3D"https://example.com/y">123456</a>\r\n'
    b"--b--\r\n"
)


def rules(content: bytes) -> set[str]:
    return {finding.rule for finding in lint(content)}


def test_a_good_message_has_no_finding() -> None:
    assert lint(GOOD) == ()


def test_a_unix_file_with_bare_lf_throughout_is_no_finding() -> None:
    assert lint(GOOD.replace(b"\r\n", b"\n")) == ()


FINDINGS = [
    ("date", b"Date: Sat, 01 Mar 2025 09:05:07 +0000\r\n", b""),
    ("message-id", b"Message-ID: <1@auth.example.com>\r\n", b""),
    ("from", b"From: Acme <no-reply@auth.example.com>\r\n", b""),
    ("from", b"<no-reply@auth.example.com>", b""),
    ("auto-submitted", b"Auto-Submitted: auto-generated\r\n", b""),
    ("subject", b"Subject: Sign in to Acme\r\n", b""),
    ("twice", b"Date:", b"Date: x\r\nDate:"),
    ("header", b"Date:", b"no colon\r\nDate:"),
    ("8bit-header", b"Sign in", b"Anmelden f\xc3\xbcr"),
    ("code-in-subject", b"Sign in to Acme", b"Your code 123456"),
    ("no-text", b"text/plain", b"text/calendar"),
    ("empty-text", b"Code: 123456 (g\xc3\xbcltig), https://www.example.com/x", b" "),
    ("8bit-charset", b"text/plain; charset=utf-8", b"text/plain"),
    ("8bit-encoding", b"Content-Transfer-Encoding: 8bit\r\n", b""),
    ("long-line", b"Code: 123456", b"x" * 999),
    ("bare-cr", b"Code: ", b"Code:\r"),
    ("bare-lf", b"Code: ", b"Code:\n"),
    ("nul", b"Code: ", b"Code:\0"),
    ("clipped", b"<html ", b"<html>" + b"<br>\r\n" * 18_000 + b"<x "),
    ("foreign-link", b"https://www.example.com/x", b"https://acme.click.example.org/x"),
    ("foreign-link", b"https://example.com/y", b"https://user@evil-example.com/y"),
]


@pytest.mark.parametrize(("rule", "old", "new"), FINDINGS)
def test_each_mistake_has_its_one_finding(rule: str, old: bytes, new: bytes) -> None:
    assert old in GOOD
    assert rules(GOOD.replace(old, new)) == {rule}


@pytest.mark.parametrize(
    ("sender", "link", "foreign"),
    [
        (b"auth.example.com", b"example.com", False),
        (b"example.com", b"deep.below.example.com", False),
        (b"example.co.uk", b"www.example.co.uk", False),
        (b"example.co.uk", b"other.co.uk", True),
        (b"example.com", b"example.com.evil.example", True),
        (b"example.com", b"notexample.com", True),
    ],
)
def test_links_are_compared_by_registered_domain(sender: bytes, link: bytes, foreign: bool) -> None:
    content = b"From: a@" + sender + b"\r\n\r\nhttps://" + link + b"/\r\n"
    assert ("foreign-link" in rules(content)) is foreign


def test_no_finding_shows_a_code() -> None:
    content = GOOD.replace(b"Sign in to Acme", b"Your code 777888")
    assert lint(content)
    assert not any("777888" in finding.text or "123456" in finding.text for finding in lint(content))


@given(st.one_of(any_content, st.binary(max_size=200)))
def test_nothing_breaks_lint(content: bytes) -> None:
    lint(content)


def parts(content: bytes) -> list[Part]:
    return list(leaves(parse(content)))


def test_parts_are_found_and_decoded() -> None:
    content = (
        b"Content-Type: multipart/mixed; boundary=outer\r\n\r\npreamble\r\n"
        b'--outer\r\nContent-Type: Multipart/Alternative;\r\n boundary="in ner"\r\n\r\n'
        b"--in ner\r\n\r\nfirst\r\n--in ner  \r\nContent-Type: text/html; charset=ISO-8859-1\r\n"
        b"Content-Transfer-Encoding: BASE64\r\n\r\n5Pb8\r\n--in ner--\r\n"
        b"--outer\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=C3=A4\r\n--outerX\r\n--outer--\r\nepilogue\r\n"
    )
    found = parts(content)
    assert [(part.kind, part.text) for part in found] == [
        ("text/plain", "first"),
        ("text/html", "äöü"),
        ("text/plain", "ä\r\n--outerX"),
    ]


def test_endless_nesting_and_number_are_cut_off() -> None:
    deep = b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (level, level) for level in range(1200)
    )
    assert len(parts(deep)) == 1
    assert parts(deep)[0].kind == "multipart/mixed"
    assert deep.count(b"--") > MAX_DEPTH
    wide = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\nx\r\n" * 1000
    assert len(parts(wide)) == MAX_PARTS


@pytest.mark.parametrize(
    ("value", "kind", "parameters"),
    [
        ("text/plain", "text/plain", {}),
        (" TEXT/Html ; Charset=UTF-8", "text/html", {"charset": "UTF-8"}),
        ('a/b; x="1;2"; y=3', "a/b", {"x": "1;2", "y": "3"}),
        ('a/b; x="open', "a/b", {"x": "open"}),
        ("nonsense", "text/plain", {}),
        ("", "text/plain", {}),
    ],
)
def test_a_content_type_is_read_leniently(value: str, kind: str, parameters: dict[str, str]) -> None:
    assert content_type(parse(f"Content-Type: {value}\r\n\r\n".encode())) == (kind, parameters)


def test_an_endless_header_section_is_refused_by_lint_too() -> None:
    with pytest.raises(Unacceptable):
        lint(b"a:\r\n" * 100_000)
