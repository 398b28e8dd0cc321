"""Which requests with an idempotency key are known, in all files of one relay."""

from __future__ import annotations

import sqlite3
from functools import partial
from pathlib import Path

from relay.store.merge import shards
from relay.store.model import KnownRequest
from relay.store.sqlite.files import schema_version
from relay.store.sqlite.limits import SINCE_VERSION
from relay.store.sqlite.read_connection import ReadConnection
from relay.store.sqlite.thread import WorkThread


class SqliteKnownRequests:
    """`base.KnownRequests`. On a thread and connections of its own: no listing delays a code with a key."""

    def __init__(self, store: Path) -> None:
        """`store`: the main file."""
        self._store = store
        self._readers: dict[Path, ReadConnection] = {}
        self._thread = WorkThread("store requests")

    async def find(self, key: bytes, since: float) -> KnownRequest | None:
        """See `base.KnownRequests`."""
        return await self._thread.run(partial(self._find, key, since))

    async def close(self) -> None:
        """Close all connections."""
        await self._thread.close(self._close)

    def _find(self, key: bytes, since: float) -> KnownRequest | None:
        for path in (self._store, *shards(self._store)):
            if path not in self._readers:
                self._readers[path] = ReadConnection(path)
            if (found := self._readers[path].ask(partial(find, key=key, since=since))) is not None:
                return found
        return None

    def _close(self) -> None:
        for reader in self._readers.values():
            reader.close()


def find(connection: sqlite3.Connection, key: bytes, since: float) -> KnownRequest | None:
    """What one file knows."""
    if schema_version(connection) < SINCE_VERSION:  # a worker that starts brings its file up to date
        return None
    row = connection.execute(
        "SELECT request, message_id FROM idempotency WHERE key = ? AND at >= ?", (key, since)
    ).fetchone()
    return None if row is None else KnownRequest(bytes(row[0]), str(row[1]))
