"""The synchronous reader of the events file: what ESPs reported. The commands use it, and the relay on a thread."""

# ruff: noqa: S608 - what is put together here are texts of this module; every value is a parameter

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NamedTuple, Self

from relay.store.events import FURTHEST_BACK_S, EventSelection, MailEvent, latest
from relay.store.model import ReportedRow
from relay.store.sqlite import report_rows
from relay.store.sqlite.events_schema import APPLICATION_ID
from relay.store.sqlite.read_connection import ReadConnection

_COLUMNS = "seq, id, message_id, position, at, kind, upstream, permanent, reason, lane, recorded_at"
MOST_ARRIVALS = 5_000
_SHOWN = "kind <> 'other'"


class EspRow(NamedTuple):
    """An event with its number in the file and its lane."""

    seq: int
    lane: str
    event: MailEvent


class EventsReader(ReadConnection):
    """What ESPs reported."""

    @classmethod
    def find(cls, path: Path) -> Self | None:
        """None: there is no events file, or it isn't complete yet."""
        if not path.exists():
            return None
        reader = cls(path)
        is_complete = False
        try:
            is_complete = reader.ask(_is_complete)
        finally:
            if not is_complete:
                reader.close()
        return reader if is_complete else None

    def of_messages(self, ids: Sequence[str]) -> Sequence[EspRow]:
        """The events of these messages, in the order in which they came."""
        return self.ask(partial(_of_messages, ids=ids))

    def since(self, seq: int, limit: int) -> Sequence[EspRow]:
        """Up to `limit` events behind `seq`, in the order in which they came."""
        return self.ask(partial(_since, seq=seq, limit=limit))

    def reported_slices(self, since: float) -> Iterator[Sequence[ReportedRow]]:
        """`base.Log.reported`, a slice at a time, each of its own moment. Rows that are alike may come in several."""
        begin: float | None = since - FURTHEST_BACK_S
        while begin is not None:
            rows, begin = self.ask(partial(report_rows.reported, begin=begin, since=since))
            yield rows

    def last(self) -> int:
        """The newest event's number; 0: there is none."""
        return self.ask(_last)

    def search(self, selection: EventSelection, message_ids: Sequence[str] | None = None) -> Sequence[EspRow]:
        """The events selected, by time: the first ones where the selection has a begin, else the newest. `to` is for
        the caller, which gives the messages that it is about."""
        return self.ask(partial(_search, selection=selection, message_ids=message_ids))


class ArrivalRow(NamedTuple):
    """A first delivered event. `after_s`: from the final dot."""

    lane: str
    upstream: str
    provider: str
    after_s: float
    at: float


def mx_providers(path: Path, limit: int) -> Mapping[str, str]:
    """Domains whose mailbox provider was found by MX: the newest `limit`. Blocks; raises StoreError."""
    reader = EventsReader.find(path)
    if reader is None:
        return {}
    sql = "SELECT domain, provider FROM mx WHERE provider IS NOT NULL ORDER BY until DESC LIMIT ?"
    with closing(reader):
        return reader.ask(lambda connection: dict(connection.execute(sql, (limit,)).fetchall()))


def arrivals(path: Path, since: float, lanes: Sequence[str]) -> Sequence[ArrivalRow]:
    """What was delivered of these lanes since then: the newest some thousands, oldest first. Blocks; raises
    StoreError."""
    reader = EventsReader.find(path)
    if reader is None:
        return []
    with closing(reader):
        return reader.ask(partial(_arrivals, since=since, lanes=lanes))


def _arrivals(connection: sqlite3.Connection, since: float, lanes: Sequence[str]) -> list[ArrivalRow]:
    rows = connection.execute(
        f"SELECT lane, upstream, provider, {report_rows.ESP_AFTER_S}, at FROM event AS e"
        " WHERE at >= ? AND kind = 'delivered' AND lane IN (SELECT value FROM json_each(?))"
        " AND NOT EXISTS (SELECT 1 FROM event AS f WHERE f.message_id = e.message_id AND f.position = e.position"
        " AND f.kind = 'delivered' AND f.seq < e.seq) ORDER BY at DESC LIMIT ?",
        (since, json.dumps(lanes), MOST_ARRIVALS),
    )
    return [ArrivalRow(*row) for row in rows][::-1]


def _is_complete(connection: sqlite3.Connection) -> bool:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return bool(application == APPLICATION_ID and version > 0)


def _rows(found: sqlite3.Cursor) -> list[EspRow]:
    return [
        EspRow(
            seq,
            lane,
            MailEvent(
                event_id,
                message_id,
                position,
                at,
                kind,
                "esp",
                upstream,
                None if permanent is None else bool(permanent),
                reason,
                latest(at, recorded_at),
            ),
        )
        for seq, event_id, message_id, position, at, kind, upstream, permanent, reason, lane, recorded_at in found
    ]


def _of_messages(connection: sqlite3.Connection, ids: Sequence[str]) -> list[EspRow]:
    among = "message_id IN (SELECT value FROM json_each(?))"
    return _rows(
        connection.execute(f"SELECT {_COLUMNS} FROM event WHERE {among} AND {_SHOWN} ORDER BY seq", (json.dumps(ids),))
    )


def _since(connection: sqlite3.Connection, seq: int, limit: int) -> list[EspRow]:
    where = f"seq > ? AND {_SHOWN} ORDER BY seq LIMIT ?"
    return _rows(connection.execute(f"SELECT {_COLUMNS} FROM event WHERE {where}", (seq, limit)))


def _last(connection: sqlite3.Connection) -> int:
    (seq,) = connection.execute("SELECT coalesce(max(seq), 0) FROM event").fetchone()
    return int(seq)


def _search(
    connection: sqlite3.Connection, selection: EventSelection, message_ids: Sequence[str] | None
) -> list[EspRow]:
    terms = [_SHOWN]
    if message_ids is not None:
        terms.append("message_id IN (SELECT value FROM json_each(:ids))")
    if selection.kind is not None:
        terms.append("kind = :kind")
    if selection.lane is not None:
        terms.append("lane = :lane")
    if selection.since is not None:
        terms.append("at >= :since")
    order = "ASC" if selection.since is not None else "DESC"
    values = {**selection._asdict(), "ids": json.dumps(message_ids)}
    return _rows(
        connection.execute(
            f"SELECT {_COLUMNS} FROM event WHERE {' AND '.join(terms)} ORDER BY at {order} LIMIT :limit", values
        )
    )
