"""Claiming what is due, as functions of a transaction: a few statements for a whole batch."""

# ruff: noqa: S608 - what is put together here are conditions of this module; every value is a parameter

from __future__ import annotations

import json
import logging
import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from relay.logfmt import LongText, logfmt
from relay.store.model import SUSPECT_DEATHS, Booking, OpenRecipient, Queued, Repeat
from relay.store.sqlite.commit import Tx
from relay.store.sqlite.rows import BodyRange, StoredContent, is_unreadable, lines, read_envelope
from relay.store.sqlite.settle import note

_LOG = logging.getLogger(__name__)

# The index has them in order, so SQLite stops at the limit, however much is due.
NEXT_DUE = (
    "SELECT DISTINCT message_id FROM recipient INDEXED BY recipient_open"
    " WHERE open = 1 AND lane = ? AND next_at <= ? ORDER BY next_at LIMIT ?"
)
_AMONG = "(SELECT value FROM json_each(:ids))"
_STEP_S = "json_extract(:ladder, '$[' || min(step, :last) || ']')"
# What is due of a message: by its time, or as a suspect.
_IS_DUE = "(next_at <= :now OR (open = 1 AND state = 'queued' AND next_at IS NULL AND booked_at <= :now))"
# The mark of the final dot is about the present try only.
BOOK = (
    "UPDATE recipient SET state = 'sending', next_at = NULL, final_dot = 0, attempts = attempts + 1,"
    f" booked_at = :now + {_STEP_S}, holder = :holder, lease_until = :now + :lease_s"
    f" WHERE message_id IN {_AMONG} AND {_IS_DUE}"
)
_IS_SUSPECT = f"open = 1 AND deaths >= {SUSPECT_DEATHS}"
"""word for word as the index has it"""

Row = dict[str, Any]


class Claimed(NamedTuple):
    """A claimed message whose content is still to be read."""

    message: Queued
    """its content is empty"""
    stored: StoredContent


def claim(tx: Tx, lane: str, now: float, messages: int, size_bytes: int, booking: Booking) -> list[Claimed]:
    """See `base.Queue.claim`. A message whose rows can't be read is `held`."""
    claimed: list[Claimed] = []
    while not claimed:
        ids = [row[0] for row in tx.execute(NEXT_DUE, (lane, now, messages))]
        if not ids and (suspect := _next_suspect(tx, lane, now)) is not None:
            ids = [suspect]
        if not ids:
            break
        # If none of them can be read, all are held, and the next ones are claimed.
        claimed = _readable(tx, _that_fit(tx, ids, size_bytes), now)
    if claimed:
        values = {
            "ids": json.dumps([one.message.id for one in claimed]),
            "now": now,
            "ladder": json.dumps(booking.ladder_s),
            "last": len(booking.ladder_s) - 1,
            "holder": booking.holder,
            "lease_s": booking.lease_s,
        }
        tx.execute(BOOK, values)
    return claimed


def _that_fit(tx: Tx, ids: Sequence[str], size_bytes: int) -> Sequence[str]:
    """The first one, and those behind it until their contents exceed `size_bytes`."""
    wanted = {"ids": json.dumps(ids)}
    try:
        sizes = dict(tx.execute(f"SELECT id, size FROM message WHERE id IN {_AMONG}", wanted).fetchall())
    except Exception as error:
        if not is_unreadable(error):
            raise
        return ids[:1]  # one by one, until the one that can't be read is held
    for place, message_id in enumerate(ids):
        size = sizes.get(message_id)
        size_bytes -= size if isinstance(size, int) else 0
        if size_bytes < 0 and place:
            return ids[:place]
    return ids


