"""Writing a new message, as functions of a transaction (`commit.Tx`): each applies whole or raises."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from relay.store.codec import Codec
from relay.store.model import Booking, NewMessage
from relay.store.sqlite.commit import Tx
from relay.store.sqlite.rows import (
    ACCEPTED,
    ADMISSION,
    BODY,
    IDEMPOTENCY,
    LIMITED,
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


def put_part(tx: Tx, message_id: str, first: int, part: int, content: bytes, codec: Codec) -> None:
    """Write one part of a content whose message is not there yet."""
    tx.execute("INSERT OR REPLACE INTO loose_body VALUES (?, ?)", (first, part + 1))
    insert_part(tx, message_id, first, part, content, codec)


def put_after_parts(tx: Tx, arrivals: Sequence[Arrival]) -> None:
    """Write messages once all parts of their contents are there."""
    tx.executemany("DELETE FROM loose_body WHERE first = ?", [(body.first,) for _, body, _ in arrivals])
    _insert_messages(tx, arrivals)


def put(tx: Tx, arrivals: Sequence[Arrival], codec: Codec) -> None:
    """Write messages and their contents."""
    for message, body, _ in arrivals:
        for part, content in enumerate(slices(message.content)):
            insert_part(tx, message.id, body.first, part, content, codec)
    _insert_messages(tx, arrivals)


def put_batch(tx: Tx, arrivals: Sequence[Arrival], codec: Codec) -> None:
    """Write messages of which `is_small` is true, in a statement for each table."""
    insert_rows(
        tx,
        "body",
        BODY,
        [(body.first, codec.seal(message.content, f"{message.id}/0")) for message, body, _ in arrivals],
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
    insert_rows(tx, "event", ACCEPTED, [(message.id, message.accepted_at, "accepted") for message, _, _ in arrivals])
    _insert_policy_rows(tx, [message for message, _, _ in arrivals])
    tx.messages += len(arrivals)
    tx.size_bytes += sum(body.size_bytes for _, body, _ in arrivals)


def _insert_policy_rows(tx: Tx, messages: Sequence[NewMessage]) -> None:
    """What limits count, and what makes a repeated request known."""
    for message in messages:
        if message.withdrawn is not None:
            tx.execute("DELETE FROM admission WHERE seq = ?", (message.withdrawn,))
    admissions = [one.admission for one in messages if one.admission is not None]
    limited = [(one.id, one.accepted_at, "limited", reason) for one in messages for reason in one.limited]
    keys = [(*one.idempotency, one.id, one.accepted_at) for one in messages if one.idempotency is not None]
    if admissions:
        rows = [(one.seq, one.at, array("q", one.keys).tobytes()) for one in admissions]
        insert_rows(tx, "admission", ADMISSION, rows)
    if limited:
        insert_rows(tx, "event", LIMITED, limited)
    if keys:
        insert_rows(tx, "idempotency", IDEMPOTENCY, keys)


def is_small(message: NewMessage, body: BodyRange) -> bool:
    """Is it one row of each table? Such messages are written together, and an express one in place."""
    return body.parts == 1 and len(message.providers) == 1


def insert_part(tx: Tx, message_id: str, first: int, part: int, content: bytes, codec: Codec) -> None:
    """Write one part of a content, sealed."""
    insert_rows(tx, "body", BODY, [(first + part, codec.seal(content, f"{message_id}/{part}"))])


def insert_rows(tx: Tx, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """In one statement if they are few: Python's sqlite3 takes the interpreter's lock again after each."""
    if len(rows) <= _ROWS_AT_ONCE:
        tx.execute(insert(table, columns, len(rows)), list(chain.from_iterable(rows)))
    else:
        tx.executemany(insert(table, columns, 1), rows)


def slices(content: bytes) -> Iterator[bytes]:
    """A content in parts of PART_BYTES, the last one shorter."""
    return (content[at : at + PART_BYTES] for at in range(0, max(1, len(content)), PART_BYTES))


def in_parts(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """`slices` of a content that comes in pieces of any size."""
    part = bytearray()
    for piece in pieces:
        part += piece
        while len(part) >= PART_BYTES:
            yield bytes(part[:PART_BYTES])
            del part[:PART_BYTES]
    if part:
        yield bytes(part)
