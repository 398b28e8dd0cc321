"""The outbox in the events file, as functions of a transaction: events on their way to receivers, in order."""

from __future__ import annotations

from relay.store.events import Post, Waiting
from relay.store.sqlite.commit import Tx


def insert(tx: Tx, event_id: str, message_id: str, position: int, post: Post, now: float) -> None:
    """Due at once. One that is there already stays as it is."""
    tx.execute(
        "INSERT OR IGNORE INTO outbox (receiver, event_id, message_id, position, created_at, due_at, body)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (post.receiver, event_id, message_id, position, now, now, post.body),
    )


# An event of a message goes out once those before it have arrived or are given up.
_FIRST_OF_ITS_MESSAGE = (
    "NOT EXISTS (SELECT 1 FROM outbox AS earlier WHERE earlier.message_id = outbox.message_id"
    " AND earlier.receiver = outbox.receiver AND earlier.seq < outbox.seq AND earlier.dead_at IS NULL)"
)


def due(tx: Tx, receiver: str, now: float, limit: int) -> list[Waiting]:
    """Up to `limit` posts that are due, the longest due first."""
    rows = tx.execute(
        "SELECT seq, event_id, created_at, attempts, body FROM outbox INDEXED BY outbox_due"  # noqa: S608 - a constant
        f" WHERE receiver = ? AND dead_at IS NULL AND due_at <= ? AND {_FIRST_OF_ITS_MESSAGE} ORDER BY due_at LIMIT ?",
        (receiver, now, limit),
    )
    return [Waiting(*row) for row in rows.fetchall()]


def next_due(tx: Tx, receiver: str) -> float | None:
    """When the next post is due that stands behind no other; None: there is none."""
    found = tx.execute(
        "SELECT due_at FROM outbox INDEXED BY outbox_due"  # noqa: S608 - a constant
        f" WHERE receiver = ? AND dead_at IS NULL AND {_FIRST_OF_ITS_MESSAGE} ORDER BY due_at LIMIT 1",
        (receiver,),
    ).fetchone()
    return None if found is None else float(found[0])


def put_off(tx: Tx, number: int, due_at: float, result: str) -> None:
    tx.execute(
        "UPDATE outbox SET due_at = ?, attempts = attempts + 1, result = ? WHERE seq = ?", (due_at, result, number)
    )


def give_up(tx: Tx, number: int, result: str, now: float) -> None:
    tx.execute(
        "UPDATE outbox SET dead_at = ?, attempts = attempts + 1, result = ? WHERE seq = ?", (now, result, number)
    )
