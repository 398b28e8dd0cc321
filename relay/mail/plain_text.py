"""The text of a message, as its reader sees it."""

from __future__ import annotations

from relay.mail.codes.visible import visible_text
from relay.mail.message import Message
from relay.mail.mime import leaves


def plain_text(message: Message, most_chars: int) -> str | None:
    """The first text part, of HTML what is visible; not more than about `most_chars` of it. None: it has no text."""
    part = next((one for one in leaves(message) if one.kind in ("text/plain", "text/html")), None)
    if part is None:
        return None
    text = part.text[:most_chars]
    return visible_text(text) if part.kind == "text/html" else text
