"""The relay's own events in one store file, as functions of a connection: those of a message, and those since."""

# ruff: noqa: S608 - what is put together here are texts of this module; every value is a parameter

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from relay.store.events import MailEvent, relay_event

_ROWS = "SELECT seq, message_id, position, at, kind, upstream, reason FROM event"
SINCE_VERSION = 4
"""of the schema: `event` is there"""


class TailRow(NamedTuple):
    """A row of `event`, for what reads all of them in order."""

    seq: int
    message_id: str
    position: int | None
    """None: all recipients"""
    at: float
    kind: str
    upstream: str | None
    reason: str | None

    def event(self, position: int) -> MailEvent:
        """What it says of that recipient."""
        return relay_event(self.message_id, position, self.at, self.kind, self.upstream, self.reason)


def has_events(connection: sqlite3.Connection) -> bool:
    """False: the file is as an older relay left it."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return bool(version >= SINCE_VERSION)


def of_messages(connection: sqlite3.Connection, ids: Sequence[str]) -> list[TailRow]:
    """The events of these messages in this file, in the order in which they were written."""
    if not has_events(connection):
        return []
    found = connection.execute(
        f"{_ROWS} WHERE message_id IN (SELECT value FROM json_each(?)) ORDER BY seq", (json.dumps(ids),)
    )
    return [TailRow(*row) for row in found]


def since(connection: sqlite3.Connection, seq: int, limit: int) -> list[TailRow]:
    """Up to `limit` events behind `seq`, in the order in which they were written."""
    if not has_events(connection):
        return []
    found = connection.execute(f"{_ROWS} WHERE seq > ? ORDER BY seq LIMIT ?", (seq, limit))
    return [TailRow(*row) for row in found]


def last(connection: sqlite3.Connection) -> int:
    """The newest row's seq; 0: there is none."""
    if not has_events(connection):
        return 0
    (seq,) = connection.execute("SELECT coalesce(max(seq), 0) FROM event").fetchone()
    return int(seq)
