"""Writing what became of a message, as functions of a transaction (`commit.Tx`): each applies whole or raises."""

# ruff: noqa: S608 - what is put together here are conditions of this module; every value is a parameter

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Container, Sequence
from typing import Any

from relay.store.addresses import Hashed
from relay.store.base import StoreError
from relay.store.codec import Codec
from relay.store.model import (
    OPEN_STATES,
    SUSPECT_DEATHS,
    Attempt,
    Ended,
    Expired,
    LateEnd,
    RecipientUpdate,
    Settlement,
)
from relay.store.sqlite.commit import Tx
from relay.store.sqlite.pseudonymise import hash_addresses
from relay.store.sqlite.put import insert_rows, put
from relay.store.sqlite.rows import ATTEMPT, PART_BYTES, BodyRange, timings_text, values


def mark_final(tx: Tx, message_id: str, positions: Sequence[int]) -> None:
    """See `base.Queue.mark_final`."""
    tx.executemany(
        "UPDATE recipient SET final_dot = 1 WHERE message_id = ? AND position = ?",
        [(message_id, position) for position in positions],
    )


def settle(
    tx: Tx, settlement: Settlement, bodies: Sequence[BodyRange], codec: Codec, hashed: Hashed | None, now: float
) -> None:
    """See `base.Queue.settle`. `bodies`: places for the contents of the bounces. `hashed`: how addresses of finished
    messages are kept."""
    message_id = settlement.message_id
    attempts = settlement.attempts
    if attempts:
        insert_rows(tx, "attempt", ATTEMPT, _attempt_rows(message_id, attempts))
    made = settlement.last_attempts()
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
    if settlement.bounces:
        put(tx, [(bounce, body, None) for bounce, body in zip(settlement.bounces, bodies, strict=True)], codec)
    if tx.execute("SELECT 1 FROM message WHERE id = ?", (message_id,)).fetchone() is None:
        raise StoreError(f"no message {message_id} in the store")
    if settlement.timings_ms:
        timings = timings_text(settlement.timings_ms)
        tx.execute("UPDATE message SET timings = json_patch(timings, ?) WHERE id = ?", (timings, message_id))
    if settlement.went_unsigned:
        tx.execute("UPDATE message SET signed = NULL WHERE id = ?", (message_id,))
    finish_if_done(tx, [message_id], hashed)


def is_simple_finish(settlement: Settlement, hashed: Hashed | None) -> bool:
    """Does it finish a message's only recipient after one attempt, and nothing else? `finish_batch` writes such."""
    if settlement.only_bytes is None or settlement.only_bytes > PART_BYTES or hashed is not None:
        return False
    if len(settlement.updates) != 1 or len(settlement.attempts) != 1:
        return False
    update, attempt = settlement.updates[0], settlement.attempts[0]
    return (
        update.state not in OPEN_STATES
        and update.position == attempt.position
        and settlement.note is None
        and not settlement.went_unsigned
        and not settlement.bounces
    )


class BatchMismatch(Exception):
    """A settlement in the batch is no simple finish after all: each must be written by itself."""


def finish_batch(tx: Tx, settlements: Sequence[Settlement]) -> None:
    """Write settlements of which `is_simple_finish` is true, in a statement for each table. Raises BatchMismatch if a
    message is not there or its recipient no longer open; something may have been written then."""
    attempts: list[Sequence[Any]] = []
    ended: list[Any] = []
    finished: list[Any] = []
    for settlement in settlements:
        update, attempt = settlement.updates[0], settlement.attempts[0]
        attempts += _attempt_rows(settlement.message_id, settlement.attempts)
        ended += (settlement.message_id, update.position, update.state, update.upstream, update.reply, update.sent_at)
        ended += (update.step, update.delay_notified, attempt.n)
        finished += (settlement.message_id, timings_text(settlement.timings_ms))
        tx.messages -= 1
        tx.size_bytes -= settlement.only_bytes or 0
    count = len(settlements)
    insert_rows(tx, "attempt", ATTEMPT, attempts)
    if tx.execute(_END_RECIPIENTS.format(values(count, 9)), ended).rowcount != count:
        raise BatchMismatch
    ids = [settlement.message_id for settlement in settlements]
    tx.execute(f"DELETE FROM body WHERE id IN (SELECT body FROM message WHERE id IN ({', '.join('?' * count)}))", ids)
    if tx.execute(_FINISH_MESSAGES.format(values(count, 2)), finished).rowcount != count:
        raise BatchMismatch


