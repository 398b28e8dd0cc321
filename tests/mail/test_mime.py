"""MIME parts: how they are found, decoded and bounded."""

from __future__ import annotations

import pytest

from relay.mail.message import parse
from relay.mail.mime import MAX_DEPTH, MAX_PARTS, Part, content_type, leaves


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
