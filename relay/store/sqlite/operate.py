"""Changes to many messages at once, as functions of a transaction: recovery, superseding, lanes that come and go,
operators' actions, retention. Those with a `limit` are called again until they find nothing."""

# ruff: noqa: S608 - what is put together here are conditions of this package; every value is a parameter

from __future__ import annotations

import json
from collections.abc import Collection, Sequence

from relay.store.addresses import Hashed
from relay.store.model import MOST_DEATHS, SUSPECT_DEATHS, Action, Recovered, Selection
from relay.store.sqlite.commit import Tx
from relay.store.sqlite.rows import fold, open_lanes
from relay.store.sqlite.settle import finish_if_done, note
from relay.store.texts import DROPPED, UNKNOWN, recovered_note

_CHANGES: dict[Action, str] = {
    "retry": "state = 'queued', next_at = :now, step = 0, deaths = 0, booked_at = NULL, urged = 1",
    "hold": "state = 'held', next_at = NULL, booked_at = NULL",
    "release": "state = 'queued', next_at = :now, deaths = 0, booked_at = NULL",
    "drop": "state = 'bounced', open = 0, next_at = NULL, reply = :reply",
}


def recover(tx: Tx, now: float, marking: Collection[str]) -> list[Recovered]:
    """See `base.Queue.recover`."""
    _bring_back_from_the_future(tx, now)
    # `sending` rows have no next_at, so the index keeps them apart from all that waits for a time.
    sending = "open = 1 AND lane = :lane AND next_at IS NULL AND state = 'sending'"
    update = "UPDATE recipient INDEXED BY recipient_open SET holder = NULL, lease_until = NULL"
    recovered: list[Recovered] = []
    for lane in open_lanes(tx.execute):
        values = {"lane": lane, "now": now, "unknown": UNKNOWN, "most": MOST_DEATHS, "suspect": SUSPECT_DEATHS}
        for message_id, state, recipients in tx.execute(_IN_HAND.format(sending=sending), values).fetchall():
            recovered.append(Recovered(message_id, lane, state, recipients))
            note(tx, message_id, now, recovered_note(recovered[-1], is_marked=lane in marking))
        for change, further in (
            ("state = 'ambiguous', booked_at = NULL, reply = :unknown", "AND final_dot"),
            ("state = 'held', booked_at = NULL, deaths = deaths + 1", "AND deaths + 1 >= :most"),
            # A booking used up a step of the ladder.
            ("state = 'queued', booked_at = coalesce(booked_at, :now), deaths = deaths + 1, step = step + 1",
             "AND deaths + 1 >= :suspect"),
            ("state = 'queued', next_at = coalesce(booked_at, :now), step = step + (booked_at IS NOT NULL),"
             " booked_at = NULL, deaths = deaths + 1", ""),
        ):  # fmt: skip
            tx.execute(f"{update}, {change} WHERE {sending} {further}", values)
    return recovered


_IN_HAND = (
    "SELECT message_id, CASE WHEN final_dot THEN 'ambiguous' WHEN deaths + 1 >= :most THEN 'held' ELSE 'queued' END,"
    " count(*) FROM recipient INDEXED BY recipient_open WHERE {sending} GROUP BY 1, 2"
)


def _bring_back_from_the_future(tx: Tx, now: float) -> None:
    """If the clock of an earlier start was ahead, make its times now: what is due later is due now, and the life of a
    message that it accepted begins now."""
    (latest,) = tx.execute("SELECT max(accepted_at) FROM message").fetchone()
    if latest is None or latest <= now:
        return
    ahead = tx.execute(
        "SELECT id, accepted_at - :now FROM message WHERE accepted_at > :now AND body IS NOT NULL", {"now": now}
    ).fetchall()
    for message_id, by_s in ahead:
        tx.execute(
            "UPDATE message SET accepted_at = accepted_at - ?, expires_at = expires_at - ? WHERE id = ?",
            (by_s, by_s, message_id),
        )
        tx.execute("UPDATE recipient SET accepted_at = accepted_at - ? WHERE message_id = ?", (by_s, message_id))
    for lane in open_lanes(tx.execute):
        tx.execute(
            "UPDATE recipient INDEXED BY recipient_open SET next_at = :now"
            " WHERE open = 1 AND lane = :lane AND next_at > :now",
            {"now": now, "lane": lane},
        )
        tx.execute(
            "UPDATE recipient SET booked_at = min(booked_at, :now)"
            " WHERE open = 1 AND lane = :lane AND next_at IS NULL AND booked_at > :now",
            {"now": now, "lane": lane},
        )


def supersede(tx: Tx, key: str, before_id: str, now: float, hashed: Hashed | None) -> list[str]:
    """See `base.Queue.supersede`."""
    older = tx.execute("SELECT id FROM message WHERE supersede_key = ? AND id < ? ORDER BY id", (key, before_id))
    ended = []
    for (message_id,) in older.fetchall():
        changed = tx.execute(
            "UPDATE recipient SET state = 'superseded', open = 0, next_at = NULL, reply = ?"
            " WHERE message_id = ? AND state IN ('queued', 'deferred')",
            (f"superseded by {before_id}", message_id),
        )
        if changed.rowcount:
            ended.append(message_id)
            note(tx, message_id, now, f"superseded by {before_id}")
    finish_if_done(tx, ended, hashed)
    return ended


