"""The reading half of the store, beside the relay's work: each question on a thread, none waits for the writer."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TypeVar

from relay.store.base import Unreadable
from relay.store.codec import Codec
from relay.store.model import DeliveryRow, LaneCount, Selection
from relay.store.sqlite import search as sqlite_query
from relay.store.sqlite.files import connect_reader, explain
from relay.store.sqlite.group import Connection
from relay.store.sqlite.rows import BodyRange

T = TypeVar("T")


class Reader:
    """A reading connection. Each call sees one moment of the store. Raises StoreError."""

    def __init__(self, path: Path, connection: Connection) -> None:
        self._path = path
        self._connection = connection

    @classmethod
    async def open(cls, path: Path, name: str) -> Reader:
        try:
            return cls(path, await Connection.open(name, partial(connect_reader, path)))
        except sqlite3.Error as error:
            raise explain(path, error) from error

    async def close(self) -> None:
        await self._connection.close()

    async def get(self, message_id: str) -> Mapping[str, object] | None:
        return await self.run(partial(sqlite_query.get, message_id=message_id))

    async def search(self, selection: Selection) -> Sequence[Mapping[str, object]]:
        return await self.run(partial(sqlite_query.search, selection=selection))

    async def waiting(self, selection: Selection) -> Sequence[Mapping[str, object]]:
        return await self.run(partial(sqlite_query.waiting, selection=selection))

    async def waiting_ids(self, selection: Selection) -> list[str]:
        """All open messages that the selection is about, whatever its limit."""
        return await self.run(partial(sqlite_query.waiting_ids, selection=selection, limit=-1))

    async def counts(self) -> Sequence[LaneCount]:
        return await self.run(sqlite_query.counts)

    async def size(self) -> tuple[int, int]:
        return await self.run(sqlite_query.size)

    async def deliveries(self, since: float) -> Sequence[DeliveryRow]:
        tally = sqlite_query.Tally(since)
        while tally.begin is not None:
            tally.add(*await self.run(partial(sqlite_query.deliveries, since=tally.begin)))
        return tally.rows()

    async def next_due(self, lane: str) -> float | None:
        return await self.run(partial(sqlite_query.next_due, lane=lane))

    async def content(self, message_id: str, body: BodyRange, size_bytes: int, codec: Codec) -> bytes:
        """Raises Unreadable where it is not what was written, however often it is asked."""
        content = await self.run(partial(_content, message_id=message_id, body=body, codec=codec))
        if len(content) != size_bytes:
            raise Unreadable(f"its content is damaged: {len(content)} bytes instead of {size_bytes}")
        return content

    async def run(self, read: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await self._connection.run(partial(sqlite_query.at_one_moment, read))
        except (sqlite3.Error, OSError) as error:
            raise explain(self._path, error) from error


def _content(connection: sqlite3.Connection, message_id: str, body: BodyRange, codec: Codec) -> bytes:
    rows = connection.execute(
        "SELECT content FROM body WHERE id BETWEEN ? AND ? ORDER BY id", (body.first, body.first + body.parts - 1)
    )
    whole = BytesIO()  # which holds it once, and hands it out as it is
    found = 0
    try:
        for part, (content,) in enumerate(rows):
            whole.write(codec.decode(content, f"{message_id}/{part}", body.key_id))
            found += 1
    except (TypeError, ValueError) as error:
        raise Unreadable(f"its content is {error}") from None
    if found != body.parts:
        raise Unreadable("its content is missing")
    return whole.getvalue()
