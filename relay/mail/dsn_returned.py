"""The part of a delivery status notification that returns the message, or its headers without codes (RFC 3461 4.3)."""

from __future__ import annotations

import binascii
import re

from relay.mail.codes.masking import MASK
from relay.mail.header_text import decoded, encoded
from relay.mail.message import MAX_FIELDS, Message, over_long_line, subject
from relay.mail.recode import recoded
from relay.mail.redact import MAX_TEXT, redact

MAX_RETURNED_BYTES = 100_000
"""a message up to this size is returned whole; of a larger one, the headers"""
MAX_HEADERS_BYTES = 32_768
_MAX_HIDDEN = 50
"""words hidden in the subject that are searched for in all fields; with more of them, no text is returned"""
_MAX_REDACTED = 4_000
"""characters of subjects and the like that are redacted; later ones aren't returned"""

_IS_TEXT = re.compile(r"subject|topic|comments|keywords|preheader|preview|description")
_IS_SECRET = re.compile(r"otp|code|(?:^|-)pin(?:$|-)|token|passw|secret")
_WORD = re.compile(r"[^\W_]{4,}")
_BETWEEN_DIGITS = re.compile(r"(?<=\d)[\W_]+(?=\d)")
# If the subject holds a year, the search for it would also match dates and ids in these fields. They hold no code, so
# they are returned unchanged.
_HARMLESS = frozenset({"date", "received", "message-id", "in-reply-to", "references"})


def returned_part(message: Message, *, is_full: bool, utf8: bool) -> bytes:
    """The MIME part with the whole message, where `is_full` and it can be sent so, else with its headers."""
    content = message.content
    if is_full and len(content) <= MAX_RETURNED_BYTES and _fits_in_lines(content):
        kind = b"message/global" if utf8 else b"message/rfc822"
        eight_bit = b"" if content.isascii() else b"Content-Transfer-Encoding: 8bit\r\n"
        return b"Content-Type: " + kind + b"\r\n" + eight_bit + b"\r\n" + content
    headers = returned_headers(message)
    kind = b"message/global-headers" if utf8 and not headers.isascii() else b"text/rfc822-headers"
    encoding = b"" if headers.isascii() else b"8bit"
    # A server that refused the message for a long line would refuse the report with that line, too.
    if over_long_line(headers) or not (headers.isascii() or utf8):
        encoding, headers = b"quoted-printable", quoted_printable(headers)
    declared = b"Content-Transfer-Encoding: " + encoding + b"\r\n" if encoding else b""
    return b"Content-Type: " + kind + b"\r\n" + declared + b"\r\n" + headers


def _fits_in_lines(content: bytes) -> bool:
    """Whether every line is short enough for SMTP, once long lines of bodies are re-encoded for sending."""
    return not over_long_line(recoded(content, "as it is"))


def quoted_printable(data: bytes) -> bytes:
    """RFC 2045 6.7, with CRLF line ends whatever `data` has."""
    return binascii.b2a_qp(data.replace(b"\r\n", b"\n"), istext=True).replace(b"\n", b"\r\n")


def returned_headers(message: Message) -> bytes:
    """The header section up to MAX_HEADERS_BYTES, whole fields only. Subjects and the like are redacted. A field is
    hidden where its name means a secret, or where it repeats what is hidden in the subject."""
    without_codes = _Hiding(subject(message)).without_codes
    kept: list[bytes] = []
    size = 0
    for field in message.fields[:MAX_FIELDS]:
        if not field.name:
            continue
        raw = message.content[field.start : field.end]
        if len(raw) > MAX_HEADERS_BYTES:
            break
        text = decoded(field.value)
        safe = without_codes(field.name, text)
        if safe != text:
            raw = raw.partition(b":")[0] + b": " + encoded(safe.replace(MASK, "******")) + b"\r\n"
        size += len(raw)
        if size > MAX_HEADERS_BYTES:
            break
        kept.append(raw)
    return b"".join(kept)


class _Hiding:
    """Hides codes in fields, by what is hidden in the subject."""

    def __init__(self, subject: str) -> None:
        # Only the first MAX_TEXT characters are searched for codes.
        self._hidden = _hidden_words(subject) if len(subject) <= MAX_TEXT else None
        self._left = _MAX_REDACTED

    def without_codes(self, name: str, text: str) -> str:
        if name in _HARMLESS:
            return text
        if _IS_SECRET.search(name):
            return MASK
        if _IS_TEXT.search(name):
            self._left -= min(len(text), MAX_TEXT)
            text = redact(text) if self._left >= 0 else MASK
        if self._hidden is None or any(word in text for word in self._hidden):
            return MASK
        return text


def _hidden_words(plain: str) -> frozenset[str] | None:
    """The words that `redact` hides in the subject, `123 456` as `123456` too; None where they are too many."""
    words = {*_WORD.findall(plain), *_WORD.findall(_BETWEEN_DIGITS.sub("", plain))}
    hidden = words.difference(_WORD.findall(redact(plain)))
    return frozenset(hidden) if len(hidden) <= _MAX_HIDDEN else None
