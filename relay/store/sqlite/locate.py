"""Find the recipient that an ESP's event is about, in one store file, as functions of a connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from relay.store.addresses import Hashed
from relay.store.sqlite.files import PARTS_SINCE_VERSION, TRACE_SINCE_VERSION, schema_version
from relay.store.sqlite.pseudonymise import stored
from relay.store.sqlite.rows import fold


class Located(NamedTuple):
    """A recipient, with what an event about it needs."""

    message_id: str
    position: int
    address: str
    """as stored: perhaps a hash"""
    lane: str
    provider: str
    accepted_at: float
    upstream: str | None
    reply: str | None
    sent_at: float | None
    header_id: str
    """the Message-ID"""
    entry: str
    """the id by which the app knows the message, which may be a part of a split one"""
    trace: str | None = None
    """the app's traceparent"""


_COLUMNS = (
    "r.message_id, r.position, r.address, r.lane, r.provider, r.accepted_at, r.upstream, r.reply, r.sent_at,"
    " substr(m.message_id, 1, 1000)"
)
_FROM = "FROM recipient AS r JOIN message AS m ON m.id = r.message_id"


def entry_column(connection: sqlite3.Connection) -> str:
    """The id of the entry of a message `m`; in a file of an older relay its own."""
    return "coalesce(m.part_of, m.id)" if schema_version(connection) >= PARTS_SINCE_VERSION else "m.id"


def _last_columns(connection: sqlite3.Connection) -> str:
    trace = "m.trace" if schema_version(connection) >= TRACE_SINCE_VERSION else "NULL"
    return f"{entry_column(connection)}, {trace}"


def recipients_of(connection: sqlite3.Connection, message_id: str) -> Sequence[Located]:
    """All recipients of a message, in order; none: it isn't in this file."""
    columns = f"{_COLUMNS}, {_last_columns(connection)}"
    rows = connection.execute(f"SELECT {columns} {_FROM} WHERE r.message_id = ? ORDER BY r.position", (message_id,))
    return [Located(*row) for row in rows]


def to_address(
    connection: sqlite3.Connection, address: str, after: float, before: float, limit: int
) -> Sequence[Located]:
    """Up to `limit` recipients of that address whose messages were accepted in that time, the newest first."""
    keys = (fold(address), hash_of(stored(connection), address))
    found: list[Located] = []
    for key in keys:
        if key is None:
            continue
        # One key a query: the index then gives the order, and a lookup costs the same however many messages there are.
        rows = connection.execute(
            f"SELECT {_COLUMNS}, {_last_columns(connection)} {_FROM} WHERE coalesce(r.folded, r.address) = ?"
            " AND r.accepted_at BETWEEN ? AND ? ORDER BY r.accepted_at DESC LIMIT ?",
            (key, after, before, limit),
        )
        found += (Located(*row) for row in rows)
    return sorted(found, key=lambda one: one.accepted_at, reverse=True)[:limit]


def with_address(connection: sqlite3.Connection, among: Sequence[Located], address: str) -> Located | None:
    """The first of these recipients that has the address. It may be stored as a hash."""
    folded, hashed = fold(address), hash_of(stored(connection), address)
    return next((one for one in among if one.address == hashed or fold(one.address) == folded), None)


def was_asked(connection: sqlite3.Connection, one: Located, upstream: str) -> bool:
    """Can this upstream have had the recipient? It has an attempt, or what attempts there were is yet to be written."""
    found = connection.execute(
        "SELECT 1 FROM recipient AS r WHERE r.message_id = ?1 AND r.position = ?2 AND (r.open = 1 OR EXISTS"
        " (SELECT 1 FROM attempt AS a WHERE a.message_id = ?1 AND a.position = ?2 AND a.upstream = ?3))",
        (one.message_id, one.position, upstream),
    )
    return found.fetchone() is not None


def hash_of(hashed: Hashed | None, address: str) -> str | None:
    return None if hashed is None else hashed.address(address)
