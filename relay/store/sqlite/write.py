"""Everything that changes the store, as functions of a transaction (`group.Tx`): each applies whole or raises."""

# ruff: noqa: S608 - what is put together here are conditions of this module; every value is a parameter

from __future__ import annotations

import json
import sqlite3
from collections.abc import Container, Sequence
from typing import Any

from relay.store.addresses import Hashed
from relay.store.base import StoreError
from relay.store.codec import Codec
from relay.store.model import (
    OPEN_STATES,
    SUSPECT_DEATHS,
    Attempt,
    Booking,
    NewMessage,
    OpenRecipient,
    RecipientUpdate,
    Settlement,
)
from relay.store.sqlite.group import Tx
from relay.store.sqlite.pseudonymise import hide
from relay.store.sqlite.rows import (
    DEPARTURE_CHANGES,
    INSERT_MESSAGE,
    INSERT_RECIPIENT,
    PART_BYTES,
    BodyRange,
    Claimed,
    insert_arrivals,
    insert_departures,
    is_unreadable,
    lines,
    message_row,
    read_envelope,
    recipient_rows,
    timings_text,
)


def put_part(tx: Tx, message: NewMessage, body: BodyRange, part: int, codec: Codec) -> None:
    """Write one part of a content whose message is not there yet."""
    if part == 0:
        tx.execute("INSERT INTO loose_body VALUES (?, ?)", (body.first, body.parts))
    _insert_part(tx, message, body, part, codec)


def put(
    tx: Tx, message: NewMessage, body: BodyRange, codec: Codec, *, booking: Booking | None, written: int = 0
) -> None:
    """Write a message, and its content but for the parts `written` before; one of which `is_one` is true, in one
    statement. `booking` None: it isn't claimed."""
    if is_one(message, body):
        put_all(tx, [(message, body, booking)], codec)
        return
    tx.messages += 1
    tx.size_bytes += len(message.content)
    for part in range(written, body.parts):
        _insert_part(tx, message, body, part, codec)
    if written:
        tx.execute("DELETE FROM loose_body WHERE first = ?", (body.first,))
    tx.execute(INSERT_MESSAGE, message_row(message, body))
    tx.executemany(INSERT_RECIPIENT, recipient_rows(message, booking))


def put_all(tx: Tx, arrivals: Sequence[tuple[NewMessage, BodyRange, Booking | None]], codec: Codec) -> None:
    """Write messages of which `is_one` is true, each with its booking where it is claimed, in one statement."""
    parameters: list[Any] = []
    for message, body, booking in arrivals:
        parameters.append(codec.encode(message.content, f"{message.id}/0"))
        parameters += message_row(message, body)
        parameters += recipient_rows(message, booking)[0]
        tx.messages += 1
        tx.size_bytes += len(message.content)
    tx.execute(insert_arrivals(len(arrivals)), parameters)


def is_one(message: NewMessage, body: BodyRange) -> bool:
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


def claim(tx: Tx, lane: str, now: float, messages: int, size_bytes: int, booking: Booking) -> list[Claimed]:
    """Mark what is due as `sending` and book it; a message whose rows can't be read is `held`."""
    claimed: list[Claimed] = []
    while len(claimed) < messages:
        due = tx.execute(_NEXT_DUE, (lane, now)).fetchone()
        if due is None:
            break
        (message_id,) = due
        size = tx.execute("SELECT size FROM message WHERE id = ?", due).fetchone()
        size_bytes -= size[0] if size is not None else 0
        if claimed and size_bytes < 0:
            break
        found = _claim_one(tx, message_id, now, booking)
        if found is not None:
            claimed.append(found)
    if not claimed and (suspect := _next_suspect(tx, lane, now)) is not None:
        found = _claim_one(tx, suspect, now, booking)
        return [] if found is None else [found]
    return claimed


_NEXT_DUE = (
    "SELECT message_id FROM recipient INDEXED BY recipient_open WHERE open = 1 AND lane = ? AND next_at <= ?"
    " ORDER BY next_at LIMIT 1"
)
_STEP_S = "json_extract(:ladder, '$[' || min(step, :last) || ']')"
_IS_SUSPECT = "open = 1 AND deaths >= 2"
"""SUSPECT_DEATHS, as the index has it"""
# What is due of a message: by its time, or as a suspect.
_IS_DUE = "(next_at <= :now OR (open = 1 AND state = 'queued' AND next_at IS NULL AND booked_at <= :now))"


