"""What a search looks for in messages as text: parts and globs. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

_ESCAPED = str.maketrans({"\\": "\\\\", "%": "\\%", "_": "\\_"})
_GLOBS = str.maketrans({"*": "%", "?": "_"})


class SearchText(NamedTuple):
    """Texts that a message must have, each in its own place. Letters of ASCII are compared without case. A text with
    `*` or `?` is a glob of the whole value, another is a part of it."""

    to: str | None = None
    """of a recipient's address"""
    sender: str | None = None
    """of the envelope sender's address"""
    subject: str | None = None
    message_id: str | None = None
    anywhere: str | None = None
    """of any of these, or the begin of the message's id"""

    @property
    def of_message(self) -> bool:
        """It looks at more than a recipient."""
        return any(text is not None for text in self[1:])


class Found(NamedTuple):
    """Messages of a search, newest first."""

    messages: Sequence[Mapping[str, Any]]
    searched_since: float | None = None
    """The search ran out of time: what was accepted before then wasn't looked at. None: all was."""


def like_pattern(text: str) -> str:
    """The pattern for SQL's `LIKE ... ESCAPE '\\'`."""
    if "*" in text or "?" in text:
        return text.translate(_ESCAPED).translate(_GLOBS)
    return f"%{text.translate(_ESCAPED)}%"


def like_begin(text: str) -> str:
    """The same for the begin of a value."""
    return f"{text.translate(_ESCAPED)}%"
