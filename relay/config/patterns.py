"""Compile the patterns of rules: globs, and regular expressions between slashes.

A glob (`*@otp.example.com`) matches the whole value in any case: `*` is any text, `?` any character. A regular
expression (`/regex/`, `/regex/i`) matches anywhere. RE2 runs both in linear time, so no pattern can stall the relay.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

MAX_PATTERN_CHARS = 1000
MAX_PROGRAM = 2000
"""instructions of a compiled pattern; RE2's worst case is this times the length of the text"""
MAX_TEXT_CHARS = 4000
"""of one value; a pattern reads no more (RFC 5322 2.1.1 has lines of 998)"""

Test = Callable[[str], bool]


def matches_no_address(pattern: str) -> bool:
    """Whether a glob has nothing that an `@` could match."""
    return not pattern.startswith("/") and not set(pattern) & set("@*?")


def compiled(pattern: str) -> Test:
    """A pattern as a test. Raises ValueError with the reason and, for a regular expression, the place."""
    if len(pattern) > MAX_PATTERN_CHARS:
        raise ValueError(f"expected a pattern of at most {MAX_PATTERN_CHARS} characters, got {len(pattern)}")
    if pattern.startswith("/"):
        return _regex(pattern)
    return _glob(pattern)


def _regex(pattern: str) -> Test:
    body, slash, flags = pattern[1:].rpartition("/")
    if not slash:
        raise ValueError("a pattern that begins with / is a regular expression and ends with / or /i")
    if flags not in ("", "i"):
        raise ValueError("a regular expression is /.../ or /.../i; nothing else may follow its last slash")
    if not body:
        raise ValueError("expected a regular expression between the slashes, got nothing")
    search = _re2(body, case_sensitive=not flags).search
    return lambda text: search(_bytes(text)) is not None


def _glob(pattern: str) -> Test:
    # Nearly every rule has an address, or everything at a domain, which needs no engine. In ASCII only, where lower()
    # and RE2's case folding agree.
    literal = pattern.lower()
    head, tail = literal.startswith("*"), literal.endswith("*")
    core = literal.strip("*")
    fullmatch = _re2(_translated(pattern), case_sensitive=False).fullmatch
    if not pattern.isascii() or "*" in core or "?" in core:
        return lambda text: fullmatch(_bytes(text)) is not None

    def test(text: str) -> bool:
        if not text.isascii():
            return fullmatch(_bytes(text)) is not None
        text = text[:MAX_TEXT_CHARS].lower()
        if head:
            return core in text if tail else text.endswith(core)
        return text.startswith(core) if tail else text == core

    return test


def _translated(glob: str) -> str:
    re2 = _engine()
    parts = {"*": ".*", "?": "."}
    return "".join(parts.get(char) or re2.escape(char) for char in re.sub(r"\*+", "*", glob))


def _bytes(text: str) -> bytes:
    # A header may decode to lone surrogates, which UTF-8 has no bytes for.
    return text[:MAX_TEXT_CHARS].encode("utf-8", "replace")


def _engine() -> Any:
    """google-re2, which has no types. Imported for the first pattern."""
    import re2

    return re2


@lru_cache(maxsize=1024)
def _re2(source: str, *, case_sensitive: bool) -> Any:
    re2 = _engine()
    options = re2.Options()
    options.log_errors = False  # it would write to stderr by itself
    options.case_sensitive = case_sensitive
    options.dot_nl = True
    try:
        regexp = re2.compile(source, options)
    except re2.error as error:
        raise ValueError(_reason(source, error)) from None
    if regexp.programsize > MAX_PROGRAM:
        raise ValueError(f"the pattern is too complex ({regexp.programsize} steps, at most {MAX_PROGRAM})")
    return regexp


def _reason(source: str, error: Exception) -> str:
    """RE2's error, such as `missing closing ]: [a`, with the place in the pattern. The part behind the colon is quoted
    only where it is short: a pattern may hold a value of the environment."""
    text = error.args[0] if error.args else b""
    text = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
    reason, _, fragment = text.partition(": ")
    at = source.find(fragment) if fragment else -1
    place = f" at character {at + 1}" if at >= 0 and fragment != source else ""
    place += f": {fragment!r}" if place and len(fragment) <= 5 else ""
    if reason == "invalid perl operator" or fragment[1:].isdecimal():
        place += " (RE2 has no lookaround and no backreferences)"
    return f"not a regular expression: {reason}{place}"
