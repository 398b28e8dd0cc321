"""The copy of a code's mail for an archive: its addresses, its date, and its text without what can be a code.

It is written anew from a few header fields and the first text part, since a code can stand in any other place, too: in
a display name, a link, a second part, an image. Pure.
"""

from __future__ import annotations

import re

from relay.mail.address_list import addresses_in
from relay.mail.body import encoded_text
from relay.mail.codes.masking import MASK, hide_codes
from relay.mail.header_text import encoded, without_folds
from relay.mail.message import Field, Message, subject
from relay.mail.plain_text import plain_text
from relay.mail.redact import redact

MOST_LOOKED_AT_BYTES = 65_536
"""a larger message is copied without its text"""
MOST_TEXT_CHARS = 8_192
_CUT = 40
"""characters before such a cut that are dropped, too: they may begin a code"""
_ADDRESSES = {"from": b"From", "sender": b"Sender", "reply-to": b"Reply-To", "to": b"To", "cc": b"Cc"}
_KEPT = frozenset({"date", "message-id"})
_LINK = re.compile(r"(\w+://[^\s/?#@<>\"']+)[^\s<>\"']*")
_ONE_WORD = re.compile(r"^([^\w\n]*)\w+([^\w\n]*)$", re.MULTILINE)
_NOTE = "[A copy by otp-relay. Codes are masked; attachments and other parts are left out.]"
_NOTE_WITHOUT_TEXT = "[A copy by otp-relay. Its content is left out, since it may hold codes.]"


def masked(message: Message, *, is_whole: bool) -> bytes:
    """A copy of the message with CRLF line ends. `is_whole`: its body is there, not only its head."""
    text = None
    if is_whole and len(message.content) <= MOST_LOOKED_AT_BYTES:
        text = plain_text(message, MOST_TEXT_CHARS + _CUT)
    body = _NOTE_WITHOUT_TEXT if text is None else f"{_NOTE}\n\n{_without_codes(text)}"
    text_part = encoded_text(body, lambda: None)
    fields = [_field(message, field) for field in message.fields]
    fields += [
        b"Subject: " + encoded(redact(subject(message))) + b"\r\n",
        b"MIME-Version: 1.0\r\n",
        b"Content-Type: text/plain; charset=utf-8\r\n",
        b"Content-Transfer-Encoding: " + text_part.encoding.encode() + b"\r\n",
    ]
    return b"".join([*fields, b"\r\n", text_part.content])


def _field(message: Message, field: Field) -> bytes:
    """The field as it was, or its addresses without names; empty where it isn't copied."""
    if field.name in _KEPT:
        return message.content[field.start : field.end]
    name = _ADDRESSES.get(field.name)
    if name is None:
        return b""
    addresses = addresses_in(without_folds(field.value))
    return name + b": " + ",\r\n ".join(addresses).encode("utf-8", "replace") + b"\r\n" if addresses else b""


def _without_codes(text: str) -> str:
    """Without codes, the paths of links, and words that stand alone on a line."""
    lines = "\n".join(text.splitlines())
    # Codes first: one may reach over several lines, each of them a part of HTML.
    shown = _ONE_WORD.sub(rf"\1{MASK}\2", hide_codes(_LINK.sub(r"\1/…", lines)))
    return shown if len(text) <= MOST_TEXT_CHARS else shown[:-_CUT].rstrip() + "…"
