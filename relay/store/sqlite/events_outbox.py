"""The outbox in the events file: posts on their way to receivers, in the order of each message's events.

Of the live posts of a message to a receiver the first has a due time. The others get theirs once it has arrived or is
given up. So what is due is found by an index, however much waits.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from typing import NamedTuple, Protocol, TypeVar

from relay.store.events import Batch, Delivered, GivenUp, Post, PostOutcome, PutOff, Waiting
from relay.store.sqlite.commit import Tx

T = TypeVar("T")

_REMOVED = "receiver not in the configuration"


class Backlog(NamedTuple):
    """How many posts of a receiver wait, and how many were given up."""

    waiting: int
    dead: int


class _Write(Protocol):
    def __call__(self, apply: Callable[[Tx], T]) -> Awaitable[T]: ...


class Outbox:
    """The posts in an events file. Each call is durable when it returns, and raises StoreError."""

    def __init__(self, write: _Write, now: Callable[[], float]) -> None:
        """`write`: runs a function in a transaction."""
        self._write = write
        self._now = now

    async def name(self, hosts: Mapping[str, str]) -> None:
        """Keep the receivers' hosts by their keys, in the order of the configuration: listings show both. Those that
        aren't among them were removed."""
        rows = [(key, host, position) for position, (key, host) in enumerate(hosts.items())]
        await self._write(partial(_name, rows=rows))

    async def exchange(
        self, receiver: str, outcomes: Sequence[PostOutcome], held: Collection[int], fresh: int, retries: int
    ) -> Batch:
        """Write what became of some posts, and get posts that are due: up to `fresh` that weren't tried yet, and up to
        `retries` others. Those in `held` (by `seq`) are left out."""
        want = (fresh, retries)
        return await self._write(
            partial(_exchange, receiver=receiver, outcomes=outcomes, held=held, want=want, now=self._now())
        )

    async def retry_now(self, receiver: str, limit: int) -> int:
        """Make up to `limit` posts due now that were put off; how many."""
        return await self._write(partial(_retry_now, receiver=receiver, limit=limit, now=self._now()))

    async def give_up_older(self, receiver: str, by: float, result: str, limit: int) -> int:
        """Give up to `limit` posts up that were made by then; how many."""
        return await self._write(
            partial(_give_up_older, receiver=receiver, by=by, result=result, limit=limit, now=self._now())
        )

    async def give_up_removed(self, receivers: Collection[str], by: float, limit: int) -> int:
        """Give up to `limit` posts up, made by then, to receivers that are none of these; how many."""
        return await self._write(partial(_give_up_removed, receivers=receivers, by=by, limit=limit, now=self._now()))

    async def retry_dead(self, limit: int) -> int:
        """Let up to `limit` posts that were given up begin anew; how many."""
        return await self._write(partial(restart_dead, limit=limit, now=self._now()))

    async def waiting(self, receivers: Collection[str]) -> tuple[int, float | None]:
        """How many posts to these receivers wait, and when the oldest was made."""
        return await self._write(partial(_waiting, receivers=receivers))

    async def backlogs(self) -> dict[str, Backlog]:
        """What each receiver with any posts has in the outbox, by its key."""
        return await self._write(backlogs)


def insert(tx: Tx, event_id: str, message_id: str, position: int, post: Post, now: float) -> None:
    """Due at once, or behind the earlier ones of its message. One that is there already stays as it is."""
    tx.execute(
        "INSERT OR IGNORE INTO outbox (receiver, event_id, message_id, position, created_at, body, due_at)"
        " SELECT ?1, ?2, ?3, ?4, ?5, ?6, CASE WHEN EXISTS"
        " (SELECT 1 FROM outbox WHERE message_id = ?3 AND receiver = ?1 AND dead_at IS NULL) THEN NULL ELSE ?5 END",
        (post.receiver, event_id, message_id, position, now, post.body),
    )


