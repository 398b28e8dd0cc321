"""A log line: an event and its values, as logfmt (`event=sent id=01J total_ms=41.2`) or as a JSON object. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

MAX_VALUE = 200
"""characters of one value"""
MAX_TEXT = 2_000
"""characters of a library's message, and of a `LongText`"""

MAX_TRACEBACK = 20_000
"""characters of a `Traceback`"""

_BARE = re.compile(r"[!#-<>-\[\]-~]+")
"""printable ASCII without blank, quote, = and backslash: needs no quotes"""


class LongText(str):
    """A value that is cut at MAX_TEXT instead of MAX_VALUE: a configuration error names file, key and cause."""


class Traceback(str):
    """A value that is cut at MAX_TRACEBACK."""


class LogLine:
    """What a line says. As a text it is logfmt. Texts are bounded and on one line; None is left out."""

    __slots__ = ("event", "values")

    def __init__(self, event: str, values: Mapping[str, object]) -> None:
        self.event = event
        self.values = values

    def __str__(self) -> str:
        parts = [f"event={self.event}"]
        for key, value in self.values.items():
            if value is not None:
                parts.append(f"{key}={quoted(value)}")
        return " ".join(parts)

    def fields(self) -> dict[str, object]:
        """The same for a JSON object. Numbers and booleans stay what they are."""
        shown = {key: _plain(value) for key, value in self.values.items() if value is not None}
        return {"event": self.event, **shown}


def logfmt(event: str, **values: object) -> LogLine:
    """A line for a logger."""
    return LogLine(event, values)


def quoted(value: object, max_chars: int = MAX_VALUE) -> str:
    """A value as it stands behind `key=`: cut at `max_chars`, in quotes where it needs them."""
    match value:
        case bool():
            return "true" if value else "false"
        case float():
            return f"{value:.1f}"
        case LongText():
            max_chars = MAX_TEXT
        case Traceback():
            max_chars = MAX_TRACEBACK
    text = str(value)[:max_chars]
    return text if _BARE.fullmatch(text) else json.dumps(text)


def _plain(value: object) -> object:
    """A value in JSON, as precise and as long as in logfmt."""
    match value:
        case bool() | int():
            return value
        case float():
            return round(value, 1)
        case LongText():
            return str(value)[:MAX_TEXT]
        case Traceback():
            return str(value)[:MAX_TRACEBACK]
        case _:
            return str(value)[:MAX_VALUE]