def _next_suspect(tx: Tx, lane: str, now: float) -> str | None:
    """The suspect that has waited longest, unless another is in hand."""
    suspects = f"SELECT message_id FROM recipient INDEXED BY recipient_suspect WHERE {_IS_SUSPECT} AND lane = ?"
    if tx.execute(f"{suspects} AND state = 'sending' LIMIT 1", (lane,)).fetchone() is not None:
        return None
    waiting = f"{suspects} AND state = 'queued' AND booked_at <= ? ORDER BY booked_at LIMIT 1"
    found = tx.execute(waiting, (lane, now)).fetchone()
    return None if found is None else str(found[0])


def _claim_one(tx: Tx, message_id: str, now: float, booking: Booking) -> Claimed | None:
    try:
        message = _row(tx.execute("SELECT * FROM message WHERE id = ?", (message_id,)))
        recipients = _rows(tx.execute("SELECT * FROM recipient WHERE message_id = ? ORDER BY position", (message_id,)))
        found = _claimed(message, recipients, now)
    except Exception as error:
        if not is_unreadable(error):
            raise
        put_aside(tx, message_id, now, "its rows can't be read")
        return None
    # The mark of the final dot speaks of the present try only.
    tx.execute(
        "UPDATE recipient SET state = 'sending', next_at = NULL, final_dot = 0, attempts = attempts + 1,"
        f" booked_at = :now + {_STEP_S}, holder = :holder, lease_until = :now + :lease_s"
        f" WHERE message_id = :id AND {_IS_DUE}",
        {
            "now": now,
            "ladder": json.dumps(booking.ladder_s),
            "last": len(booking.ladder_s) - 1,
            "holder": booking.holder,
            "lease_s": booking.lease_s,
            "id": message_id,
        },
    )
    return found


def put_aside(tx: Tx, message_id: str, now: float, why: str, *, in_hand: bool = False) -> bool:
    """Hold what waits of a message that can't be read, and what is `in_hand`, with a note: what stands behind it goes
    on. True: there was something."""
    held = tx.execute(
        "UPDATE recipient SET state = 'held', next_at = NULL, booked_at = NULL, holder = NULL, lease_until = NULL"
        " WHERE message_id = ? AND (state IN ('queued', 'deferred') OR (state = 'sending' AND ?))",
        (message_id, in_hand),
    )
    if not held.rowcount:
        return False
    note(tx, message_id, now, f"held: {why}")
    return True


def _claimed(message: dict[str, Any], recipients: list[dict[str, Any]], now: float) -> Claimed:
    envelope = read_envelope(message, recipients)
    return Claimed(
        id=message["id"],
        lane=message["lane"],
        rule=message["rule"],
        envelope=envelope,
        body=BodyRange(message["body"], message["parts"], message["body_key"]),
        accepted_at=message["accepted_at"],
        expires_at=message["expires_at"],
        due=tuple(
            OpenRecipient(
                row["position"], recipient, row["step"], row["attempts"], delay_notified=bool(row["delay_notified"])
            )
            for row, recipient in zip(recipients, envelope.recipients, strict=True)
            if _is_due(row, now)
        ),
        upstreams=lines(message["upstreams"]),
        supersede_key=message["supersede_key"],
        size_bytes=message["size"],
        suspect=any(row["deaths"] >= SUSPECT_DEATHS for row in recipients if _is_due(row, now)),
    )


def _is_due(row: dict[str, Any], now: float) -> bool:
    """As _IS_DUE."""
    at = row["booked_at"] if row["state"] == "queued" and row["next_at"] is None else row["next_at"]
    return at is not None and at <= now


def mark_final(tx: Tx, message_id: str, positions: Sequence[int]) -> None:
    tx.executemany(
        "UPDATE recipient SET final_dot = 1 WHERE message_id = ? AND position = ?",
        [(message_id, position) for position in positions],
    )


