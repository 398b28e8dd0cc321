"""The store in one SQLite file: opened, with all its roles, and closed."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from relay.logfmt import logfmt
from relay.policy.suppression import spellings
from relay.store.addresses import Hashed
from relay.store.base import StoreError
from relay.store.codec import Codec, Plain
from relay.store.merge import MergedReader
from relay.store.sqlite import erase, files, integrity, maintenance, pseudonymise, schema
from relay.store.sqlite.limits import SqliteLimits
from relay.store.sqlite.log import SqliteLog
from relay.store.sqlite.outcomes import SqliteOutcomes
from relay.store.sqlite.queue import SqliteQueue
from relay.store.sqlite.reader import Reader
from relay.store.sqlite.state import HEAVY_BYTES, StoreState
from relay.store.sqlite.suppressions import SqliteSuppressions
from relay.store.sqlite.thread import WorkThread
from relay.store.sqlite.transfer import SqliteTransfer
from relay.supervise import Supervisor

_HASHED_MESSAGES = 25
"""older messages whose addresses are hashed in one transaction"""
HASH_EVERY_S = 0.02
"""The pause between two such transactions, so that a code doesn't wait for them."""

_LOG = logging.getLogger(__name__)


async def open_store(
    path: Path, *, now: Callable[[], float], codec: Codec | None = None, supervisor: Supervisor | None = None
) -> SqliteStore:
    """Open the store at `path` for this process alone. A missing one is made, with its folder.

    `now`: the relay's clock, for notes. `codec`: must be able to read all that waits; without one, contents are in
    clear, and those that are encrypted aren't looked for (for commands, which need no content). `supervisor`: runs its
    background tasks; without one, a failure is logged and not counted (for commands).

    Raises StoreError: in use by another relay, unwritable, made by a newer version; StoreSealed: encrypted with another
    key; StoreDamaged: not a store, or damaged. Then the file was left as it was.
    """
    path = files.absolute(path)
    lock = files.lock(path)
    async with AsyncExitStack() as undo:
        undo.callback(os.close, lock)
        with files.explained(path):
            schema.prepare(path)
            integrity.inspect(path)
            if codec is not None:
                maintenance.check_keys(path, codec)
            writing = schema.connect_writer(path, now)
            undo.callback(writing.close)
            next_body = _begin(writing, codec.key_id if codec is not None else None)
            lists, contents = Reader(path), Reader(path)
            undo.callback(lists.close)
            undo.callback(contents.close)
            size = lists.size()
        undo.pop_all()
    writer = writing, WorkThread("store writer")
    state = StoreState(path, lock, writer, (lists, contents), now, codec or Plain())
    state.begin(next_body, size)
    return SqliteStore(state, supervisor or Supervisor(_log_ended))


def _begin(connection: sqlite3.Connection, key_id: str | None) -> int:
    """Note the key that is used from now on. Returns the first id that `body` has free."""
    if key_id is not None:
        maintenance.note_key(connection, key_id)
    (last,) = connection.execute(
        "SELECT max(coalesce((SELECT max(id) FROM body), 0),"
        " coalesce((SELECT max(first + parts - 1) FROM loose_body), 0))"
    ).fetchone()
    return int(last) + 1


class SqliteStore(SqliteQueue, SqliteOutcomes, SqliteLog, SqliteTransfer):
    """`base.Store`, `base.Outcomes` and `base.Transfer` in one SQLite file."""

    def __init__(self, state: StoreState, supervisor: Supervisor) -> None:
        SqliteQueue.__init__(self, state)
        SqliteLog.__init__(self, MergedReader(state.lists), state.lists_thread)
        self.suppressions = SqliteSuppressions(state)
        self.limits = SqliteLimits(state)
        self._closed: asyncio.Task[None] | None = None
        self.hashing: asyncio.Task[None] | None = None
        """hashes the addresses of older messages"""
        self._supervisor = supervisor

    async def close(self) -> None:
        if self._closed is None:
            self._closed = asyncio.create_task(self._close(), name="store close")
        await asyncio.shield(self._closed)

    async def _close(self) -> None:
        await self._stop_hashing()
        await self.state.close()

    # addresses

    async def hash_addresses(self, *, wanted: bool) -> None:
        """Keep the addresses of messages that finish from now on as hashes (`addresses`), or as they are. If hashed,
        those of messages that finished before are hashed too, little by little. That can't be undone."""
        await self._stop_hashing()
        self.state.hashed, older = await self.state.write(partial(pseudonymise.begin, wanted=wanted))
        if self.state.hashed is not None and older:
            hash_older = partial(self._hash_finished, self.state.hashed)
            self.hashing = self._supervisor.run_until_done("hash_addresses", hash_older)

    async def erase_address(self, address: str) -> int:
        """Forget an address in finished mail, little by little: hashes take its place. Returns the number of messages
        that had it."""
        return sum([await self._erase(spelling) for spelling in spellings(address)])

    async def _erase(self, address: str) -> int:
        ids, moved = await self.state.ask(partial(erase.find, address=address))
        if not ids and not moved:
            return 0
        hashed = await self.state.write(erase.salt)
        await self.state.write(partial(erase.erase_events, events=moved, address=address, hashed=hashed))
        erased = 0
        for start in range(0, len(ids), _HASHED_MESSAGES):
            some = ids[start : start + _HASHED_MESSAGES]
            write = partial(erase.erase, ids=some, address=address, hashed=hashed)
            erased += await self.state.write(write, size_bytes=HEAVY_BYTES)
            await asyncio.sleep(HASH_EVERY_S)
        return erased

    async def _stop_hashing(self) -> None:
        if self.hashing is not None:
            self.hashing.cancel()
            await asyncio.gather(self.hashing, return_exceptions=True)
            self.hashing = None

    async def _hash_finished(self, hashed: Hashed) -> None:
        after: str | None = ""
        try:
            while after is not None:
                step = partial(pseudonymise.hash_finished, hashed=hashed, after=after, limit=_HASHED_MESSAGES)
                after = await self.state.write(step, size_bytes=HEAVY_BYTES)
                await asyncio.sleep(HASH_EVERY_S)
        except StoreError as error:
            _LOG.warning("the store could not hash the addresses of older messages, the next start does: %s", error)


def _log_ended(task: str, error: BaseException | None) -> None:
    _LOG.error(logfmt("task_restarted", task=task, error=type(error).__name__))
