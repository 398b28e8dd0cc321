"""Raw 8-bit text in header fields, as ASCII: encoded words (RFC 2047), and parameters by RFC 2231."""

from __future__ import annotations

import binascii
import re
from urllib.parse import quote_from_bytes

_ADDRESSES = frozenset({
    "from", "sender", "reply-to", "to", "cc", "resent-from", "resent-sender", "resent-to", "resent-cc",
    "disposition-notification-to", "list-id",
})  # fmt: skip
_PARAMETERS = frozenset({"content-type", "content-disposition"})
# RFC 2047 5: neither ids, dates nor traces may have encoded words in them.
_NO_TEXT = frozenset({
    "date", "message-id", "in-reply-to", "references", "received", "return-path", "mime-version", "content-id",
    "content-transfer-encoding", "resent-date", "resent-message-id", "authentication-results", "list-unsubscribe",
    "list-unsubscribe-post", "auto-submitted",
})  # fmt: skip

_GAP = re.compile(rb"((?:\r\n)?[ \t]+)")
# A quoted string, an address, a comment, or words.
_TOKEN = re.compile(
    rb'"(?:[^"\\]|\\.)*"|<[^>]*>|\((?:[^()\\]|\\.)*\)|[^\s",;:<>()]+(?:[ \t\r\n]+[^\s",;:<>()]+)*', re.DOTALL
)
_PARAMETER = re.compile(rb'([\w-]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))')
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_WORD_BYTES = 45
"""60 characters of base64: an encoded word has 75 at most (RFC 2047 2)"""


class Unencodable(Exception):
    """It can't be said in ASCII. `reason` quotes nothing."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def ascii_value(name: str, value: bytes) -> bytes:
    """The same value in ASCII; `name` is lower-case. Raises Unencodable, as for an address that isn't ASCII."""
    if name in _ADDRESSES:
        new = _TOKEN.sub(_mailbox_token, value)
    elif name in _PARAMETERS:
        new = _PARAMETER.sub(_parameter, value)
    elif name in _NO_TEXT or not name or not name.isascii():
        raise Unencodable("8-bit bytes in a field without text")
    else:
        new = _text(value)
    if not new.isascii():
        raise Unencodable("8-bit bytes in a header field that can't have them otherwise")
    return new


def _mailbox_token(found: re.Match[bytes]) -> bytes:
    token = found[0]
    if token.isascii():
        return token
    if token[:1] == b'"':
        return _words(_ESCAPED.sub(rb"\1", token[1:-1]))
    if token[:1] == b"(":
        return b"(" + _text(token[1:-1]) + b")"
    return token if b"@" in token or token[:1] == b"<" else _text(token)


def _parameter(found: re.Match[bytes]) -> bytes:
    if found[0].isascii():
        return found[0]
    value = _ESCAPED.sub(rb"\1", found[2]) if found[2] is not None else found[3]
    return found[1] + b"*=" + _charset(value) + b"''" + quote_from_bytes(value, safe="").encode()


def _text(value: bytes) -> bytes:
    """Words with 8-bit bytes become encoded words; those beside each other together, since the blanks between two
    encoded words don't count (RFC 2047 6.2)."""
    pieces = _GAP.split(value)
    out: list[bytes] = []
    run: list[bytes] = []
    for at in range(0, len(pieces), 2):
        gap, word = pieces[at - 1] if at else b"", pieces[at]
        if word.isascii():
            out += [_words(b"".join(run)), gap, word] if run else [gap, word]
            run = []
        elif run:
            run += [gap.replace(b"\r\n", b""), word]
        else:
            out.append(gap)
            run = [word]
    return b"".join([*out, _words(b"".join(run))] if run else out)


def _words(data: bytes) -> bytes:
    charset, at, words = _charset(data), 0, []
    while at < len(data):
        end = min(at + _WORD_BYTES, len(data))
        while charset == b"utf-8" and end < len(data) and data[end] & 0xC0 == 0x80:
            end -= 1  # RFC 2047 5: a character is never divided
        words.append(b"=?%b?B?%b?=" % (charset, binascii.b2a_base64(data[at:end], newline=False)))
        at = end
    return b"\r\n ".join(words)


def _charset(data: bytes) -> bytes:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return b"unknown-8bit"
    return b"utf-8"