def settle(
    tx: Tx, settlement: Settlement, bodies: Sequence[BodyRange], codec: Codec, hashed: Hashed | None, now: float
) -> None:
    """`bodies`: places for the contents of the bounces. `hashed`: how addresses of finished messages are kept."""
    message_id = settlement.message_id
    attempts = settlement.attempts
    if attempts:
        _each(
            tx,
            "INSERT OR REPLACE INTO attempt VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            _attempt_rows(message_id, attempts),
        )
    made = {attempt.position: attempt.n for attempt in attempts}
    if settlement.updates:
        _each(tx, _UPDATE_RECIPIENT, [_update_row(message_id, u, made.pop(u.position, 0)) for u in settlement.updates])
    if made:
        _each(
            tx,
            "UPDATE recipient SET attempts = max(attempts, ?) WHERE message_id = ? AND position = ?",
            [(n, message_id, position) for position, n in made.items()],
        )
    if settlement.note is not None:
        note(tx, message_id, now, settlement.note)
    for bounce, body in zip(settlement.bounces, bodies, strict=True):
        put(tx, bounce, body, codec, booking=None)
    timings = timings_text(settlement.timings_ms)
    if not finish_if_done(tx, message_id, hashed, timings) and settlement.timings_ms:
        tx.execute("UPDATE message SET timings = json_patch(timings, ?) WHERE id = ?", (timings, message_id))


def is_departure(settlement: Settlement, hashed: Hashed | None) -> bool:
    """Does it end a message's only recipient with one attempt, and nothing else?"""
    if settlement.only_bytes is None or settlement.only_bytes > PART_BYTES or hashed is not None:
        return False
    if len(settlement.updates) != 1 or len(settlement.attempts) != 1:
        return False
    update, attempt = settlement.updates[0], settlement.attempts[0]
    return (
        update.state not in OPEN_STATES
        and update.position == attempt.position
        and settlement.note is None
        and not settlement.bounces
    )


class NotADeparture(Exception):
    """One of them was not what it seemed: each is to be settled by itself."""


def settle_all(tx: Tx, settlements: Sequence[Settlement]) -> None:
    """Write settlements of which `is_departure` is true in one statement. Raises NotADeparture, having written
    something, where a message is not there or its recipient no longer open."""
    parameters: list[Any] = []
    for settlement in settlements:
        update = settlement.updates[0]
        parameters += _attempt_rows(settlement.message_id, settlement.attempts)[0]
        parameters += (update.state, update.upstream, update.reply, update.sent_at, update.step, update.delay_notified)
        parameters.append(timings_text(settlement.timings_ms))
        tx.messages -= 1
        tx.size_bytes -= settlement.only_bytes or 0
    before = tx.changes
    tx.execute(insert_departures(len(settlements)), parameters)
    if tx.changes - before != DEPARTURE_CHANGES * len(settlements):
        raise NotADeparture


# Without the one that the claim counted, where none was made of it: while all circuits are open, for instance.
_WITHOUT_THIS_CLAIM = (
    "max(attempts - (state = 'sending'), (SELECT coalesce(max(n), 0) FROM attempt"
    " WHERE attempt.message_id = recipient.message_id AND attempt.position = recipient.position))"
)
# An upstream or a reply that isn't named stays: the last word heard is part of the time line.
_UPDATE_RECIPIENT = (
    "UPDATE recipient SET state = ?1, open = ?11, upstream = coalesce(?2, upstream), reply = coalesce(?3, reply),"
    " sent_at = ?4, next_at = CASE WHEN ?1 IN ('queued', 'deferred') THEN coalesce(?5, accepted_at) END, step = ?6,"
    f" delay_notified = ?7, attempts = CASE WHEN ?8 > 0 THEN max(attempts, ?8) ELSE {_WITHOUT_THIS_CLAIM} END,"
    # What was settled did not kill its process.
    " booked_at = NULL, holder = NULL, lease_until = NULL, deaths = 0"
    " WHERE message_id = ?9 AND position = ?10 AND open = 1"
)


