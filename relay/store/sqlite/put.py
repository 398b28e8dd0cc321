"""Writing a new message, as functions of a transaction (`commit.Tx`): each applies whole or raises."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

from relay.store.codec import Codec
from relay.store.model import Booking, NewMessage
from relay.store.sqlite.commit import Tx
from relay.store.sqlite.rows import (
    BODY,
    MESSAGE,
    PART_BYTES,
    RECIPIENT,
    BodyRange,
    insert,
    message_row,
    recipient_rows,
)

_ROWS_AT_ONCE = 16
"""a statement for each number of rows is kept prepared"""

Arrival = tuple[NewMessage, BodyRange, Booking | None]
"""a message, the place of its content, and its booking; None: it isn't claimed"""


def put_part(tx: Tx, message: NewMessage, body: BodyRange, part: int, codec: Codec) -> None:
    """Write one part of a content whose message is not there yet."""
    if part == 0:
        tx.execute("INSERT INTO loose_body VALUES (?, ?)", (body.first, body.parts))
    insert_part(tx, message.id, message.content, body, part, codec)


def put(
    tx: Tx, message: NewMessage, body: BodyRange, codec: Codec, *, booking: Booking | None, written: int = 0
) -> None:
    """Write a message, and its content but for the parts `written` before. `booking` None: it isn't claimed."""
    for part in range(written, body.parts):
        insert_part(tx, message.id, message.content, body, part, codec)
    if written:
        tx.execute("DELETE FROM loose_body WHERE first = ?", (body.first,))
    _insert_messages(tx, [(message, body, booking)])


def put_batch(tx: Tx, arrivals: Sequence[Arrival], codec: Codec) -> None:
    """Write messages of which `is_small` is true, in a statement for each table."""
    insert_rows(
        tx,
        "body",
        BODY,
        [(body.first, codec.encode(message.content, f"{message.id}/0")) for message, body, _ in arrivals],
    )
    _insert_messages(tx, arrivals)


def _insert_messages(tx: Tx, arrivals: Sequence[Arrival]) -> None:
    insert_rows(tx, "message", MESSAGE, [message_row(message, body) for message, body, _ in arrivals])
    insert_rows(
        tx,
        "recipient",
        RECIPIENT,
        [row for message, _, booking in arrivals for row in recipient_rows(message, booking)],
    )
    tx.messages += len(arrivals)
    tx.size_bytes += sum(len(message.content) for message, _, _ in arrivals)


def is_small(message: NewMessage, body: BodyRange) -> bool:
    """Is it one row of each table? Such messages are written together, and an express one in place."""
    return body.parts == 1 and len(message.providers) == 1


def insert_part(tx: Tx, message_id: str, content: bytes, body: BodyRange, part: int, codec: Codec) -> None:
    """Write one part of a content."""
    if body.parts > 1:
        content = content[part * PART_BYTES : (part + 1) * PART_BYTES]
    insert_rows(tx, "body", BODY, [(body.first + part, codec.encode(content, f"{message_id}/{part}"))])


def insert_rows(tx: Tx, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """In one statement if they are few: Python's sqlite3 takes the interpreter's lock again after each."""
    if len(rows) <= _ROWS_AT_ONCE:
        tx.execute(insert(table, columns, len(rows)), list(chain.from_iterable(rows)))
    else:
        tx.executemany(insert(table, columns, 1), rows)
