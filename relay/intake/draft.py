"""A message between routing and the store: its head is known, its content isn't changed yet."""

from __future__ import annotations

from io import BytesIO
from typing import NamedTuple

from relay.intake.spool import Large
from relay.mail.message import MAX_HEADER_BYTES, Message, Prepared, Unacceptable, normalise, parse, prepare
from relay.store.model import NewMessage

_CHUNK_BYTES = 262_144


class Draft(NamedTuple):
    """`new` has no content yet; `trace`, `date` and `message_id` are what `mail.message.prepare` adds to it."""

    new: NewMessage
    trace: bytes
    date: bytes
    message_id: str

    def completed(self, message: Message) -> NewMessage:
        """The message with its content as it will be stored. Raises Unacceptable."""
        return self._with(self._prepared(message))

    def from_file(self, content: Large) -> NewMessage:
        """`completed` from a content in a spool file. Reads megabytes: call it on a thread.

        Raises Unacceptable, OSError, and SpoolFull where the file isn't what came in.
        """
        try:
            copied = self._copied(content)
        except Unacceptable:
            copied = None  # the whole content may have a fault that comes before this one
        return self._with(copied or self._prepared(parse(normalise(content.read()), limited=True)))

    def _copied(self, large: Large) -> Prepared | None:
        """The content prepared while it is read, so that memory holds it once.

        None where that isn't possible: the header has no end, or a line doesn't end in CRLF.
        """
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
