"""One transaction over several operations, on the writer's thread or in place: what `group.py` decides, done."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

_LOG = logging.getLogger(__name__)


class Tx:
    """A transaction as an operation sees it, with what its commit adds to the store's totals."""

    __slots__ = ("execute", "executemany", "messages", "orphaned", "size_bytes")

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.execute = connection.execute
        self.executemany = connection.executemany
        self.messages = 0
        """open messages more (or less)"""
        self.size_bytes = 0
        """bytes of open contents more (or less)"""
        self.orphaned = False
        """a content of several parts lost its message; each part is deleted in a transaction of its own"""


ApplyBatch = Callable[[Tx, Sequence[Any]], None]
"""Applies several operations of one kind in a few statements. Python's sqlite3 takes the interpreter's lock again after
each statement, which beside a busy event loop costs more than the statement. It raises if they can't go together."""


class Write(NamedTuple):
    """What an operation writes. `batch`: a function that writes several of a kind, and this one's argument to it. It
    writes the same as `apply`, whose result is then None."""

    apply: Callable[[Tx], Any]
    batch: tuple[ApplyBatch, Any] | None = None


class Failed(NamedTuple):
    """The outcome of an operation that raised."""

    error: Exception


def commit(
    connection: sqlite3.Connection,
    writes: Sequence[Write],
    explain: Callable[[Exception], Exception],
    *,
    unbatched: bool = False,
) -> tuple[list[Any], list[Tx]]:
    """Apply them in one transaction; if that fails, each in one of its own and `unbatched`, so that one which can't be
    written doesn't fail its neighbours. Returns each one's result or `Failed`, and the committed transactions."""
    tx = Tx(connection)
    try:
        if connection.in_transaction:
            connection.execute("ROLLBACK")  # an earlier roll back failed: nothing may be added to that transaction
        connection.execute("BEGIN IMMEDIATE")
    except Exception as error:  # noqa: BLE001 - it is handed to the callers
        return [Failed(explain(error))] * len(writes), []
    try:
        outcomes = [write.apply(tx) for write in writes] if unbatched else _apply_batched(writes, tx)
        connection.execute("COMMIT")
    except Exception as error:  # noqa: BLE001 - as above
        _roll_back(connection)
        if unbatched and len(writes) == 1:
            return [Failed(explain(error))], []
    else:
        return outcomes, [tx]
    outcomes, committed = [], []
    for write in writes:
        outcome, done = commit(connection, [write], explain, unbatched=True)
        outcomes += outcome
        committed += done
    return outcomes, committed


def _apply_batched(writes: Sequence[Write], tx: Tx) -> list[Any]:
    """In order; those of a kind that can go together are applied before the next one that can't."""
    outcomes: list[Any] = []
    batches: dict[ApplyBatch, list[Any]] = {}
    for write in writes:
        if write.batch is not None:
            apply, item = write.batch
            batches.setdefault(apply, []).append(item)
            outcomes.append(None)
        else:
            _flush(batches, tx)
            outcomes.append(write.apply(tx))
    _flush(batches, tx)
    return outcomes


def _flush(batches: dict[ApplyBatch, list[Any]], tx: Tx) -> None:
    for apply, items in batches.items():
        apply(tx, items)
    batches.clear()


def checkpoint(connection: sqlite3.Connection) -> None:
    """Move the write-ahead log into the file, as far as no reader needs it. SQLite then uses the log from its beginning
    again and keeps its size: to cut it would make the next commits grow it, which costs more than writing over it."""
    try:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    except sqlite3.Error as error:
        # A full disk, say. Nothing is lost: all of it is in the log, and the next checkpoint tries again.
        _LOG.warning("the store could not move its log into its file: %s", error)


def _roll_back(connection: sqlite3.Connection) -> None:
    """End an open transaction. SQLite rolls back by itself after some errors (a full disk), and not after others."""
    if connection.in_transaction:
        try:
            connection.execute("ROLLBACK")
        except sqlite3.Error:
            _LOG.warning("the store could not roll back", exc_info=True)
