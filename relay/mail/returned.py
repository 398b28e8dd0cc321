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
        if not field.name:
            continue
        text = decoded(field.value)
        safe = _without_codes(field.name, text, hidden)
        raw = message.content[field.start : field.end]
        if safe != text:
            raw = raw.partition(b":")[0] + b": " + encoded(safe.replace(MASK, "******")) + b"\r\n"
        size += len(raw)
        if size > MAX_HEADERS_BYTES:
            break
        kept.append(raw)
    return b"".join(kept)


def _without_codes(name: str, text: str, hidden: list[str]) -> str:
    if name in _HARMLESS:
        return text
    if _IS_SECRET.search(name):
        return MASK
    if _IS_TEXT.search(name):
        text = redact(text)
    return MASK if any(word in text for word in hidden) else text


def _hidden_words(plain: str) -> list[str]:
    """What `redact` took out of the subject, `123 456` as `123456` too."""
    shown = set(_WORD.findall(redact(plain)))
    return [word for word in _WORD.findall(plain) + _WORD.findall(_BETWEEN_DIGITS.sub("", plain)) if word not in shown]
