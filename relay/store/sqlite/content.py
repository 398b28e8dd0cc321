"""Reading contents: of a batch of claimed messages, or of one that moves to another file."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from functools import partial
from io import BytesIO
from typing import Protocol

from relay.store.base import StoreError, Unreadable
from relay.store.codec import Codec
from relay.store.sqlite.reader import Reader
from relay.store.sqlite.rows import BodyRange


class Stored(Protocol):
    """A message whose content lies in the file."""

    @property
    def id(self) -> str: ...

    @property
    def body(self) -> BodyRange: ...

    @property
    def size_bytes(self) -> int: ...


def read_all(reader: Reader, messages: Sequence[Stored], codec: Codec) -> list[bytes | StoreError]:
    """Each message's content, or why it can't be read: Unreadable, StoreDamaged, or a StoreError that may pass. The
    contents of one part are read in one query."""
    small = [one for one in messages if one.body.parts == 1]
    try:
        stored = reader.ask(partial(read_together, ids=[one.body.first for one in small])) if len(small) > 1 else {}
    except StoreError:
        stored = {}  # each by itself then: the disk may fail in one place only
    found: list[bytes | StoreError] = []
    for one in messages:
        try:
            if (content := stored.pop(one.body.first, None)) is None:
                found.append(read(reader, one, codec))
            else:
                found.append(_checked(_decoded(content, one, 0, codec), one))
        except StoreError as error:
            found.append(error)
    return found


def read(reader: Reader, message: Stored, codec: Codec) -> bytes:
    """A message's content. Raises StoreError, Unreadable."""
    return _checked(reader.ask(partial(_whole, message=message, codec=codec)), message)


def read_together(connection: sqlite3.Connection, ids: Sequence[int]) -> dict[int, object]:
    """What is stored under these ids of `body`."""
    rows = connection.execute(
        "SELECT id, content FROM body WHERE id IN (SELECT value FROM json_each(?))", (json.dumps(ids),)
    )
    return dict(rows.fetchall())


def _whole(connection: sqlite3.Connection, message: Stored, codec: Codec) -> bytes:
    first, parts = message.body.first, message.body.parts
    rows = connection.execute(
        "SELECT content FROM body WHERE id BETWEEN ? AND ? ORDER BY id", (first, first + parts - 1)
    )
    whole = BytesIO()  # a large content is in memory once: `getvalue` doesn't copy it
    found = 0
    for part, (stored,) in enumerate(rows):
        whole.write(_decoded(stored, message, part, codec))
        found += 1
    if found != parts:
        raise Unreadable("its content is missing")
    return whole.getvalue()


def _decoded(stored: object, message: Stored, part: int, codec: Codec) -> bytes:
    if not isinstance(stored, bytes):
        raise Unreadable("its content is damaged: it isn't bytes")
    try:
        return codec.decode(stored, f"{message.id}/{part}", message.body.key_id)
    except ValueError as error:
        raise Unreadable(f"its content is {error}") from None


def _checked(content: bytes, message: Stored) -> bytes:
    if len(content) != message.size_bytes:
        raise Unreadable(f"its content is damaged: {len(content)} bytes instead of {message.size_bytes}")
    return content
