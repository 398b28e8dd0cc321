"""What a reader sees of a message: its subject and the lines of its text, in a form that can be searched."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from relay.mail.codes.shapes import searchable
from relay.mail.codes.visible import visible_text
from relay.mail.message import Message, parse, subject
from relay.mail.mime import leaves

READ_BYTES = 65_536
"""of a message that are looked at"""
CONTEXT_CHARS = 400
"""of a text that count for the mail as a whole. A code that stands further down is looked for if none is in here"""
_MOST_LINES = 1_000
"""of a part; no text of READ_BYTES that people read has more"""
_MOST_LINE_CHARS = 600
"""A longer line counts as several."""

# `1 2 3 4`, also with a TAB or a line end between: each character has a cell or a box of its own. What stands before
# it is looked at last, since a pattern that begins with a set of characters is searched for faster.
_SPACED = re.compile(r"[A-Z0-9](?<![^\s*_].)(?:\s{1,9}[A-Z0-9]){3,9}(?![^\s*_.])")
# A link ends before a letter of a script without blanks: the sentence goes on there.
_REST = r"[^\s<>\"'\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3000-\u9fff\uac00-\ud7ff]+"
_LINKS = tuple((mark, re.compile(re.escape(mark) + _REST)) for mark in ("://", "@", "www."))


class Text(NamedTuple):
    """The beginning of a text part: its lines, without blank ones, and the number of its links. Of a link its scheme is
    left, of an address what stands before its `@`."""

    lines: list[str]
    links: int
    rest: str = ""
    """what follows, as it came"""

    def rest_lines(self) -> list[str]:
        return text_of_lines(self.rest).lines if self.rest else []


def read(message: Message) -> tuple[str, Iterator[Text]]:
    """The subject, and each text part among the first READ_BYTES, as it is asked for; an empty one where there is
    none."""
    if len(message.content) > READ_BYTES:
        message = parse(message.content[:READ_BYTES])
    return searchable(subject(message)), _texts(message)


def _texts(message: Message) -> Iterator[Text]:
    parts = 0
    for part in leaves(message):
        if part.kind in ("text/plain", "text/html"):
            parts += 1
            yield _beginning(part.text if part.kind == "text/plain" else visible_text(part.text))
    if not parts:
        yield Text([], 0)


def _beginning(text: str) -> Text:
    """The lines of about the first CONTEXT_CHARS."""
    if len(text) <= CONTEXT_CHARS:
        return text_of_lines(text)
    end = text.find("\n", CONTEXT_CHARS)
    if end < 0 or end > 2 * CONTEXT_CHARS:
        end = text.rfind(" ", 0, 2 * CONTEXT_CHARS)
        end = end if end >= 0 else 2 * CONTEXT_CHARS
    return text_of_lines(text[:end])._replace(rest=text[end:])


def text_of_lines(text: str) -> Text:
    """A whole text."""
    text = searchable(text)
    links = text.count("://")
    for mark, pattern in _LINKS:
        if mark in text:
            text = pattern.sub(mark, text)
    text = _SPACED.sub(_on_one_line, text)
    lines = list(islice(filter(None, map(str.strip, text.splitlines())), _MOST_LINES))
    if max(map(len, lines), default=0) > _MOST_LINE_CHARS:
        lines = [piece for line in lines for piece in _pieces(line)]
    return Text(lines, links)


def _pieces(line: str) -> Iterator[str]:
    """A line in pieces of at most _MOST_LINE_CHARS, divided at blanks where there are some."""
    at = 0
    while len(line) - at > _MOST_LINE_CHARS:
        end = line.rfind(" ", at + _MOST_LINE_CHARS // 2, at + _MOST_LINE_CHARS)
        end = end + 1 if end > 0 else at + _MOST_LINE_CHARS
        yield line[at:end]
        at = end
    yield line[at:]


def _on_one_line(found: re.Match[str]) -> str:
    return " ".join(found[0].split())