def _name(tx: Tx, rows: Sequence[tuple[str, str, int]]) -> None:
    tx.execute("UPDATE receiver_host SET position = NULL")
    tx.executemany("INSERT OR REPLACE INTO receiver_host (receiver, host, position) VALUES (?, ?, ?)", rows)


def _exchange(
    tx: Tx, receiver: str, outcomes: Sequence[PostOutcome], held: Collection[int], want: tuple[int, int], now: float
) -> Batch:
    for outcome in outcomes:
        match outcome:
            case Delivered(post):
                tx.execute("DELETE FROM outbox WHERE seq = ?", (post.seq,))
                _next_of_message(tx, receiver, post.message_id, now)
            case PutOff(post, due_at, result):
                tx.execute(
                    "UPDATE outbox SET due_at = ?, attempts = attempts + 1, result = ?"
                    " WHERE seq = ? AND dead_at IS NULL",
                    (due_at, result, post.seq),
                )
            case GivenUp(post, result):
                tx.execute(
                    "UPDATE outbox SET dead_at = ?, due_at = NULL, attempts = attempts + 1, result = ? WHERE seq = ?",
                    (now, result, post.seq),
                )
                _next_of_message(tx, receiver, post.message_id, now)
    (next_at,) = tx.execute(
        "SELECT min(due_at) FROM outbox INDEXED BY outbox_due WHERE receiver = ? AND (attempts > 0) = 1 AND due_at > ?",
        (receiver, now),
    ).fetchone()
    posts = [post for tried, most in enumerate(want) for post in _due(tx, receiver, tried, held, most, now)]
    return Batch(tuple(posts), next_at)


def _due(tx: Tx, receiver: str, tried: int, held: Collection[int], want: int, now: float) -> list[Waiting]:
    """The longest due first. `tried`: 1 for retries, else 0."""
    found: list[Waiting] = []
    if want <= 0:
        return found
    rows = tx.execute(
        "SELECT seq, event_id, message_id, created_at, attempts, body FROM outbox INDEXED BY outbox_due"
        " WHERE receiver = ? AND (attempts > 0) = ? AND due_at <= ? ORDER BY due_at LIMIT ?",
        (receiver, tried, now, want + len(held)),
    )
    for row in rows.fetchall():
        post = Waiting(*row)
        if post.seq not in held and len(found) < want:
            found.append(post)
    return found


def _next_of_message(tx: Tx, receiver: str, message_id: str, now: float) -> None:
    """The first live post of a message is due, unless it has its time already."""
    tx.execute(
        "UPDATE outbox SET due_at = ?3 WHERE due_at IS NULL AND seq ="
        " (SELECT min(seq) FROM outbox WHERE message_id = ?1 AND receiver = ?2 AND dead_at IS NULL)",
        (message_id, receiver, now),
    )


def _retry_now(tx: Tx, receiver: str, limit: int, now: float) -> int:
    return tx.execute(
        "UPDATE outbox SET due_at = ?2 WHERE seq IN (SELECT seq FROM outbox INDEXED BY outbox_due"
        " WHERE receiver = ?1 AND (attempts > 0) = 1 AND due_at > ?2 ORDER BY due_at LIMIT ?3)",
        (receiver, now, limit),
    ).rowcount


def _give_up_older(tx: Tx, receiver: str, by: float, result: str, limit: int, now: float) -> int:
    rows = tx.execute(
        "SELECT seq, receiver, message_id FROM outbox INDEXED BY outbox_age"
        " WHERE receiver = ? AND created_at <= ? AND dead_at IS NULL ORDER BY created_at LIMIT ?",
        (receiver, by, limit),
    )
    return _give_up(tx, rows.fetchall(), result, now)


