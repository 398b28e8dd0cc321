"""A message as the rules of lint see it. What several rules need is found once."""

from __future__ import annotations

from functools import cached_property

from relay.mail.address import domain_of
from relay.mail.codes.detector import Verdict, detect, the_model
from relay.mail.codes.reading import text_of_lines
from relay.mail.codes.shapes import Shape, letter_shape, searchable, shapes
from relay.mail.codes.visible import visible_text
from relay.mail.lint.markup import Markup, markup_of
from relay.mail.message import Message, from_addresses, subject
from relay.mail.mime import Part, leaves

MOST_CHARS = 65_536
"""of a part that are looked at"""


class Mail:
    """Of a message with several text parts of one kind, the first counts."""

    def __init__(self, message: Message) -> None:
        self.message = message
        self.names = [one.name for one in message.fields]
        """of the header fields"""
        self.parts = tuple(leaves(message))
        self.authors = tuple(from_addresses(message))
        self.is_broken = not self.parts or any(one.kind.startswith("multipart/") for one in self.parts)
        """a multipart has no parts that can be found"""
        self.author_domains = [domain_of(address).lower() for address in self.authors]

    @cached_property
    def subject(self) -> str:
        return searchable(subject(self.message)).strip()

    @cached_property
    def verdict(self) -> Verdict:
        return detect(self.message)

    @cached_property
    def plain_lines(self) -> list[str] | None:
        """None: there is no text/plain part."""
        part = self._first("text/plain")
        return None if part is None else text_of_lines(part.text[:MOST_CHARS]).lines

    @cached_property
    def html(self) -> Part | None:
        return self._first("text/html")

    @cached_property
    def _source(self) -> str:
        return "" if self.html is None else self.html.text[:MOST_CHARS]

    @cached_property
    def markup(self) -> Markup:
        return markup_of(self._source)

    @cached_property
    def html_lines(self) -> list[str] | None:
        """None: there is no HTML part."""
        return None if self.html is None else text_of_lines(visible_text(self._source)).lines

    @cached_property
    def lines(self) -> list[str]:
        """The lines that most readers see: of the HTML part, or of the text part where there is none."""
        return (self.plain_lines if self.html_lines is None else self.html_lines) or []

    @cached_property
    def plain_tokens(self) -> list[list[Shape]] | None:
        """What has the shape of a code, by line of the text/plain part."""
        return None if self.plain_lines is None else list(map(tokens_of, self.plain_lines))

    @cached_property
    def html_tokens(self) -> list[list[Shape]] | None:
        """The same of the HTML part."""
        return None if self.html_lines is None else list(map(tokens_of, self.html_lines))

    @cached_property
    def tokens(self) -> list[list[Shape]]:
        """The same of `lines`."""
        return (self.plain_tokens if self.html_tokens is None else self.html_tokens) or []

    @cached_property
    def meanings(self) -> int:
        """What the words of both parts mean, as the lexicon's bits."""
        meanings = 0
        for line in (*(self.plain_lines or ()), *(self.html_lines or ())):
            meanings |= meanings_of(line)
        return meanings

    def _first(self, kind: str) -> Part | None:
        return next((one for one in self.parts if one.kind == kind), None)


def tokens_of(line: str) -> list[Shape]:
    """The tokens that have the shape of a code."""
    letters = letter_shape(line)
    return [*shapes(line), *([letters] if letters is not None else [])]


def meanings_of(line: str) -> int:
    """What the words of a line mean, as the lexicon's bits."""
    meanings = 0
    for hit in the_model().lexicon.hits(line):
        meanings |= hit.meanings
    return meanings
