"""Encode raw 8-bit text in header fields as ASCII: encoded words (RFC 2047), parameters (RFC 2231)."""

from __future__ import annotations

import re
from urllib.parse import quote_from_bytes

from relay.mail.header_text import charset_of, encoded_words

_ADDRESSES = frozenset({
    "from", "sender", "reply-to", "to", "cc", "resent-from", "resent-sender", "resent-to", "resent-cc",
    "disposition-notification-to", "list-id",
})  # fmt: skip
_PARAMETERS = frozenset({"content-type", "content-disposition"})
# RFC 2047 5: ids, dates and traces have no encoded words.
_NO_TEXT = frozenset({
    "date", "message-id", "in-reply-to", "references", "received", "return-path", "mime-version", "content-id",
    "content-transfer-encoding", "resent-date", "resent-message-id", "authentication-results", "list-unsubscribe",
    "list-unsubscribe-post", "auto-submitted",
})  # fmt: skip

MAX_FIELD_BYTES = 16_384
"""no program writes a longer field; it is left alone"""

_GAP = re.compile(rb"((?:\r\n)?[ \t]+)")
# An address, a comment, or words; in _TOKEN also a quoted string. A token without its end is still a token, and an
# address ends at the next `<`: nothing is read three times, so the time is linear.
_UNQUOTED = re.compile(
    rb'<[^<>]*+>|\((?P<comment>(?:[^()\\]|\\.)*+)(?P<closed>\))?|[^\s",;:<>()]++(?:[ \t\r\n]++[^\s",;:<>()]++)*+',
    re.DOTALL,
)
_TOKEN = re.compile(rb'"(?P<quoted>(?:[^"\\]|\\.)*+)(?P<unquote>")?|' + _UNQUOTED.pattern, re.DOTALL)
_PARAMETER = re.compile(rb'(?<![\w-])([\w-]{1,60})=(?:"((?:[^"\\]|\\.)*+)"|([^\s;"]++))', re.DOTALL)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)


class Unencodable(Exception):
    """It can't be expressed in ASCII. `reason` quotes nothing of the message."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def ascii_value(name: str, value: bytes) -> bytes:
    """The same value in ASCII. `name` is lower-case. Raises Unencodable, for example for an address beyond ASCII
    and for a value beyond MAX_FIELD_BYTES."""
    if len(value) > MAX_FIELD_BYTES:
        raise Unencodable("8-bit bytes in a header field too large")
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
    quoted = found["quoted"]
    if quoted is None or quoted.isascii():
        return _unquoted_token(found)
    if found["unquote"] is None:
        # A quote that is never closed: read on without it.
        return b'"' + _UNQUOTED.sub(_unquoted_token, quoted)
    return encoded_words(_ESCAPED.sub(rb"\1", quoted))


def _unquoted_token(found: re.Match[bytes]) -> bytes:
    token = found[0]
    if token.isascii():
        return token
    if found["comment"] is not None:
        return b"(" + _text(found["comment"]) + (found["closed"] or b"")
    return token if b"@" in token or token[:1] == b"<" else _text(token)


def _parameter(found: re.Match[bytes]) -> bytes:
    if found[0].isascii():
        return found[0]
    value = _ESCAPED.sub(rb"\1", found[2]) if found[2] is not None else found[3]
    return found[1] + b"*=" + charset_of(value) + b"''" + quote_from_bytes(value, safe="").encode()


def _text(value: bytes) -> bytes:
    """Words with 8-bit bytes become encoded words. Adjacent ones are encoded together, since blanks between two encoded
    words don't count (RFC 2047 6.2)."""
    pieces = _GAP.split(value)
    out: list[bytes] = []
    run: list[bytes] = []
    for at in range(0, len(pieces), 2):
        gap, word = pieces[at - 1] if at else b"", pieces[at]
        if word.isascii():
            out += [encoded_words(b"".join(run)), gap, word] if run else [gap, word]
            run = []
        elif run:
            run += [gap.replace(b"\r\n", b""), word]
        else:
            out.append(gap)
            run = [word]
    return b"".join([*out, encoded_words(b"".join(run))] if run else out)
