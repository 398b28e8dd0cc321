"""A connection to one of the relay's files that can't write: what every reader of a file begins with."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from relay.store.sqlite import files

T = TypeVar("T")


class ReadConnection:
    """Beside a running relay or without one. Each answer is of one moment of the file. Each method blocks, and raises
    StoreError. One thread at a time may use it."""

    def __init__(self, path: Path) -> None:
        """`path` has been checked. Raises StoreError."""
        self.path = path
        with files.explained(path):
            self._connection = files.connect_reader(path)

    def close(self) -> None:
        self._connection.close()

    def ask(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """What `read` returns, from one reading transaction."""
        with files.explained(self.path):
            self._connection.execute("BEGIN")
            try:
                return read(self._connection)
            finally:
                self._connection.execute("COMMIT")
