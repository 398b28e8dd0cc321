"""The text that a message shows to its reader."""

from __future__ import annotations

import re
from html import unescape

from relay.mail.message import Message
from relay.mail.mime import leaves

_INVISIBLE = re.compile(r"<(?:style|script|head)\b.*?</(?:style|script|head)>|<!--.*?-->", re.DOTALL | re.IGNORECASE)
_TAG = re.compile(r"<[^<>]{0,2000}>")


def plain_text(message: Message, most_chars: int) -> str | None:
    """The first text part, of HTML without its tags; not more than about `most_chars` of it. None: it has no text."""
    part = next((one for one in leaves(message) if one.kind in ("text/plain", "text/html")), None)
    if part is None:
        return None
    text = part.text[:most_chars]
    return unescape(_TAG.sub("\n", _INVISIBLE.sub("", text))) if part.kind == "text/html" else text