def _next_suspect(tx: Tx, lane: str, now: float) -> str | None:
    """The suspect that has waited longest, unless another is in hand."""
    suspects = f"SELECT message_id FROM recipient INDEXED BY recipient_suspect WHERE {_IS_SUSPECT} AND lane = ?"
    if tx.execute(f"{suspects} AND state = 'sending' LIMIT 1", (lane,)).fetchone() is not None:
        return None
    waiting = f"{suspects} AND state = 'queued' AND booked_at <= ? ORDER BY booked_at LIMIT 1"
    found = tx.execute(waiting, (lane, now)).fetchone()
    return None if found is None else str(found[0])


def _readable(tx: Tx, ids: Sequence[str], now: float) -> list[Claimed]:
    """The messages, in this order, but for those that can't be read: they are `held`."""
    try:
        return _read(tx, ids, now)
    except Exception as error:
        if not is_unreadable(error):
            raise
    if len(ids) == 1:
        hold_unreadable(tx, ids[0], now, "its rows can't be read")
        return []
    return [one for message_id in ids for one in _readable(tx, [message_id], now)]


def _read(tx: Tx, ids: Sequence[str], now: float) -> list[Claimed]:
    """Raises what `is_unreadable` if one of them can't be read."""
    wanted = {"ids": json.dumps(ids)}
    messages = {row["id"]: row for row in _rows(tx.execute(f"SELECT * FROM message WHERE id IN {_AMONG}", wanted))}
    recipients: dict[str, list[Row]] = defaultdict(list)
    of_these = f"SELECT * FROM recipient WHERE message_id IN {_AMONG} ORDER BY message_id, position"
    for row in _rows(tx.execute(of_these, wanted)):
        recipients[row["message_id"]].append(row)
    return [_claimed(messages[message_id], recipients[message_id], now) for message_id in ids]


def _rows(cursor: sqlite3.Cursor) -> list[Row]:
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _claimed(message: Row, recipients: Sequence[Row], now: float) -> Claimed:
    envelope = read_envelope(message, recipients)
    due = [(row, one) for row, one in zip(recipients, envelope.recipients, strict=True) if _is_due(row, now)]
    queued = Queued(
        id=message["id"],
        lane=message["lane"],
        rule=message["rule"],
        envelope=envelope,
        content=b"",
        accepted_at=message["accepted_at"],
        expires_at=message["expires_at"],
        due=tuple(
            OpenRecipient(
                *(row["position"], one, row["step"], row["attempts"]),
                delay_notified=bool(row["delay_notified"]),
                repeat=_repeat(row),
                crashed=row["deaths"] > 0,
            )
            for row, one in due
        ),
        upstreams=lines(message["upstreams"]),
        supersede_key=message["supersede_key"],
        is_part=message["places"] is not None,
        suspect=any(row["deaths"] >= SUSPECT_DEATHS for row, _ in due),
        trace=message["trace"],
    )
    body = BodyRange(message["body"], message["parts"], message["body_key"], message["size"])
    return Claimed(queued, StoredContent(queued.id, body))


def _repeat(row: Row) -> Repeat | None:
    if row["repeat_at"] is None:
        return None
    return Repeat(row["repeat_at"], row["repeat_until"], row["repeat_key"])


def _is_due(row: Row, now: float) -> bool:
    """As _IS_DUE."""
    at = row["booked_at"] if row["state"] == "queued" and row["next_at"] is None else row["next_at"]
    return at is not None and at <= now


def hold_unreadable(tx: Tx, message_id: str, now: float, why: str, *, in_hand: bool = False) -> bool:
    """Hold what waits of a message that can't be read, with a note and a log line. `in_hand`: also what is `sending`.
    False: nothing of it waited."""
    held = tx.execute(
        "UPDATE recipient SET state = 'held', next_at = NULL, booked_at = NULL, holder = NULL, lease_until = NULL"
        " WHERE message_id = ? AND open = 1"
        " AND (state IN ('queued', 'deferred') OR next_at IS NOT NULL OR (state = 'sending' AND ?))",
        (message_id, in_hand),
    )
    if not held.rowcount:
        return False
    note(tx, message_id, now, f"held: {why}")
    _LOG.error(logfmt("unreadable", id=message_id, reason=LongText(why)))
    return True