def _give_up_removed(tx: Tx, receivers: Collection[str], by: float, limit: int, now: float) -> int:
    rows = tx.execute(
        "SELECT seq, receiver, message_id FROM outbox WHERE created_at <= ? AND dead_at IS NULL"
        " AND receiver NOT IN (SELECT value FROM json_each(?)) LIMIT ?",
        (by, json.dumps(list(receivers)), limit),
    )
    return _give_up(tx, rows.fetchall(), _REMOVED, now)


def _give_up(tx: Tx, rows: Sequence[tuple[int, str, str]], result: str, now: float) -> int:
    tx.executemany(
        "UPDATE outbox SET dead_at = ?, due_at = NULL, result = coalesce(result, ?) WHERE seq = ?",
        [(now, result, seq) for seq, _, _ in rows],
    )
    for receiver, message_id in {(receiver, message_id) for _, receiver, message_id in rows}:
        _next_of_message(tx, receiver, message_id, now)
    return len(rows)


def restart_dead(tx: Tx, limit: int, now: float) -> int:
    """Let up to `limit` posts that were given up begin anew; how many."""
    rows = tx.execute(
        "SELECT seq, receiver, message_id FROM outbox WHERE dead_at IS NOT NULL ORDER BY dead_at LIMIT ?", (limit,)
    ).fetchall()
    tx.executemany(
        "UPDATE outbox SET dead_at = NULL, created_at = ?, attempts = 0 WHERE seq = ?",
        [(now, seq) for seq, _, _ in rows],
    )
    for receiver, message_id in {(receiver, message_id) for _, receiver, message_id in rows}:
        _next_of_message(tx, receiver, message_id, now)
    return len(rows)


def _waiting(tx: Tx, receivers: Collection[str]) -> tuple[int, float | None]:
    count, oldest_at = tx.execute(
        "SELECT count(*), min(created_at) FROM outbox INDEXED BY outbox_age"
        " WHERE receiver IN (SELECT value FROM json_each(?)) AND dead_at IS NULL",
        (json.dumps(list(receivers)),),
    ).fetchone()
    return count, oldest_at


def prune_dead(tx: Tx, before: float, limit: int) -> None:
    """Delete up to `limit` posts that were given up before then."""
    tx.execute(
        "DELETE FROM outbox WHERE seq IN (SELECT seq FROM outbox WHERE dead_at < ? ORDER BY dead_at LIMIT ?)",
        (before, limit),
    )


def erase(tx: Tx, address: str, now: float) -> int:
    """Delete the posts that name an address, in whatever case, whether they wait or were given up; how many. What
    follows them in their message is due."""
    quoted = json.dumps(address, ensure_ascii=False)[1:-1]
    candidates = tx.execute(
        "SELECT seq, receiver, message_id, CAST(body AS TEXT) FROM outbox"
        " WHERE instr(lower(CAST(body AS TEXT)), ?) OR instr(CAST(body AS TEXT), ?)",
        (quoted.lower(), quoted),
    )
    # Not as a part of another address.
    named = re.compile(rf"(?<![\w.!#$%&*+/=?^{{|}}~-]){re.escape(quoted)}(?![\w-]|\.\w)", re.IGNORECASE)
    rows = [row[:3] for row in candidates.fetchall() if named.search(row[3])]
    tx.executemany("DELETE FROM outbox WHERE seq = ?", [(seq,) for seq, _, _ in rows])
    for receiver, message_id in {(receiver, message_id) for _, receiver, message_id in rows}:
        _next_of_message(tx, receiver, message_id, now)
    return len(rows)


def backlogs(tx: Tx) -> dict[str, Backlog]:
    """What each receiver has in the outbox, by its key."""
    every = tx.execute("SELECT receiver, count(*) FROM outbox INDEXED BY outbox_event GROUP BY receiver").fetchall()
    dead = dict(
        tx.execute("SELECT receiver, count(*) FROM outbox WHERE dead_at IS NOT NULL GROUP BY receiver").fetchall()
    )
    return {key: Backlog(count - dead.get(key, 0), dead.get(key, 0)) for key, count in every}
