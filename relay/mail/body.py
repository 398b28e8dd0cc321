"""Encode bodies for MIME (RFC 2045 6), piece by piece: the interpreter's lock is never held for long. Pure."""

from __future__ import annotations

import binascii
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from relay.mail.recode import in_lines

AT_ONCE = 32_768
"""bytes that are encoded in one go"""
_WHOLE_LINES = 500 * 57
"""bytes that fill 500 lines of base64"""
_LONGEST_PLAIN = 78
"""RFC 5322 2.1.1"""
_LONGEST_QUOTED = 76
"""RFC 2045 6.7 (5), with the `=` at its end"""

Encoding = Literal["7bit", "quoted-printable", "base64"]


class Encoded(NamedTuple):
    """A body with CRLF line ends, also at its end, and how it is encoded."""

    encoding: Encoding
    content: bytes


def encoded_text(text: str, pause: Callable[[], None]) -> Encoded:
    """A text in UTF-8: as it is where it is ASCII with short lines, else in the shorter encoding. `pause` is called
    every now and then."""
    data = _unix_lines(text.encode(), pause)
    if not data.endswith(b"\n"):
        data += b"\n"
    plain, high = True, 0
    for piece in _lines(data):
        plain = plain and piece.isascii() and all(len(line) <= _LONGEST_PLAIN for line in piece.split(b"\n"))
        high += 0 if piece.isascii() else len(piece.translate(None, _ASCII))
        pause()
    if plain:
        return Encoded("7bit", _crlf_lines(data, pause))
    # A byte takes three characters in quoted-printable, and 4/3 in base64.
    if high * 6 > len(data):
        return encoded_bytes(_crlf_lines(data, pause), pause)
    pieces = []
    for piece in _lines(data):
        quoted = binascii.b2a_qp(piece, istext=True)
        if not piece.endswith(b"\n"):
            quoted = _softly_ended(quoted)
        pieces.append(quoted.replace(b"\n", b"\r\n"))
        pause()
    return Encoded("quoted-printable", b"".join(pieces))


def encoded_bytes(data: bytes, pause: Callable[[], None]) -> Encoded:
    """Any bytes, in base64. `pause` is called every now and then."""
    pieces: list[bytes] = []
    for at in range(0, len(data), _WHOLE_LINES):
        pieces.append(in_lines(binascii.b2a_base64(data[at : at + _WHOLE_LINES], newline=False)))
        pause()
    return Encoded("base64", b"".join(pieces) or b"\r\n")


_ASCII = bytes(range(128))


def _softly_ended(quoted: bytes) -> bytes:
    """Quoted-printable whose last line goes on in what follows."""
    if len(quoted) - quoted.rfind(b"\n") - 1 < _LONGEST_QUOTED:
        return quoted + b"=\n"
    # There is no room for the `=`: the last character goes to a line of its own.
    at = len(quoted) - (3 if quoted[-3:-2] == b"=" else 1)
    return quoted[:at] + b"=\n" + quoted[at:] + b"=\n"


def _unix_lines(data: bytes, pause: Callable[[], None]) -> bytes:
    """With LF line ends. A replacement of millions of them in one go would hold the interpreter's lock."""
    if b"\r" not in data:
        return data
    pieces, at = [], 0
    while at < len(data):
        end = at + AT_ONCE
        if data[end - 1 : end + 1] == b"\r\n":
            end += 1
        pieces.append(data[at:end].replace(b"\r\n", b"\n").replace(b"\r", b"\n"))
        at = end
        pause()
    return b"".join(pieces)


def _crlf_lines(data: bytes, pause: Callable[[], None]) -> bytes:
    """LF line ends made CRLF."""
    pieces = []
    for at in range(0, len(data), AT_ONCE):
        pieces.append(data[at : at + AT_ONCE].replace(b"\n", b"\r\n"))
        pause()
    return b"".join(pieces)


def _lines(data: bytes) -> Iterator[bytes]:
    """Whole lines, AT_ONCE bytes of them or less; a longer line in pieces, never within a character."""
    at = 0
    while at < len(data):
        end = min(at + AT_ONCE, len(data))
        if end < len(data):
            line_end = data.rfind(b"\n", at, end) + 1
            end = line_end or end
            while not line_end and data[end] & 0xC0 == 0x80:
                end -= 1
        yield data[at:end]
        at = end
