"""Writing a new message, as functions of a transaction (`commit.Tx`): each applies whole or raises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from relay.store.codec import Codec
from relay.store.model import Booking, NewMessage
from relay.store.sqlite.commit import Tx
from relay.store.sqlite.rows import (
    INSERT_MESSAGE,
    INSERT_RECIPIENT,
    PART_BYTES,
    BodyRange,
    insert_arrivals,
    message_row,
    recipient_rows,
)


def put_part(tx: Tx, message: NewMessage, body: BodyRange, part: int, codec: Codec) -> None:
    """Write one part of a content whose message is not there yet."""
    if part == 0:
        tx.execute("INSERT INTO loose_body VALUES (?, ?)", (body.first, body.parts))
    _insert_part(tx, message, body, part, codec)


def put(
    tx: Tx, message: NewMessage, body: BodyRange, codec: Codec, *, booking: Booking | None, written: int = 0
) -> None:
    """Write a message, and its content but for the parts `written` before; one of which `is_small` is true, in one
    statement. `booking` None: it isn't claimed."""
    if is_small(message, body):
        put_batch(tx, [(message, body, booking)], codec)
        return
    tx.messages += 1
    tx.size_bytes += len(message.content)
    for part in range(written, body.parts):
        _insert_part(tx, message, body, part, codec)
    if written:
        tx.execute("DELETE FROM loose_body WHERE first = ?", (body.first,))
    tx.execute(INSERT_MESSAGE, message_row(message, body))
    tx.executemany(INSERT_RECIPIENT, recipient_rows(message, booking))


def put_batch(tx: Tx, arrivals: Sequence[tuple[NewMessage, BodyRange, Booking | None]], codec: Codec) -> None:
    """Write messages of which `is_small` is true, each with its booking where it is claimed, in one statement."""
    parameters: list[Any] = []
    for message, body, booking in arrivals:
        parameters.append(codec.encode(message.content, f"{message.id}/0"))
        parameters += message_row(message, body)
        parameters += recipient_rows(message, booking)[0]
        tx.messages += 1
        tx.size_bytes += len(message.content)
    tx.execute(insert_arrivals(len(arrivals)), parameters)


def is_small(message: NewMessage, body: BodyRange) -> bool:
    """Is it one row of each table?"""
    return body.parts == 1 and len(message.providers) == 1


def _insert_part(tx: Tx, message: NewMessage, body: BodyRange, part: int, codec: Codec) -> None:
    content = message.content
    if body.parts > 1:
        content = content[part * PART_BYTES : (part + 1) * PART_BYTES]
    tx.execute(
        "INSERT INTO body (id, content) VALUES (?, ?)",
        (body.first + part, codec.encode(content, f"{message.id}/{part}")),
    )
