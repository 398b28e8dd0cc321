"""Queries of one store file, as functions of a connection: what the log and the queue show."""

# ruff: noqa: S608 - what is put together here are conditions of this package; every value is a parameter

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from relay.store.addresses import Hashed
from relay.store.model import OPEN_STATES, SUSPECT_DEATHS, LaneCount, Selection
from relay.store.search_text import SearchText, like_begin, like_pattern
from relay.store.sqlite.files import PARTS_SINCE_VERSION, schema_version
from relay.store.sqlite.pseudonymise import stored
from relay.store.sqlite.rows import fold
from relay.store.sqlite.view import messages
from relay.store.view import Json

_ADDRESS = "coalesce(folded, address)"
_ESCAPE = r"ESCAPE '\'"


def get(connection: sqlite3.Connection, message_id: str) -> Json | None:
    """A message, or a part of a split one."""
    found = messages(connection, [message_id], attempts=True)
    return found[0] if found else None


def parts(connection: sqlite3.Connection, entries: Sequence[str], *, attempts: bool, queue: bool) -> list[Json]:
    """The parts in this file of the split messages whose entries have these ids."""
    return messages(connection, part_ids(connection, entries), attempts=attempts, queue=queue)


def part_ids(connection: sqlite3.Connection, entries: Sequence[str]) -> list[str]:
    """The ids of those parts, in order."""
    if schema_version(connection) < PARTS_SINCE_VERSION:
        return []
    found = connection.execute(
        "SELECT id FROM message WHERE id IN (SELECT value FROM json_each(?1)) AND places IS NOT NULL"
        " UNION SELECT id FROM message WHERE part_of IN (SELECT value FROM json_each(?1)) ORDER BY 1",
        (json.dumps(entries),),
    )
    return [message_id for (message_id,) in found]


def entries(connection: sqlite3.Connection, ids: Sequence[str]) -> list[str]:
    """The entries' ids of the split messages of which these are parts, as far as this file has them."""
    if schema_version(connection) < PARTS_SINCE_VERSION:
        return []
    found = connection.execute(
        "SELECT coalesce(part_of, id) FROM message WHERE id IN (SELECT value FROM json_each(?)) AND places IS NOT NULL",
        (json.dumps(ids),),
    )
    return [entry for (entry,) in found]


def search(connection: sqlite3.Connection, selection: Selection) -> list[Json]:
    sql, values = search_query(selection, stored(connection) if selection.to is not None else None)
    ids = [row[0] for row in connection.execute(sql, values)]
    return messages(connection, ids, attempts=False)


def ids_that_begin(connection: sqlite3.Connection, begin: str, limit: int) -> list[str]:
    """The ids of messages, parts of split ones among them, that begin so."""
    found = connection.execute(
        "SELECT id FROM message WHERE id >= :begin AND id < :begin || '~' ORDER BY id DESC LIMIT :limit",
        {"begin": begin, "limit": limit},
    )
    return [message_id for (message_id,) in found]


def selected(selection: Selection) -> str:
    """The condition of a selection for a row `m` of `message`, but for `since` and `until`."""
    terms = [*_terms(selection, ids="id", lane=True), *_message_texts(selection), "TRUE"]
    if of_recipient := _terms(selection, address="IN (:to, :hash)", state=True):
        terms.append(_some_recipient(of_recipient))
    return " AND ".join(terms)


def selection_values(connection: sqlite3.Connection, selection: Selection) -> dict[str, object]:
    """The values of `selected`."""
    hashed = stored(connection) if selection.to is not None else None
    to = selection.to
    return {**_values(selection), "hash": hashed.address(to) if hashed is not None and to is not None else None}


def search_query(selection: Selection, hashed: Hashed | None = None) -> tuple[str, dict[str, object]]:
    """The ids of the messages selected, newest first. It walks an index in that order, from the recipients where they
    tell more (an address; a state that few are in), else from the messages. `hashed`: an address may be that, too;
    then the messages to one address are sorted."""
    values = _values(selection)
    address = "= :to"
    if selection.to is not None and hashed is not None:
        address, values["hash"] = "IN (:to, :hash)", hashed.address(selection.to)
    of_recipient = _terms(selection, address=address, state=True)
    rare = selection.state is not None and selection.state != "sent"
    if (selection.to is None and not rare) or selection.ids:
        terms = [*_terms(selection, ids="id", time=True, lane=True), "TRUE"]
        if of_recipient:
            terms.append(_some_recipient(of_recipient))
        return (
            f"SELECT id FROM message AS m WHERE {' AND '.join(terms)} ORDER BY accepted_at DESC, id DESC LIMIT :limit",
            values,
        )
    terms = [*of_recipient, *_terms(selection, time=True, lane=True)]
    if selection.to is None:
        terms.append("open = 1" if selection.state in OPEN_STATES else "open = 0 AND state <> 'sent'")
    return (
        f"SELECT DISTINCT message_id, accepted_at FROM recipient WHERE {' AND '.join(terms)}"
        " ORDER BY accepted_at DESC, message_id DESC LIMIT :limit",
        values,
    )


def _some_recipient(terms: Sequence[str]) -> str:
    """Some recipient of the message `m` has all of these."""
    within = " AND ".join(["r.message_id = m.id", *terms])
    return f"EXISTS (SELECT 1 FROM recipient AS r WHERE {within})"