_END_RECIPIENTS = (
    "UPDATE recipient SET state = new.column3, open = 0, upstream = coalesce(new.column4, upstream),"
    " reply = coalesce(new.column5, reply), sent_at = new.column6, next_at = NULL, step = new.column7,"
    " delay_notified = new.column8, attempts = max(attempts, new.column9),"
    " booked_at = NULL, holder = NULL, lease_until = NULL"
    " FROM ({}) AS new WHERE message_id = new.column1 AND position = new.column2 AND +open = 1"
)
_FINISH_MESSAGES = (
    "UPDATE message SET body = NULL, body_key = NULL, supersede_key = NULL,"
    " timings = json_patch(timings, new.column2) FROM ({}) AS new"
    " WHERE id = new.column1 AND body IS NOT NULL AND parts = 1"
)


# The attempt that the claim counted doesn't count if none was made, because all circuits are open, for instance.
_WITHOUT_THIS_CLAIM = (
    "max(attempts - (state = 'sending'), (SELECT coalesce(max(n), 0) FROM attempt"
    " WHERE attempt.message_id = recipient.message_id AND attempt.position = recipient.position))"
)
# An update that names no upstream or no reply keeps the last one, which is part of the time line.
_UPDATE_RECIPIENT = (
    "UPDATE recipient SET state = ?1, open = ?11, upstream = coalesce(?2, upstream), reply = coalesce(?3, reply),"
    " sent_at = ?4, next_at = CASE WHEN ?1 IN ('queued', 'deferred') THEN coalesce(?5, accepted_at) END, step = ?6,"
    f" delay_notified = ?7, attempts = CASE WHEN ?8 > 0 THEN max(attempts, ?8) ELSE {_WITHOUT_THIS_CLAIM} END,"
    # A message that was settled did not crash its process.
    " booked_at = NULL, holder = NULL, lease_until = NULL, deaths = 0,"
    " repeat_at = ?12, repeat_until = ?13, repeat_key = ?14"
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
        *(update.repeat if update.repeat is not None else (None, None, None)),
    )


def _attempt_rows(message_id: str, attempts: Sequence[Attempt]) -> list[tuple[Any, ...]]:
    texts: dict[int, str] = {}  # the recipients of one transaction share their timings
    rows = []
    for a in attempts:
        text = texts.get(id(a.timings_ms))
        if text is None:
            text = texts[id(a.timings_ms)] = timings_text(a.timings_ms)
        via = None if a.via == "smtp" else a.via
        rows.append((message_id, a.position, a.n, a.upstream, a.started_at, a.session, a.outcome, a.reply, text, via))
    return rows


# The plus keeps the planner from walking all that is open.
_DONE = (
    "SELECT id, body, parts, size FROM message WHERE id IN (SELECT value FROM json_each(?))"
    " AND NOT EXISTS (SELECT 1 FROM recipient WHERE message_id = message.id AND +open = 1)"
)


def finish_if_done(tx: Tx, ids: Sequence[str], hashed: Hashed | None) -> None:
    """Delete the contents of those messages that have no open recipient any more, and hash their addresses if that is
    asked."""
    done = tx.execute(_DONE, (json.dumps(ids),)).fetchall()
    if hashed is not None:
        for message_id, *_ in done:
            hash_addresses(tx, message_id, hashed)
    ended = [row for row in done if row[1] is not None]
    if not ended:
        return
    tx.execute(
        "UPDATE message SET body = NULL, body_key = NULL, supersede_key = NULL"
        " WHERE id IN (SELECT value FROM json_each(?))",
        (json.dumps([message_id for message_id, *_ in ended]),),
    )
    small = [first for _, first, parts, _ in ended if parts == 1]
    tx.execute("DELETE FROM body WHERE id IN (SELECT value FROM json_each(?))", (json.dumps(small),))
    large = [(first, parts) for _, first, parts, _ in ended if parts > 1]
    tx.executemany("INSERT INTO loose_body VALUES (?, ?)", large)
    tx.orphaned = tx.orphaned or bool(large)
    tx.messages -= len(ended)
    tx.size_bytes -= sum(size for *_, size in ended)


