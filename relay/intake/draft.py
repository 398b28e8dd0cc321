"""A message between routing and the store: its head is known, its content isn't changed yet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from relay.intake.spool import Large
from relay.mail.message import (
    MAX_HEADER_BYTES,
    MAX_LINE_BYTES,
    Message,
    Prepared,
    normalise,
    normalised,
    parse,
    prepare,
)
from relay.store.model import NewMessage


class Draft(NamedTuple):
    """`new` has no content yet; `trace`, `date` and `message_id` are what `mail.message.prepare` adds to it."""

    new: NewMessage
    trace: bytes
    date: bytes
    message_id: str
    others: tuple[NewMessage, ...] = ()
    """of a split message the other parts, without content, too: theirs is the same"""

    def of_others(self) -> Iterator[Draft]:
        """The drafts of the other parts."""
        return (self._replace(new=one, others=()) for one in self.others)

    def others_like(self, message: NewMessage) -> Sequence[NewMessage]:
        """The other parts, completed as this one was."""
        return [one._replace(content=message.content, message_id=message.message_id) for one in self.others]

    def completed(self, message: Message) -> NewMessage:
        """The message with its content as it will be stored. Raises Unacceptable."""
        prepared = self._prepared(message)
        return self.new._replace(content=prepared.content, message_id=prepared.message_id)

    def from_file(self, content: Large) -> tuple[NewMessage, Iterator[bytes]]:
        """`completed` from a content in a spool file: the message without content, and its content in pieces.

        Both read the file: use them on a thread. Both raise Unacceptable, OSError, and SpoolFailed where the file isn't
        what came in.
        """
        pieces = normalised(with_whole_head(content.pieces()))
        begin = next(pieces, b"")
        body_at = begin.find(b"\r\n\r\n") + 4
        if body_at < 4:  # the header section may end further down, or never
            prepared = self._prepared(parse(normalise(content.read()), limited=True))
            return self._without_content(prepared), iter((prepared.content,))
        prepared = self._prepared(parse(begin[:body_at], limited=True))
        return self._without_content(prepared), chain((prepared.content + begin[body_at:],), pieces)

    def most_bytes(self, content: Large) -> int:
        """What `from_file` makes is no larger: every line end may be written anew, and fields are added."""
        return 2 * content.size_bytes + len(self.trace) + 2 * MAX_LINE_BYTES

    def _without_content(self, prepared: Prepared) -> NewMessage:
        return self.new._replace(message_id=prepared.message_id)

    def _prepared(self, message: Message) -> Prepared:
        return prepare(message, trace=self.trace, date=self.date, message_id=self.message_id)


def with_whole_head(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same pieces, the first of them at least as long as a header section may be."""
    begin = bytearray()
    for piece in pieces:
        begin += piece
        if len(begin) > MAX_HEADER_BYTES:
            break
    yield bytes(begin)
    yield from pieces
