"""Read the `traceparent` field, by which an app names its trace (https://www.w3.org/TR/trace-context/)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relay.mail.message import Message

NAME = "traceparent"
MOST_CHARS = 512
"""a longer field isn't read; a later version of the format may append to it"""
# Version ff is invalid, as are ids of zeros only.
_FIELD = re.compile(rb"\s*(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-\S*)?\s*")
_SAMPLED = 1


def traceparent(message: Message) -> str | None:
    """The field in version 00, `00-TRACE-PARENT-FLAGS`. None: there is none, or none that is valid, or several."""
    found: str | None = None
    for field in message.fields:
        if field.name == NAME:
            if found is not None:
                return None
            found = read(field.value)
            if found is None:
                return None
    return found


def read(value: bytes) -> str | None:
    """A field's value in version 00; None: it isn't valid."""
    matched = _FIELD.fullmatch(value) if len(value) <= MOST_CHARS else None
    if matched is None or (matched[1] == b"00" and matched[5] is not None):
        return None
    return b"-".join((b"00", matched[2], matched[3], matched[4])).decode()


def trace_id(parent: str) -> str:
    """The trace id, 32 hexadecimal digits, of what `read` returned."""
    return parent[3:35]


def parent_id(parent: str) -> str:
    """The id of the app's span, 16 hexadecimal digits."""
    return parent[36:52]


def is_sampled(parent: str) -> bool:
    """Whether the app records its trace."""
    return bool(int(parent[53:55], 16) & _SAMPLED)