def _update_row(message_id: str, update: RecipientUpdate, n: int) -> tuple[Any, ...]:
    return (
        update.state,
        update.upstream,
        update.reply,
        update.sent_at,
        update.next_at,
        update.step,
        update.delay_notified,
        n,
        message_id,
        update.position,
        update.state in OPEN_STATES,
    )


def _attempt_rows(message_id: str, attempts: Sequence[Attempt]) -> list[tuple[Any, ...]]:
    texts: dict[int, str] = {}  # the recipients of one transaction share their timings
    rows = []
    for a in attempts:
        text = texts.get(id(a.timings_ms))
        if text is None:
            text = texts[id(a.timings_ms)] = timings_text(a.timings_ms)
        rows.append((message_id, a.position, a.n, a.upstream, a.started_at, a.session, a.outcome, a.reply, text))
    return rows


# The plus keeps the planner from walking all that is open.
_WHAT_IS_LEFT = (
    "SELECT body, parts, size, EXISTS (SELECT 1 FROM recipient WHERE message_id = message.id AND +open = 1)"
    " FROM message WHERE id = ?"
)


def finish_if_done(tx: Tx, message_id: str, hashed: Hashed | None, timings: str = "{}") -> bool:
    """Let the body go once no recipient is open, and the addresses if they are to be hashed; note `timings` with
    that. Raises StoreError where there is no such message."""
    found = tx.execute(_WHAT_IS_LEFT, (message_id,)).fetchone()
    if found is None:
        raise StoreError(f"no message {message_id} in the store")
    first, parts, size, is_open = found
    if is_open:
        return False
    if hashed is not None:
        hide(tx, message_id, hashed)
    if first is None:
        return False
    tx.execute(
        "UPDATE message SET body = NULL, body_key = NULL, supersede_key = NULL, timings = json_patch(timings, ?)"
        " WHERE id = ?",
        (timings, message_id),
    )
    if parts == 1:
        tx.execute("DELETE FROM body WHERE id = ?", (first,))
    else:
        tx.execute("INSERT INTO loose_body VALUES (?, ?)", (first, parts))
        tx.loose = True
    tx.messages -= 1
    tx.size_bytes -= size
    return True


def wipe(tx: Tx, arriving: Container[int]) -> bool:
    """Delete one part of a body that no message owns, but for those still `arriving`. True: there is more."""
    for first, parts in tx.execute("SELECT first, parts FROM loose_body").fetchall():
        if first in arriving:
            continue
        tx.execute("DELETE FROM body WHERE id = ?", (first + parts - 1,))
        if parts == 1:
            tx.execute("DELETE FROM loose_body WHERE first = ?", (first,))
        else:
            tx.execute("UPDATE loose_body SET parts = parts - 1 WHERE first = ?", (first,))
        return True
    return False


def unclaim(tx: Tx, message_id: str, due_at: float | None = None) -> None:
    """Give back what is in hand of a message; due at once, or when told."""
    tx.execute(_GIVE_BACK.format(due="coalesce(:due_at, accepted_at)", steps=0), {"id": message_id, "due_at": due_at})


def put_off(tx: Tx, message_id: str) -> None:
    """Give back what is in hand of a message, due when its claim booked it."""
    tx.execute(_GIVE_BACK.format(due="booked_at", steps=1), {"id": message_id})


_GIVE_BACK = (
    "UPDATE recipient SET state = 'queued', holder = NULL, lease_until = NULL, step = step + {steps},"
    " next_at = CASE WHEN deaths < 2 THEN {due} END, booked_at = CASE WHEN deaths >= 2 THEN {due} END,"
    f" attempts = {_WITHOUT_THIS_CLAIM} WHERE message_id = :id AND state = 'sending'"
)


def note(tx: Tx, message_id: str, at: float, text: str) -> None:
    tx.execute("INSERT OR IGNORE INTO note VALUES (?, ?, ?)", (message_id, at, text))


def _each(tx: Tx, sql: str, rows: list[tuple[Any, ...]]) -> None:
    if len(rows) == 1:
        tx.execute(sql, rows[0])
    else:
        tx.executemany(sql, rows)


def _rows(cursor: sqlite3.Cursor) -> list[dict[str, Any]]:
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def _row(cursor: sqlite3.Cursor) -> dict[str, Any]:
    return _rows(cursor)[0]
