"""A message's headers as a report may return them: all of them, but no code among them."""

from __future__ import annotations

import re

from relay.mail.message import Message, subject
from relay.mail.redact import MASK, redact
from relay.mail.words import decoded, encoded

MAX_HEADERS_BYTES = 32_768

_IS_TEXT = re.compile(r"subject|topic|comments|keywords|preheader|preview|description")
_IS_SECRET = re.compile(r"otp|code|(?:^|-)pin(?:$|-)|token|passw|secret")
_WORD = re.compile(r"[^\W_]{4,}")
_BETWEEN_DIGITS = re.compile(r"(?<=\d)[\W_]+(?=\d)")
# Full of digits of their own, which a year in the subject would hide.
_HARMLESS = frozenset({"date", "received", "message-id", "in-reply-to", "references"})


def returned_headers(message: Message) -> bytes:
    """The header section up to MAX_HEADERS_BYTES, whole fields only. Subjects and the like are redacted, and so is any
    field that is named after a secret or repeats what was hidden in the subject."""
    hidden = _hidden_words(subject(message))
    kept: list[bytes] = []
    size = 0
    for field in message.fields:
        text = decoded(field.value)
        repeats = field.name not in _HARMLESS and any(word in text for word in hidden)
        if not field.name or repeats or _IS_SECRET.search(field.name):
            raw = _masked(field.name, text)
        elif _IS_TEXT.search(field.name) and redact(text) != text:
            raw = _masked(field.name, text)
        else:
            raw = message.content[field.start : field.end]
        size += len(raw)
        if size > MAX_HEADERS_BYTES:
            break
        kept.append(raw)
    return b"".join(kept)


def _hidden_words(plain: str) -> list[str]:
    """What `redact` took out of the subject, `123 456` as `123456` too."""
    shown = set(_WORD.findall(redact(plain)))
    return [word for word in _WORD.findall(plain) + _WORD.findall(_BETWEEN_DIGITS.sub("", plain)) if word not in shown]


def _masked(name: str, plain: str) -> bytes:
    """The field with its text redacted, or hidden as a whole where its name says what it is."""
    if not name:
        return b""
    text = redact(plain) if _IS_TEXT.search(name) else MASK
    title = "-".join(part.capitalize() for part in name.split("-"))
    return title.encode("latin-1") + b": " + encoded(text.replace(MASK, "******")) + b"\r\n"
