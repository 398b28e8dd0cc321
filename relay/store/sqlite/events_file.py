"""The events file: what ESPs report, and what is to follow from it. One process writes it, in groups.

It lies beside the main store file (`relay-events.db`). Each write is on the disk when it returns.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from relay.store.events import OLD, Effect, Post, Recorded, Recording, Token, Undecided
from relay.store.sqlite import events_erase, events_outbox, files
from relay.store.sqlite.commit import Tx
from relay.store.sqlite.events_schema import connect_events_writer, events_path
from relay.store.sqlite.group import GroupWriter, Operation
from relay.store.sqlite.thread import WorkThread

T = TypeVar("T")

TOKENS_FOR_S = 13 * 3600.0
"""Mailgun's tokens are remembered for longer than they are believed"""


MX_FORGOTTEN_AFTER_S = 30 * 86400.0
"""what was found of a domain is of use for some time after it should be looked up again"""


class Replayed(Exception):
    """A token was used before, for another body."""


class EventsFile:
    """`open_events` makes one. Each call that changes something is durable when it returns, and raises StoreError."""

    def __init__(self, path: Path, connection: sqlite3.Connection, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._writer = GroupWriter(
            connection, WorkThread("events writer"), explain=partial(files.explain, path), committed=lambda _tx: None
        )
        self.outbox = events_outbox.Outbox(self._write, now)

    async def close(self) -> None:
        await self._writer.close()

    async def _write(self, apply: Callable[[Tx], T]) -> T:
        return await self._writer.submit(Operation(apply)).result()

    async def record(self, found: Sequence[Recording], token: Token | None = None) -> Sequence[Recorded]:
        """Write what is new of these events, with what follows from it. Raises Replayed: nothing was written."""
        return await self._write(partial(_record, found=found, token=token, now=self._now()))

    async def read_until(self) -> Mapping[str, int]:
        """How far each message file was read, by name."""
        return await self._write(lambda tx: dict(tx.execute("SELECT file, seq FROM read_until").fetchall()))

    async def receivers(self, keys: Collection[str], since: float) -> Mapping[str, float]:
        """Since when each of these receivers is configured: `since` for new ones. Others are forgotten."""
        return await self._write(partial(_receivers, keys=keys, since=since))

    async def follow(
        self,
        file: str,
        seq: int,
        posts: Sequence[tuple[str, str, int, Post]] = (),
        undecided: Sequence[Undecided] = (),
    ) -> None:
        """The relay's own events of a file were read up to `seq`. `posts`: what receivers get of them, each with its
        event's id, message and position."""
        await self._write(partial(_follow, file=file, seq=seq, posts=posts, undecided=undecided, now=self._now()))

    async def overdue(self, limit: int) -> Sequence[Undecided]:
        """Up to `limit` of the undecided recipients whose time is over. They are decided now."""
        return await self._write(partial(_overdue, now=self._now(), limit=limit))

    async def effects(self, after: int, limit: int) -> Sequence[tuple[int, Effect]]:
        """What has yet to be done, oldest first, each with its number for `effects_done`: those behind `after`."""
        return await self._write(partial(_effects, after=after, limit=limit))

    async def effects_done(self, numbers: Sequence[int]) -> None:
        await self._write(lambda tx: tx.executemany("DELETE FROM effect WHERE seq = ?", [(each,) for each in numbers]))

    async def erase(self, address: str) -> int:
        """Forget an address. Returns how many rows had it."""
        return await self._write(partial(events_erase.erase, address=address, now=self._now()))

    async def mx_providers(self, limit: int) -> Mapping[str, tuple[str | None, float]]:
        """Up to `limit` domains with their provider, and until when that is known."""
        sql = "SELECT domain, provider, until FROM mx ORDER BY until DESC LIMIT ?"
        return await self._write(lambda tx: {row[0]: (row[1], row[2]) for row in tx.execute(sql, (limit,))})

    async def save_mx(self, domain: str, provider: str | None, until: float) -> None:
        row = (domain, provider, until)
        await self._write(lambda tx: tx.execute("INSERT OR REPLACE INTO mx VALUES (?, ?, ?)", row))

    async def prune(self, before: float, limit: int) -> int:
        """Delete up to `limit` events about messages accepted before then, as many posts given up before then, and
        tokens that nothing believes any more. Returns how many events."""
        return await self._write(partial(_prune, before=before, limit=limit, now=self._now()))


async def erase_in_events(store: Path, address: str) -> int:
    """Forget an address in the events file beside a main store file, if there is one and no process has it open.
    Returns how many rows had it. Raises StoreError, StoreDamaged."""
    path = events_path(store)
    if not path.exists():
        return 0
    events = await open_events(path)
    try:
        return await events.erase(address)
    finally:
        await events.close()


async def open_events(path: Path, now: Callable[[], float] = time.time) -> EventsFile:
    """Open the events file for writing; a missing one is made. Raises StoreError, StoreDamaged."""
    return EventsFile(path, connect_events_writer(path), now)


_INSERT = (
    "INSERT OR IGNORE INTO event (id, message_id, position, at, recorded_at, kind, upstream, lane, provider, permanent,"
    " reason, accepted_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


def _record(tx: Tx, found: Sequence[Recording], token: Token | None, now: float) -> list[Recorded]:
    if token is not None:
        _use(tx, token, now)
    return [_record_one(tx, one, now) for one in found]


def _record_one(tx: Tx, one: Recording, now: float) -> Recorded:
    event = one.event
    row = (event.id, event.message_id, event.position, event.at, now, event.kind, event.upstream, one.lane)
    more = (one.provider, event.permanent, event.reason, one.accepted_at)
    if tx.execute(_INSERT, (*row, *more)).rowcount == 0:
        return OLD
    for post in one.posts:
        events_outbox.insert(tx, event.id, event.message_id, event.position, post, now)
    tx.executemany(
        "INSERT INTO effect (action, message_id, position, upstream, at, lane, cause, address, reason)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        one.effects,
    )
    if event.kind != "delivered":
        return Recorded(is_new=True)
    (deliveries,) = tx.execute(_DELIVERIES, (event.message_id, event.position)).fetchone()
    return Recorded(True, deliveries == 1, decides=one.has_objective and _decide(tx, one, now))


_DELIVERIES = (
    "SELECT count(*) FROM (SELECT 1 FROM event WHERE message_id = ? AND position = ? AND kind = 'delivered' LIMIT 2)"
)
"""one, or more: with all of them a batch about one recipient would take quadratic time"""


def _decide(tx: Tx, one: Recording, now: float) -> bool:
    """False: it was decided before."""
    key = (one.event.message_id, one.event.position)
    waited = tx.execute(
        "UPDATE objective SET due_at = NULL WHERE message_id = ? AND position = ? AND due_at IS NOT NULL", key
    )
    if waited.rowcount == 1:
        return True
    row = (*key, one.lane, now)
    return tx.execute("INSERT OR IGNORE INTO objective VALUES (?, ?, ?, NULL, NULL, ?)", row).rowcount == 1


def _use(tx: Tx, token: Token, now: float) -> None:
    tx.execute("INSERT OR IGNORE INTO token VALUES (?, ?, ?, ?)", (*token, now))
    (digest,) = tx.execute(
        "SELECT digest FROM token WHERE upstream = ? AND token = ?", (token.upstream, token.token)
    ).fetchone()
    if digest != token.digest:
        raise Replayed


def _receivers(tx: Tx, keys: Collection[str], since: float) -> dict[str, float]:
    known = dict(tx.execute("SELECT receiver, since FROM receiver").fetchall())
    tx.executemany("DELETE FROM receiver WHERE receiver = ?", [(key,) for key in known if key not in keys])
    tx.executemany("INSERT OR IGNORE INTO receiver VALUES (?, ?)", [(key, since) for key in keys])
    return {key: known.get(key, since) for key in keys}


def _follow(
    tx: Tx,
    file: str,
    seq: int,
    posts: Sequence[tuple[str, str, int, Post]],
    undecided: Sequence[Undecided],
    now: float,
) -> None:
    tx.execute("INSERT OR REPLACE INTO read_until VALUES (?, ?)", (file, seq))
    for event_id, message_id, position, post in posts:
        events_outbox.insert(tx, event_id, message_id, position, post, now)
    tx.executemany("INSERT OR IGNORE INTO objective VALUES (?, ?, ?, ?, ?, ?)", [(*each, now) for each in undecided])


def _overdue(tx: Tx, now: float, limit: int) -> list[Undecided]:
    rows = tx.execute(
        "SELECT message_id, position, lane, due_at, sent_after_s FROM objective WHERE due_at <= ?"
        " ORDER BY due_at LIMIT ?",
        (now, limit),
    )
    found = [Undecided(*row) for row in rows.fetchall()]
    tx.executemany(
        "UPDATE objective SET due_at = NULL WHERE message_id = ? AND position = ?", [each[:2] for each in found]
    )
    return found


def _effects(tx: Tx, after: int, limit: int) -> list[tuple[int, Effect]]:
    rows = tx.execute(
        "SELECT seq, action, message_id, position, upstream, at, lane, cause, address, reason FROM effect"
        " WHERE seq > ? ORDER BY seq LIMIT ?",
        (after, limit),
    )
    return [(seq, Effect(*row)) for seq, *row in rows.fetchall()]


def _prune(tx: Tx, before: float, limit: int, now: float) -> int:
    tx.execute("DELETE FROM token WHERE seen_at < ?", (now - TOKENS_FOR_S,))
    tx.execute("DELETE FROM mx WHERE until < ?", (now - MX_FORGOTTEN_AFTER_S,))
    events_outbox.prune_dead(tx, before, limit)
    tx.execute("DELETE FROM objective WHERE at < ? AND due_at IS NULL", (before,))
    return tx.execute(
        "DELETE FROM event WHERE seq IN"
        " (SELECT seq FROM (SELECT seq, accepted_at FROM event ORDER BY seq LIMIT ?) WHERE accepted_at < ?)"
        " AND seq < (SELECT max(seq) FROM event)",
        (limit, before),
    ).rowcount
