"""Reading contents: of a batch of claimed messages, or of one that moves to another file."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from functools import partial
from io import BytesIO

from relay.store.base import StoreError, Unreadable
from relay.store.codec import Codec
from relay.store.sqlite.reader import Reader
from relay.store.sqlite.rows import StoredContent


def read_all(reader: Reader, contents: Sequence[StoredContent], codec: Codec) -> list[bytes | StoreError]:
    """Each content, or why it can't be read: Unreadable, StoreDamaged, or a StoreError that may pass. Those of one part
    are read in one query."""
    small = [one.body.first for one in contents if one.body.parts == 1]
    try:
        blobs = reader.ask(partial(read_together, ids=small)) if len(small) > 1 else {}
    except StoreError:
        blobs = {}  # the disk may fail in one place only: each is read by itself
    found: list[bytes | StoreError] = []
    for one in contents:
        try:
            if (blob := blobs.pop(one.body.first, None)) is None:
                found.append(read(reader, one, codec))
            else:
                found.append(_checked(_decoded(blob, one, 0, codec), one))
        except StoreError as error:
            found.append(error)
    return found


def read(reader: Reader, stored: StoredContent, codec: Codec) -> bytes:
    """One content. Raises StoreError, Unreadable."""
    return _checked(reader.ask(partial(_joined, stored=stored, codec=codec)), stored)


def read_together(connection: sqlite3.Connection, ids: Sequence[int]) -> dict[int, object]:
    """What is stored under these ids of `body`."""
    among = "id IN (SELECT value FROM json_each(?))"
    return dict(connection.execute(f"SELECT id, content FROM body WHERE {among}", (json.dumps(ids),)).fetchall())  # noqa: S608


def _joined(connection: sqlite3.Connection, stored: StoredContent, codec: Codec) -> bytes:
    first, parts, _, _ = stored.body
    ids = (first, first + parts - 1)
    rows = connection.execute("SELECT content FROM body WHERE id BETWEEN ? AND ? ORDER BY id", ids)
    whole = BytesIO()  # a large content is in memory once: `getvalue` doesn't copy it
    found = 0
    for part, (blob,) in enumerate(rows):
        whole.write(_decoded(blob, stored, part, codec))
        found += 1
    if found != parts:
        raise Unreadable("its content is missing")
    return whole.getvalue()


def _decoded(blob: object, stored: StoredContent, part: int, codec: Codec) -> bytes:
    if not isinstance(blob, bytes):
        raise Unreadable("its content is damaged: it isn't bytes")
    try:
        return codec.open(blob, f"{stored.message_id}/{part}", stored.body.key_id)
    except ValueError as error:
        raise Unreadable(f"its content is {error}") from None


def _checked(content: bytes, stored: StoredContent) -> bytes:
    if len(content) != stored.body.size_bytes:
        raise Unreadable(f"its content is damaged: {len(content)} bytes instead of {stored.body.size_bytes}")
    return content