def _message_texts(selection: Selection) -> list[str]:
    """The conditions of its texts for a row `m` of `message`."""
    text = selection.text
    if text is None:
        return []
    terms = [
        f"m.{column} LIKE :text_{column} {_ESCAPE}"
        for column in ("sender", "subject", "message_id")
        if getattr(text, column) is not None
    ]
    if text.anywhere is not None:
        among = [f"m.{column} LIKE :text_anywhere {_ESCAPE}" for column in ("subject", "message_id", "sender")]
        among.append(f"m.id LIKE :text_id {_ESCAPE}")
        among.append(_some_recipient([f"{_ADDRESS} LIKE :text_anywhere {_ESCAPE}"]))
        terms.append(f"({' OR '.join(among)})")
    return terms


def waiting_query(selection: Selection) -> tuple[str, dict[str, object]]:
    """The ids of the open messages selected, earliest due first, those that have no time (held, sending) last."""
    narrow = bool(selection.ids) or selection.to is not None
    open_ones = "+open = 1" if narrow else "open = 1"  # the plus: not by the index of all that is open
    terms = [open_ones, *_terms(selection, ids="message_id", address="= :to", state=True, time=True, lane=True)]
    if selection.text is not None and selection.text.of_message:
        of_message = " AND ".join(["m.id = recipient.message_id", *_message_texts(selection)])
        terms.append(f"EXISTS (SELECT 1 FROM message AS m WHERE {of_message})")
    return (
        f"SELECT message_id, min(coalesce(next_at, 1e18)) AS due FROM recipient"
        f" WHERE {' AND '.join(terms)} GROUP BY message_id ORDER BY due, message_id LIMIT :limit",
        _values(selection),
    )


def _terms(
    selection: Selection,
    *,
    ids: str = "",
    address: str = "",
    state: bool = False,
    time: bool = False,
    lane: bool = False,
) -> list[str]:
    """The conditions of the kinds asked for that the selection has. `ids`: the name of the id's column; `address`:
    what the recipient's is to be."""
    to_text = None if selection.text is None else selection.text.to
    kinds = (
        (bool(ids) and bool(selection.ids), f"{ids} IN (SELECT value FROM json_each(:ids))"),
        (bool(address) and selection.to is not None, f"{_ADDRESS} {address}"),
        (bool(address) and to_text is not None, f"{_ADDRESS} LIKE :text_to {_ESCAPE}"),
        (state and selection.state is not None, "state = :state"),
        (state and bool(selection.states), "state IN (SELECT value FROM json_each(:states))"),
        (time and selection.since is not None, "accepted_at >= :since"),
        (time and selection.until is not None, "accepted_at < :until"),
        (lane and selection.lane is not None, "lane = :lane"),
    )
    return [term for wanted, term in kinds if wanted]


def _values(selection: Selection) -> dict[str, object]:
    text = selection.text or SearchText()
    return {
        **{f"text_{name}": None if value is None else like_pattern(value) for name, value in text._asdict().items()},
        "text_to": None if text.to is None else like_pattern(fold(text.to)),
        "text_id": None if text.anywhere is None else like_begin(text.anywhere),
        "states": json.dumps(sorted(selection.states)),
        "ids": json.dumps(selection.ids),
        "to": None if selection.to is None else fold(selection.to),
        "state": selection.state,
        "since": selection.since,
        "until": selection.until,
        "lane": selection.lane,
        "limit": selection.limit,
    }


def waiting(connection: sqlite3.Connection, selection: Selection) -> list[Json]:
    return messages(connection, waiting_ids(connection, selection, selection.limit), attempts=False, queue=True)


def waiting_ids(connection: sqlite3.Connection, selection: Selection, limit: int) -> list[str]:
    sql, values = waiting_query(selection)
    return [row[0] for row in connection.execute(sql, {**values, "limit": limit})]


def counts(connection: sqlite3.Connection) -> list[LaneCount]:
    rows = connection.execute(
        "SELECT lane, state, count(*), min(accepted_at) FROM recipient INDEXED BY recipient_open"
        " WHERE open = 1 GROUP BY lane, state"
    )
    return [LaneCount(*row) for row in rows]


def size(connection: sqlite3.Connection) -> tuple[int, int]:
    open_messages, size_bytes = connection.execute(
        "SELECT count(*), coalesce(sum(size), 0) FROM message WHERE id IN"
        " (SELECT message_id FROM recipient INDEXED BY recipient_open WHERE open = 1)"
    ).fetchone()
    return open_messages, size_bytes


def next_due(connection: sqlite3.Connection, lane: str) -> float | None:
    due = connection.execute(
        "SELECT next_at FROM recipient INDEXED BY recipient_open WHERE open = 1 AND lane = ? AND next_at IS NOT NULL"
        " ORDER BY next_at LIMIT 1",
        (lane,),
    ).fetchone()
    # The other kind, one at a time: while one is in hand, the next isn't due.
    suspect = connection.execute(
        "SELECT min(booked_at) FROM recipient INDEXED BY recipient_suspect"
        f" WHERE open = 1 AND deaths >= {SUSPECT_DEATHS} AND lane = :lane AND state = 'queued' AND next_at IS NULL"
        " AND NOT EXISTS (SELECT 1 FROM recipient AS r INDEXED BY recipient_suspect"
        f" WHERE r.open = 1 AND r.deaths >= {SUSPECT_DEATHS} AND r.lane = :lane AND r.state = 'sending')",
        {"lane": lane},
    ).fetchone()
    times = [float(row[0]) for row in (due, suspect) if row is not None and row[0] is not None]
    return min(times, default=None)
