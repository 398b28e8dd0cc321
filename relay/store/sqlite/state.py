"""What the roles of one open store file share: its connections, the ids of its contents, its totals."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from relay.store.addresses import Hashed
from relay.store.codec import Codec
from relay.store.sqlite import files, settle
from relay.store.sqlite.commit import Tx
from relay.store.sqlite.group import GroupWriter, Operation
from relay.store.sqlite.reader import Reader
from relay.store.sqlite.rows import PART_BYTES, BodyRange
from relay.store.sqlite.thread import WorkThread

T = TypeVar("T")

HEAVY_BYTES = 200_000
"""what an operation about many rows counts for in its group, so that an express message needn't wait for several"""
RECIPIENT_BYTES = 1_000
"""what a recipient counts for: writing one takes as long as this much content"""


class StoreState:
    """One connection writes, in groups. One reads lists and one reads contents, so that a long listing delays neither
    a commit nor a claim."""

    def __init__(
        self,
        path: Path,
        lock: int,
        writing: tuple[sqlite3.Connection, WorkThread],
        readers: tuple[Reader, Reader],
        now: Callable[[], float],
        codec: Codec,
    ) -> None:
        """`lock`: the descriptor that keeps other relays out. `readers`: of lists and of contents. `now`: the clock for
        notes."""
        self.path = path
        self.lists, self.contents = readers
        self.now = now
        self.codec = codec
        self.connection, self.thread = writing
        self.writer = GroupWriter(
            self.connection, self.thread, explain=partial(files.explain, path), committed=self._committed
        )
        self.lists_thread = WorkThread("store lists")
        self.content_thread = WorkThread("store contents")
        self.hashed: Hashed | None = None
        """how addresses of finished messages are kept; None: as they are"""
        self.arriving: set[int] = set()
        """contents of several parts that are being written before their message is"""
        self.messages = self.size_bytes = 0
        """open messages, and the bytes of their contents"""
        self._lock = lock
        self._next_body = 1

    def begin(self, next_body: int, size: tuple[int, int]) -> None:
        """`next_body`: the first id that `body` has free. `size`: the totals so far."""
        self._next_body = next_body
        self.messages, self.size_bytes = size
        self.writer.follow_up(self.delete_orphans)

    async def close(self) -> None:
        try:
            await self.lists_thread.close(self.lists.close)
            await self.content_thread.close(self.contents.close)
            await self.writer.close()  # the last one: SQLite then moves its log into the file and removes it
        finally:
            os.close(self._lock)

    async def write(
        self,
        apply: Callable[[Tx], T],
        *,
        size_bytes: int = 0,
        express: bool = False,
        abandoned: Callable[[T], None] | None = None,
    ) -> T:
        """What `apply` returns, once it is committed. Raises StoreError."""
        operation = Operation(apply, size_bytes=size_bytes, abandoned=abandoned)
        return await self.writer.submit(operation, express=express).result()

    async def ask(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """What `read` returns, on the connection that reads lists. Raises StoreError."""
        return await self.lists_thread.run(partial(self.lists.ask, read))

    async def write_in_steps(self, apply: Callable[..., int], step: int, limit: int | None = None) -> int:
        """Apply it (to up to `limit` rows, in transactions of `step`) until it finds no more; how many it found."""
        done = 0
        while limit is None or done < limit:
            some = step if limit is None else min(step, limit - done)
            found = await self.write(partial(apply, limit=some), size_bytes=HEAVY_BYTES)
            if not found:
                break
            done += found
        return done

    def body_range(self, content: bytes) -> BodyRange:
        """A range of its own in `body`. Ids are chosen here, not by SQLite, so that the parts of one lie together."""
        parts = max(1, -(-len(content) // PART_BYTES))
        return BodyRange(self.reserve(parts), parts, self.codec.key_id, len(content))

    def reserve(self, parts: int) -> int:
        """The first of so many ids of `body` that follow each other."""
        first = self._next_body
        self._next_body += parts
        return first

    def give_back(self, *message_ids: str) -> None:
        """`unclaim` them, without waiting: the caller that claimed them has gone."""
        for message_id in message_ids:
            self.writer.follow_up(partial(settle.unclaim, message_id=message_id))

    def delete_orphans(self, tx: Tx) -> None:
        """One part in each transaction, until none is left."""
        tx.orphaned = settle.delete_orphan(tx, self.arriving)

    def _committed(self, tx: Tx) -> None:
        self.messages += tx.messages
        self.size_bytes += tx.size_bytes
        if tx.orphaned:
            self.writer.follow_up(self.delete_orphans)