_EXPIRED = (
    "SELECT one.message_id, one.position FROM (SELECT message_id, position, notify FROM recipient"
    " INDEXED BY recipient_open WHERE open = 1 AND lane = :lane AND next_at <= :now ORDER BY next_at LIMIT :limit)"
    " AS one JOIN message ON message.id = one.message_id"
    # Where NOTIFY isn't given, failures are reported (RFC 3461 4.1).
    " WHERE message.expires_at <= :now AND (message.sender = '' OR one.notify NOT LIKE '%FAILURE%')"
)


def end_expired(tx: Tx, lane: str, now: float, reply: str, limit: int, hashed: Hashed | None) -> list[Expired]:
    """Of the first `limit` recipients that are due: see `base.Queue.end_expired`."""
    found = tx.execute(_EXPIRED, {"lane": lane, "now": now, "limit": limit}).fetchall()
    if not found:
        return []
    tx.executemany(
        "UPDATE recipient SET state = 'expired', open = 0, next_at = NULL, reply = ?, deaths = 0"
        " WHERE message_id = ? AND position = ?",
        [(reply, *one) for one in found],
    )
    counted = Counter(message_id for message_id, _ in found)
    finish_if_done(tx, list(counted), hashed)
    return [Expired(*each) for each in counted.items()]


def delete_orphan(tx: Tx, arriving: Container[int]) -> bool:
    """Delete one part of a content that has no message, except those still `arriving`. True: there may be more.

    The table of such contents is `loose_body`: in the schema since version 1, so its name stays."""
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
    """See `base.Queue.unclaim`."""
    tx.execute(_GIVE_BACK.format(due="coalesce(:due_at, accepted_at)", steps=0), {"id": message_id, "due_at": due_at})


def put_off(tx: Tx, message_id: str) -> None:
    """Give back what is `sending` of a message that can't be read just now; it is due when its claim booked it."""
    tx.execute(_GIVE_BACK.format(due="booked_at", steps=1), {"id": message_id})


_GIVE_BACK = (
    "UPDATE recipient SET state = 'queued', holder = NULL, lease_until = NULL, step = step + {steps},"
    f" next_at = CASE WHEN deaths < {SUSPECT_DEATHS} THEN {{due}} END,"
    f" booked_at = CASE WHEN deaths >= {SUSPECT_DEATHS} THEN {{due}} END,"
    f" attempts = {_WITHOUT_THIS_CLAIM} WHERE message_id = :id AND state = 'sending'"
)


def end_sent(tx: Tx, end: LateEnd) -> Ended:
    """See `base.Outcomes.end_sent`."""
    found = tx.execute(
        "SELECT state, open, upstream FROM recipient WHERE message_id = ? AND position = ?",
        (end.message_id, end.position),
    ).fetchone()
    if found is None:
        return "absent"
    state, is_open, upstream = found
    if is_open:
        return "later"
    if state == "sent" and upstream == end.upstream:
        tx.execute(
            "UPDATE recipient SET state = 'bounced', reply = ? WHERE message_id = ? AND position = ?",
            (end.reply, end.message_id, end.position),
        )
    return "done"


def note(tx: Tx, message_id: str, at: float, text: str) -> None:
    """Add a note to the message's time line."""
    tx.execute("INSERT OR IGNORE INTO note VALUES (?, ?, ?)", (message_id, at, text))


def _each(tx: Tx, sql: str, rows: list[tuple[Any, ...]]) -> None:
    if len(rows) == 1:
        tx.execute(sql, rows[0])
    else:
        tx.executemany(sql, rows)
