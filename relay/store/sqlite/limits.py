"""What limits count, in the files of one relay: read at the start, written with each message, pruned."""

from __future__ import annotations

import heapq
import sqlite3
from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from relay.policy.admissions import Admission
from relay.store.sqlite.commit import Tx
from relay.store.sqlite.files import schema_version
from relay.store.sqlite.read_connection import ReadConnection
from relay.store.sqlite.state import StoreState

SINCE_VERSION = 5
"""of the schema: the tables are there"""
_STEP = 200
"""rows deleted in one transaction, so that a code doesn't wait for it"""
_MOST_STEPS = 20
_READ_ROWS = 10_000


class SqliteLimits:
    """`base.Limits` in one SQLite file."""

    def __init__(self, state: StoreState) -> None:
        self._state = state

    async def prune(self, before: float, requests_before: float, *, most: int) -> None:
        """See `base.Limits`."""
        limit = _STEP * _MOST_STEPS
        await self._state.write_in_steps(partial(prune_admissions, before=before, most=most), _STEP, limit)
        await self._state.write_in_steps(partial(prune_requests, before=requests_before), _STEP, limit)


def prune_admissions(tx: Tx, before: float, most: int, limit: int) -> int:
    """Delete those of the `limit` oldest rows that no limit counts any more."""
    return tx.execute(
        "DELETE FROM admission WHERE seq IN (SELECT seq FROM (SELECT seq, at FROM admission ORDER BY seq LIMIT ?)"
        " WHERE at < ? OR seq < (SELECT max(seq) FROM admission) - ?)",
        (limit, before, most),
    ).rowcount


def prune_requests(tx: Tx, before: float, limit: int) -> int:
    """Delete idempotency keys whose time is over."""
    return tx.execute(
        "DELETE FROM idempotency WHERE key IN (SELECT key FROM idempotency WHERE at < ? ORDER BY at LIMIT ?)",
        (before, limit),
    ).rowcount


def admissions(files: Sequence[Path]) -> Iterator[Admission]:
    """The admissions of these files, in order, each once. Blocks; raises StoreError."""
    with ExitStack() as opened:
        readers = [ReadConnection(path) for path in files]
        for reader in readers:
            opened.callback(reader.close)
        last = 0
        for admission in heapq.merge(*map(_of_file, readers), key=lambda one: one.seq):
            # A worker that was lost may have stored a message that the main process then stored, too.
            if admission.seq > last:
                yield admission
            last = admission.seq


def _of_file(reader: ReadConnection) -> Iterator[Admission]:
    after = 0
    while rows := reader.ask(partial(_rows, after=after)):
        yield from rows
        after = rows[-1].seq


def _rows(connection: sqlite3.Connection, after: int) -> list[Admission]:
    if schema_version(connection) < SINCE_VERSION:  # as an older relay left it
        return []
    found = connection.execute(
        "SELECT seq, at, keys FROM admission WHERE seq > ? ORDER BY seq LIMIT ?", (after, _READ_ROWS)
    )
    return [Admission(seq, at, tuple(array("q", keys))) for seq, at, keys in found]
