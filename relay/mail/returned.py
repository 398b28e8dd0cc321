"""A message's headers as a report may return them: all of them, but no code among them."""

from __future__ import annotations

import re

from relay.mail.message import MAX_FIELDS, Message, subject
from relay.mail.redact import MASK, MAX_TEXT, redact
from relay.mail.words import decoded, encoded

MAX_HEADERS_BYTES = 32_768
_MAX_HIDDEN = 50
"""words out of the subject that are looked for in all fields; where there are more, no text is returned"""
_MAX_REDACTED = 4_000
"""characters of subjects and the like that are redacted; those behind them aren't returned"""

_IS_TEXT = re.compile(r"subject|topic|comments|keywords|preheader|preview|description")
_IS_SECRET = re.compile(r"otp|code|(?:^|-)pin(?:$|-)|token|passw|secret")
_WORD = re.compile(r"[^\W_]{4,}")
_BETWEEN_DIGITS = re.compile(r"(?<=\d)[\W_]+(?=\d)")
# Full of digits of their own, which a year in the subject would hide.
_HARMLESS = frozenset({"date", "received", "message-id", "in-reply-to", "references"})


def returned_headers(message: Message) -> bytes:
    """The header section up to MAX_HEADERS_BYTES, whole fields only. Subjects and the like are redacted, and so is any
    field that is named after a secret or repeats what was hidden in the subject."""
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
    """What was hidden in the subject, and what isn't shown of other fields."""

    def __init__(self, subject: str) -> None:
        # What is behind the part that is kept of it isn't looked through for codes.
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
    """What `redact` took out of the subject, `123 456` as `123456` too. None: too many to look for each."""
    words = {*_WORD.findall(plain), *_WORD.findall(_BETWEEN_DIGITS.sub("", plain))}
    hidden = words.difference(_WORD.findall(redact(plain)))
    return frozenset(hidden) if len(hidden) <= _MAX_HIDDEN else None
