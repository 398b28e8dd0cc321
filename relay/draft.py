"""A message between its classification and its store: what is known from its head, and what is still to be changed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from relay.mail.message import Message, normalise, parse, prepare
from relay.store.base import NewMessage


@dataclass(frozen=True, slots=True)
class Draft:
    """`new` lacks its content; `trace`, `date` and `message_id` are for `mail.message.prepare`."""

    new: NewMessage
    trace: bytes
    date: bytes
    message_id: str

    def completed(self, message: Message) -> NewMessage:
        """With the content as it will be stored. Raises Unacceptable."""
        prepared = prepare(message, trace=self.trace, date=self.date, message_id=self.message_id)
        return self.new._replace(content=prepared.content, message_id=prepared.message_id)

    def from_file(self, path: Path) -> NewMessage:
        """The same from a content that came in by a file; megabytes, so off the loop. Raises Unacceptable, OSError."""
        return self.completed(parse(normalise(path.read_bytes())))
