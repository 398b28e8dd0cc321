"""The outbox for a command, beside a running relay or without one: what waits, what was given up, and another try."""

# ruff: noqa: S608 - what is put together here are texts of this module; every value is a parameter

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from relay.store.sqlite import files
from relay.store.sqlite.commit import Tx
from relay.store.sqlite.events_outbox import backlogs, restart_dead
from relay.store.sqlite.events_reader import EventsReader
from relay.store.sqlite.events_schema import POSITIONS_SINCE, connect_events_writer

_AT_ONCE = 500


class ReceiverRow(NamedTuple):
    """A receiver, and what the outbox has for it. Times are seconds since the epoch."""

    host: str | None
    """None: not known"""
    waiting: int
    dead: int
    oldest_at: float | None
    """of those that wait"""
    failing: int
    """of those that wait, how many have failed at least once"""
    position: int | None
    """in the configuration of the last relay that ran; None: it was removed, or a file of an older relay"""


class DeadPost(NamedTuple):
    """A post that was given up."""

    host: str | None
    event_id: str
    message_id: str
    created_at: float
    dead_at: float
    attempts: int
    result: str | None
    """of the last attempt"""
    body: bytes
    position: int | None
    """of the receiver, as above"""


def receivers(events: Path) -> Sequence[ReceiverRow]:
    """All receivers that have been configured so far. None: there is no events file. Raises StoreError."""
    with _reading(events) as reader:
        return [] if reader is None else reader.ask(_receivers)


def dead_posts(events: Path, limit: int) -> Sequence[DeadPost]:
    """Up to `limit` posts that were given up, the latest first. Raises StoreError."""
    with _reading(events) as reader:
        return [] if reader is None else reader.ask(lambda connection: _dead(connection, limit))


def retry_dead(events: Path) -> int:
    """Let all posts that were given up begin anew; how many. A running relay sees them within 10 s. Raises
    StoreError."""
    with _reading(events) as reader:
        if reader is None or not reader.ask(lambda connection: _dead(connection, 1)):
            return 0
    restarted = 0
    with closing(connect_events_writer(events)) as connection, files.explained(events):
        some = _AT_ONCE
        while some == _AT_ONCE:
            connection.execute("BEGIN IMMEDIATE")
            some = restart_dead(Tx(connection), _AT_ONCE, time.time())
            connection.execute("COMMIT")
            restarted += some
    return restarted


@contextmanager
def _reading(events: Path) -> Iterator[EventsReader | None]:
    reader = EventsReader.find(events)
    if reader is None:
        yield None
        return
    with closing(reader):
        yield reader


def _receivers(connection: sqlite3.Connection) -> list[ReceiverRow]:
    named = connection.execute(
        f"SELECT receiver, host, {_position(connection)} AS place FROM receiver_host"
        " ORDER BY place IS NULL, place, host"
    ).fetchall()
    hosts = {key: (host, position) for key, host, position in named}
    found = backlogs(Tx(connection))
    rows = []
    for key in [*hosts, *(key for key in found if key not in hosts)]:
        waiting, dead = found.get(key, (0, 0))
        (oldest_at,) = connection.execute(
            "SELECT min(created_at) FROM outbox INDEXED BY outbox_age WHERE receiver = ? AND dead_at IS NULL", (key,)
        ).fetchone()
        (failing,) = connection.execute(
            "SELECT count(*) FROM outbox INDEXED BY outbox_due WHERE receiver = ? AND (attempts > 0) = 1"
            " AND due_at IS NOT NULL",
            (key,),
        ).fetchone()
        host, position = hosts.get(key, (None, None))
        rows.append(ReceiverRow(host, waiting, dead, oldest_at, failing, position))
    return rows


def _position(connection: sqlite3.Connection) -> str:
    """The column, or NULL in a file that an older relay left."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return "receiver_host.position" if version >= POSITIONS_SINCE else "NULL"


def _dead(connection: sqlite3.Connection, limit: int) -> list[DeadPost]:
    found = connection.execute(
        "SELECT host, event_id, message_id, created_at, dead_at, attempts, result, body,"
        f" {_position(connection)} FROM outbox"
        " LEFT JOIN receiver_host USING (receiver) WHERE dead_at IS NOT NULL ORDER BY dead_at DESC LIMIT ?",
        (limit,),
    )
    return [DeadPost(*row) for row in found.fetchall()]