def retry_deferred(tx: Tx, lane: str, now: float, limit: int, *, only_urged: bool) -> int:
    """See `base.Queue.retry_deferred`."""
    index, further = ("recipient_urged", "AND urged = 1") if only_urged else ("recipient_open", "")
    late = tx.execute(
        f"SELECT message_id, position FROM recipient INDEXED BY {index}"
        f" WHERE open = 1 AND lane = ? AND next_at > ? AND state = 'deferred' {further} LIMIT ?",
        (lane, now, limit),
    ).fetchall()
    tx.executemany(
        "UPDATE recipient SET next_at = ? WHERE message_id = ? AND position = ?", [(now, *each) for each in late]
    )
    return len(late)


def adopt(tx: Tx, lanes: Sequence[str], default: str, limit: int) -> int:
    """Move whole messages, those of `limit` open recipients or a few more, so that finished recipients are shown
    with the others. Returns how many open recipients moved."""
    lost = [lane for lane in open_lanes(tx.execute) if lane not in (*lanes, default)]
    orphans = tx.execute(
        "SELECT message_id FROM recipient INDEXED BY recipient_open"
        " WHERE open = 1 AND lane IN (SELECT value FROM json_each(?)) LIMIT ?",
        (json.dumps(lost), limit),
    ).fetchall()
    adopted = 0
    for message_id in dict.fromkeys(orphans):
        tx.execute("UPDATE message SET lane = ? WHERE id = ?", (default, *message_id))
        tx.execute("UPDATE recipient SET lane = ? WHERE message_id = ? AND open = 0", (default, *message_id))
        adopted += tx.execute(
            "UPDATE recipient SET lane = ? WHERE message_id = ? AND +open = 1", (default, *message_id)
        ).rowcount
    return adopted


def act(
    tx: Tx, action: Action, ids: Sequence[str], selection: Selection, now: float, hashed: Hashed | None
) -> list[str]:
    """Apply the action to the recipients of these messages that the selection's `to` and `state` match. Returns the
    ids of the messages that changed, of a part its entry's."""
    states = selection.states_for(action)
    terms = ["message_id = :id", "state IN ({})".format(", ".join(f"'{state}'" for state in states))]
    if selection.to is not None:
        terms.append("coalesce(folded, address) = :to")
    if selection.state is not None:
        terms.append("state = :state")
    if action == "retry":  # after the expiry no upstream is asked any more: what became of the message stays open
        terms.append("(state != 'ambiguous' OR (SELECT expires_at FROM message WHERE id = :id) > :now)")
    sql = f"UPDATE recipient SET {_CHANGES[action]} WHERE {' AND '.join(terms)}"
    values = {"now": now, "reply": DROPPED, "state": selection.state, "to": selection.to and fold(selection.to)}
    changed = []
    for message_id in ids:
        if tx.execute(sql, {**values, "id": message_id}).rowcount:
            changed.append(message_id)
            note(tx, message_id, now, f"{action} by the operator")
    finish_if_done(tx, changed, hashed)
    return _entries(tx, changed)


def _entries(tx: Tx, ids: Sequence[str]) -> list[str]:
    found = tx.execute(
        "SELECT id, part_of FROM message WHERE id IN (SELECT value FROM json_each(?)) AND part_of IS NOT NULL",
        (json.dumps(ids),),
    )
    entries = dict(found.fetchall())
    return list(dict.fromkeys(entries.get(message_id, message_id) for message_id in ids))


def prune(tx: Tx, before: float, limit: int) -> int:
    """See `base.Queue.prune`."""
    old = tx.execute(
        "SELECT id FROM message WHERE accepted_at < ? AND body IS NULL ORDER BY accepted_at LIMIT ?", (before, limit)
    ).fetchall()
    for table, column in (
        ("attempt", "message_id"),
        ("note", "message_id"),
        ("event", "message_id"),
        ("recipient", "message_id"),
        ("message", "id"),
    ):
        further = _NOT_THE_NEWEST if table == "event" else ""
        tx.executemany(f"DELETE FROM {table} WHERE {column} = ? {further}", old)
    return len(old)


_NOT_THE_NEWEST = "AND seq < (SELECT max(seq) FROM event)"


def prune_events(tx: Tx, before: float, limit: int) -> int:
    """Delete those of the `limit` oldest events whose time has come and whose message is no longer in this file."""
    return tx.execute(
        "DELETE FROM event WHERE seq IN (SELECT seq FROM (SELECT * FROM event ORDER BY seq LIMIT ?) AS oldest"
        " WHERE at < ? AND NOT EXISTS (SELECT 1 FROM message WHERE id = oldest.message_id))"
        f" {_NOT_THE_NEWEST}",
        (limit, before),
    ).rowcount
