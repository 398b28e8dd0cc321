"""A message between its classification and its store: what is known from its head, and what is still to be changed."""

from __future__ import annotations

from io import BytesIO
from typing import NamedTuple

from relay.intake.spool import Large
from relay.mail.message import MAX_HEADER_BYTES, Message, Prepared, Unacceptable, normalise, parse, prepare
from relay.store.model import NewMessage

_CHUNK_BYTES = 262_144


class Draft(NamedTuple):
    """`new` lacks its content; `trace`, `date` and `message_id` are for `mail.message.prepare`."""

    new: NewMessage
    trace: bytes
    date: bytes
    message_id: str

    def completed(self, message: Message) -> NewMessage:
        """With the content as it will be stored. Raises Unacceptable."""
        return self._with(self._prepared(message))

    def from_file(self, content: Large) -> NewMessage:
        """The same from a content that came in by a file; megabytes, so off the loop. Raises Unacceptable, OSError;
        SpoolFull where the file isn't what came in."""
        try:
            copied = self._copied(content)
        except Unacceptable:
            copied = None  # the whole is judged: something else may be wrong with it, which is said first
        return self._with(copied or self._prepared(parse(normalise(content.read()), limited=True)))

    def _copied(self, large: Large) -> Prepared | None:
        """Prepared while it is read, so that it is in memory once. None where that can't be: the head has no end, or
        some line has another than CRLF."""
        whole = BytesIO()
        with large.open() as file:
            begin = file.read(MAX_HEADER_BYTES)
            body_at = begin.find(b"\r\n\r\n") + 4
            top = begin[:body_at]
            if body_at < 4 or normalise(top) != top:
                return None
            head = self._prepared(parse(top, limited=True))
            whole.write(head.content)
            piece = begin[body_at:] or file.read(_CHUNK_BYTES)
            held = b""
            while piece:
                # Never between a CR and its LF.
                piece, held = (held + piece[:-1], b"\r") if piece.endswith(b"\r") else (held + piece, b"")
                if b"\0" in piece or not piece.count(b"\r") == piece.count(b"\n") == piece.count(b"\r\n"):
                    return None
                whole.write(piece)
                piece = file.read(_CHUNK_BYTES)
        content = whole.getvalue()
        return Prepared(content, head.message_id) if not held and content.endswith(b"\r\n") else None

    def _prepared(self, message: Message) -> Prepared:
        return prepare(message, trace=self.trace, date=self.date, message_id=self.message_id)

    def _with(self, prepared: Prepared) -> NewMessage:
        return self.new._replace(content=prepared.content, message_id=prepared.message_id)
