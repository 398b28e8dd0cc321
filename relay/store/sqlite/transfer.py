"""`base.Transfer`: messages that move from one store file to another, whole, with their time line."""

# ruff: noqa: S608 - what is put together here are names and conditions of this package; every value is a parameter

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from relay.store.base import Unreadable
from relay.store.codec import Codec
from relay.store.model import TransferredMessage
from relay.store.sqlite import content
from relay.store.sqlite.claim import hold_unreadable
from relay.store.sqlite.commit import Tx
from relay.store.sqlite.put import insert_part, slices
from relay.store.sqlite.rows import BodyRange, StoredContent, is_unreadable, open_lanes
from relay.store.sqlite.state import HEAVY_BYTES, StoreState

_TABLES = ("recipient", "attempt", "note")
_COUNT = "forgotten"
"""in `setting`: see `transfer_count`"""
_SINCE_VERSION = 2  # of the schema: `setting` is there


class SqliteTransfer:
    """`base.Transfer` in one SQLite file."""

    def __init__(self, state: StoreState) -> None:
        self.state = state

    async def messages_for_other_lanes(self, lanes: Sequence[str], *, limit: int, after: str = "") -> Sequence[str]:
        return await self.state.ask(partial(messages_for_other_lanes, lanes=lanes, limit=limit, after=after))

    async def sends_for_other_lanes(self, lanes: Sequence[str]) -> bool:
        return await self.state.ask(partial(sends_for_other_lanes, lanes=lanes))

    async def export_message(self, message_id: str) -> TransferredMessage | None:
        found = await self.state.ask(partial(export_rows, message_id=message_id))
        if found is None:
            return None
        state = self.state
        read = partial(content.read, state.contents, found.stored, state.codec)
        return TransferredMessage(message_id, found.message, found.rows, await state.content_thread.run(read))

    async def import_message(self, moved: TransferredMessage) -> None:
        body = self.state.body_range(moved.content)
        write = partial(import_message, moved=moved, body=body, codec=self.state.codec)
        await self.state.write(write, size_bytes=len(moved.content))

    async def hold_unreadable(self, message_id: str, why: str) -> bool:
        return await self.state.write(partial(hold_unreadable, message_id=message_id, now=self.state.now(), why=why))

    async def delete_transferred(self, message_id: str) -> None:
        await self.state.write(partial(delete_transferred, message_id=message_id), size_bytes=HEAVY_BYTES)


_SENDING = "SELECT 1 FROM recipient AS r WHERE r.message_id = recipient.message_id AND r.state = 'sending'"


def messages_for_other_lanes(
    connection: sqlite3.Connection, lanes: Sequence[str], limit: int, after: str = ""
) -> list[str]:
    """See `base.Transfer`. After a reload a lane may be `sending` a message for a while that it has no more."""
    found = connection.execute(
        "SELECT DISTINCT message_id FROM recipient INDEXED BY recipient_open"
        " WHERE open = 1 AND lane IN (SELECT value FROM json_each(?)) AND message_id > ?"
        f" AND NOT EXISTS ({_SENDING}) ORDER BY message_id LIMIT ?",
        (_others(connection, lanes), after, limit),
    )
    return [str(row[0]) for row in found]


def sends_for_other_lanes(connection: sqlite3.Connection, lanes: Sequence[str]) -> bool:
    """See `base.Transfer`."""
    found = connection.execute(
        "SELECT 1 FROM recipient INDEXED BY recipient_open WHERE open = 1 AND lane IN (SELECT value FROM json_each(?))"
        " AND next_at IS NULL AND state = 'sending' LIMIT 1",
        (_others(connection, lanes),),
    )
    return found.fetchone() is not None


def _others(connection: sqlite3.Connection, lanes: Sequence[str]) -> str:
    return json.dumps([lane for lane in open_lanes(connection.execute) if lane not in lanes])


class Exported(NamedTuple):
    """What another file takes, but for the content."""

    message: Mapping[str, Any]
    rows: Mapping[str, Sequence[Mapping[str, Any]]]
    stored: StoredContent


def export_rows(connection: sqlite3.Connection, message_id: str) -> Exported | None:
    """None: the message isn't here, or has finished. Raises Unreadable."""
    try:
        found = _all(connection.execute("SELECT * FROM message WHERE id = ? AND body IS NOT NULL", (message_id,)))
        if not found:
            return None
        (message,) = found
        rows = {
            table: _all(connection.execute(f"SELECT * FROM {table} WHERE message_id = ?", (message_id,)))
            for table in _TABLES
        }
        body = BodyRange(int(message["body"]), int(message["parts"]), message["body_key"], int(message["size"]))
        return Exported(message, rows, StoredContent(message_id, body))
    except Exception as error:
        if not is_unreadable(error):
            raise
        raise Unreadable("its rows can't be read") from None


def import_message(tx: Tx, moved: TransferredMessage, body: BodyRange, codec: Codec) -> None:
    """Write a message that came from another file. One that is here already stays as it is."""
    if tx.execute("SELECT 1 FROM message WHERE id = ?", (moved.id,)).fetchone() is not None:
        return
    for part, piece in enumerate(slices(moved.content)):
        insert_part(tx, moved.id, body.first, part, piece, codec)
    place = {"body": body.first, "parts": body.parts, "body_key": body.key_id}
    _insert(tx, "message", {**moved.message, **place})
    for table, rows in moved.rows.items():
        for row in rows:
            _insert(tx, table, row)
    tx.messages += 1
    tx.size_bytes += moved.message["size"]


def delete_transferred(tx: Tx, message_id: str) -> None:
    """See `base.Transfer`. A lane here may have claimed it meanwhile: then it stays."""
    sending = tx.execute("SELECT 1 FROM recipient WHERE message_id = ? AND state = 'sending'", (message_id,))
    if sending.fetchone() is not None:
        return
    found = tx.execute("SELECT body, parts, size FROM message WHERE id = ?", (message_id,)).fetchone()
    if found is None:
        return
    first, parts, size = found
    if first is not None:
        tx.execute("DELETE FROM body WHERE id BETWEEN ? AND ?", (first, first + parts - 1))
        tx.messages -= 1
        tx.size_bytes -= size
    for table in _TABLES:
        tx.execute(f"DELETE FROM {table} WHERE message_id = ?", (message_id,))
    tx.execute("DELETE FROM message WHERE id = ?", (message_id,))
    tx.execute("INSERT INTO setting VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET value = value + 1", (_COUNT,))


def transfer_count(connection: sqlite3.Connection) -> int:
    """How many messages moved from this file to others so far: a backup of several files sees by it whether one moved
    meanwhile."""
    if connection.execute("PRAGMA user_version").fetchone()[0] < _SINCE_VERSION:  # as an older relay left it
        return 0
    found = connection.execute("SELECT value FROM setting WHERE name = ?", (_COUNT,)).fetchone()
    return 0 if found is None else int(found[0])


def _insert(tx: Tx, table: str, row: Mapping[str, Any]) -> None:
    # The columns are the schema's own: both files have the same version.
    columns, marks = ", ".join(row), ", ".join("?" for _ in row)
    tx.execute(f"INSERT INTO {table} ({columns}) VALUES ({marks})", tuple(row.values()))


def _all(cursor: sqlite3.Cursor) -> list[dict[str, Any]]:
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]
