"""Put the relay's id into a provider's header field, so that its delivery events carry it."""

from __future__ import annotations

import re

from relay.mail.message import Message, parse
from relay.providers.base import Provider
from relay.providers.webhook import Field

FOLD_AT = 78
"""RFC 5322 2.1.1: the length that a line should have at most"""
_FOLDING = re.compile(r"\r?\n(?=[ \t])")


def correlated(content: bytes, provider: Provider, relay_id: str) -> bytes:
    """The content with the id in the provider's field, merged with what the app wrote there. It is left as it is where
    the app's field has no room for it, or can't be read."""
    if provider.correlate is None:
        return content
    message = parse(content)
    if not message.fields:
        return content
    present = [
        Field(field.name, _FOLDING.sub("", field.value.decode("utf-8", "surrogateescape")).strip(" \t"))
        for field in message.fields
    ]
    field = provider.correlate(relay_id, present)
    return content if field is None else _with(message, field)


def _with(message: Message, field: Field) -> bytes:
    """The field in the place of the first of its name, or behind all others."""
    content, line = message.content, _folded(field)
    same = [one for one in message.fields if one.name == field.name.lower()]
    start, end = (same[0].start, same[0].end) if same else (message.head_end, message.head_end)
    return b"".join((content[:start], line, content[end:]))


def _folded(field: Field) -> bytes:
    """Folded at spaces, where a line becomes too long."""
    lines, line = [], f"{field.name}:"
    for piece in field.value.split(" "):
        if len(line) + 1 + len(piece) > FOLD_AT and not line.endswith(":") and piece:
            lines.append(line)
            line = f" {piece}"
        else:
            line += f" {piece}"
    return "\r\n".join([*lines, line]).encode("utf-8", "surrogateescape") + b"\r\n"
