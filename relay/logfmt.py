"""The text of a log line: `event=sent id=01J total_ms=41.2` (logfmt). Pure."""

from __future__ import annotations

import json
import re

MAX_VALUE = 200
"""characters of one value"""
MAX_TEXT = 2_000
"""characters of a library's message, and of a `LongText`"""

_BARE = re.compile(r"[!#-<>-\[\]-~]+")
"""printable ASCII without blank, quote, = and backslash: needs no quotes"""


class LongText(str):
    """A value that `logfmt` cuts at MAX_TEXT instead of MAX_VALUE: a configuration error names file, key and cause."""


def logfmt(event: str, **values: object) -> str:
    """`event=sent id=01J total_ms=41.2`. None is left out; texts are bounded and on one line."""
    parts = [f"event={event}"]
    for key, value in values.items():
        if value is not None:
            parts.append(f"{key}={quoted(value)}")
    return " ".join(parts)


def quoted(value: object, max_chars: int = MAX_VALUE) -> str:
    """A value as it stands behind `key=`: cut at `max_chars`, in quotes where it needs them."""
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, LongText):
        max_chars = MAX_TEXT
    text = str(value)[:max_chars]
    return text if _BARE.fullmatch(text) else json.dumps(text)
