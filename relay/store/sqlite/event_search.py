"""The relay's own events by recipient, kind, lane and time, in one store file, as functions of a connection."""

# ruff: noqa: S608 - what is put together here are texts of this module; every value is a parameter

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from relay.store.events import EventSelection, MailEvent, relay_event
from relay.store.sqlite.locate import entry_column
from relay.store.sqlite.pseudonymise import stored
from relay.store.sqlite.relay_events import TailRow, has_events, last
from relay.store.sqlite.rows import SHOWN_CHARS, fold

_OUT_OF_ORDER_S = 600.0
"""rows are in order of their writing; a time in one may be earlier by this"""
MOVED_LOOKED_AT = 5_000
"""events of a file among which those of messages are looked for that have moved to another file"""
MOST_MESSAGES = 10_000
"""of one address that are looked at"""


class Shown(NamedTuple):
    """An event, with what its message says of it."""

    event: MailEvent
    recipient: str
    lane: str
    accepted_at: float
    header_id: str
    """the Message-ID"""
    entry: str
    """see `Located`"""


def search(connection: sqlite3.Connection, selection: EventSelection) -> Sequence[Shown]:
    """The events selected, oldest first: the first ones where the selection has a begin, else the newest."""
    if not has_events(connection):
        return []
    terms, order = ["TRUE"], "ASC" if selection.since is not None else "DESC"
    values: dict[str, object] = selection._asdict()
    if selection.to is not None:
        hashed = stored(connection)
        terms.append("coalesce(r.folded, r.address) IN (:folded, :hash)")
        values |= {"folded": fold(selection.to), "hash": hashed.address(selection.to) if hashed is not None else None}
    if selection.kind is not None:
        terms.append("e.kind = :kind")
    if selection.lane is not None:
        terms.append("r.lane = :lane")
    if selection.since is not None:
        terms.append("e.at >= :since")
    if selection.to is None:
        terms.append("e.seq >= :first")
        values["first"] = _first(connection, selection.since)
    rows = connection.execute(
        "SELECT e.message_id, r.position, e.at, e.kind, e.upstream, e.reason, r.address, r.lane, r.accepted_at,"
        f" coalesce(substr(m.message_id, 1, {SHOWN_CHARS}), ''), coalesce({entry_column(connection)}, e.message_id)"
        " FROM event AS e JOIN recipient AS r ON r.message_id = e.message_id"
        " AND (e.position IS NULL OR e.position = r.position) LEFT JOIN message AS m ON m.id = e.message_id"
        f" WHERE {' AND '.join(terms)} ORDER BY e.seq {order} LIMIT :limit",
        values,
    )
    found = [
        Shown(relay_event(message_id, position, at, kind, upstream, reason), *shown)
        for message_id, position, at, kind, upstream, reason, *shown in rows
    ]
    return found if selection.since is not None else found[::-1]


def moved(connection: sqlite3.Connection, selection: EventSelection) -> Sequence[TailRow]:
    """The events selected of messages that are in another file now, in the order in which they were written. That file
    has their recipients, so `to` and `lane` are for the caller. Looked at are the first MOVED_LOOKED_AT events since
    the selection's begin; without one the newest."""
    if not has_events(connection):
        return []
    since = selection.since
    first = last(connection) - MOVED_LOOKED_AT if since is None else _first(connection, since)
    rows = connection.execute(
        "SELECT seq, message_id, position, at, kind, upstream, reason FROM event"
        " WHERE seq BETWEEN :first AND :first + :count AND (:kind IS NULL OR kind = :kind)"
        " AND (:since IS NULL OR at >= :since)"
        " AND NOT EXISTS (SELECT 1 FROM message WHERE message.id = event.message_id) ORDER BY seq",
        {"first": first, "count": MOVED_LOOKED_AT, "kind": selection.kind, "since": since},
    )
    return [TailRow(*row) for row in rows]


def messages_to(connection: sqlite3.Connection, address: str) -> Sequence[str]:
    """The ids of the newest messages to an address."""
    hashed = stored(connection)
    rows = connection.execute(
        "SELECT DISTINCT message_id FROM recipient WHERE coalesce(folded, address) IN (?, ?)"
        " ORDER BY accepted_at DESC LIMIT ?",
        (fold(address), hashed.address(address) if hashed is not None else None, MOST_MESSAGES),
    )
    return [message_id for (message_id,) in rows]


def _first(connection: sqlite3.Connection, since: float | None) -> int:
    """A number from which on the events of that time are found: by bisection, since no index by time is kept."""
    low, high = connection.execute("SELECT coalesce(min(seq), 0), coalesce(max(seq), 0) FROM event").fetchone()
    if since is None:
        return int(low)
    while low < high:
        middle = (low + high) // 2
        found = connection.execute("SELECT seq, at FROM event WHERE seq >= ? LIMIT 1", (middle,)).fetchone()
        if found[1] >= since - _OUT_OF_ORDER_S:
            high = middle
        else:
            low = found[0] + 1
    return int(low)
