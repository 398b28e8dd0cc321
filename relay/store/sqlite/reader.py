"""The synchronous reader of one store file: used by the commands directly, by the relay on a thread (`log.py`)."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

from relay.store.model import DeliveryRow, LaneCount, Selection
from relay.store.sqlite import files, search
from relay.store.view import Json

T = TypeVar("T")


class Reader:
    """A connection that can't write, beside a running relay or without one. Each answer is of one moment of the file.
    Each method blocks, and raises StoreError. One thread at a time may use it."""

    def __init__(self, path: Path) -> None:
        """`path` has been checked. Raises StoreError."""
        self._path = path
        with files.explained(path):
            self._connection = files.connect_reader(path)

    @property
    def name(self) -> str:
        """The file's."""
        return self._path.name

    @classmethod
    def open(cls, path: Path) -> Self:
        """Check the file first. Raises StoreError, StoreDamaged."""
        path = files.absolute(path)
        with files.explained(path):
            files.check(path)
        return cls(path)

    def close(self) -> None:
        self._connection.close()

    def ask(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """What `read` returns, from one reading transaction."""
        with files.explained(self._path):
            self._connection.execute("BEGIN")
            try:
                return read(self._connection)
            finally:
                self._connection.execute("COMMIT")

    def get(self, message_id: str) -> Json | None:
        return self.ask(partial(search.get, message_id=message_id))

    def search(self, selection: Selection) -> Sequence[Json]:
        return self.ask(partial(search.search, selection=selection))

    def waiting(self, selection: Selection) -> Sequence[Json]:
        return self.ask(partial(search.waiting, selection=selection))

    def counts(self) -> Sequence[LaneCount]:
        return self.ask(search.counts)

    def size(self) -> tuple[int, int]:
        """Open messages, and the bytes of their contents."""
        return self.ask(search.size)

    def delivery_slices(self, since: float) -> Iterator[Sequence[DeliveryRow]]:
        """`base.Log.deliveries`, a slice of the log at a time, each of its own moment: rows that are alike may come in
        several slices. The log may be long, and a long transaction would keep the write-ahead log from being reset."""
        begin: float | None = since
        while begin is not None:
            rows, begin = self.ask(partial(search.deliveries, since=begin))
            yield rows
