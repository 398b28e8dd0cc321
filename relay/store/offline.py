"""One view of a relay's several store files for a command: one question, asked here and now.

A command that only looks is as quick as what it loads, so there is no event loop and no thread.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from relay.store import merge
from relay.store.model import DeliveryRow, LaneCount, Selection
from relay.store.sqlite import search as sqlite_query
from relay.store.sqlite.files import absolute, check, connect_reader, explain

T = TypeVar("T")


class Look:
    """What `reading.Several` tells, without waiting for anybody. Each method raises StoreError."""

    def __init__(self, files: Sequence[_File]) -> None:
        self._files = files

    def get(self, message_id: str) -> Mapping[str, object] | None:
        for files in merge.turns(self._files):
            for file in files:
                if (message := file.ask(partial(sqlite_query.get, message_id=message_id))) is not None:
                    return message
        return None

    def search(self, selection: Selection) -> Sequence[Mapping[str, object]]:
        return merge.newest(self._each(partial(sqlite_query.search, selection=selection)), selection.limit)

    def waiting(self, selection: Selection) -> Sequence[Mapping[str, object]]:
        return merge.earliest_due(self._each(partial(sqlite_query.waiting, selection=selection)), selection.limit)

    def counts(self) -> Sequence[LaneCount]:
        return merge.added(self._each(sqlite_query.counts))

    def deliveries(self, since: float) -> Sequence[DeliveryRow]:
        return merge.joined([file.deliveries(since) for file in self._files])

    def _each(self, read: Callable[[sqlite3.Connection], T]) -> Sequence[T]:
        return [file.ask(read) for file in self._files]


class _File(NamedTuple):
    path: Path
    connection: sqlite3.Connection

    def ask(self, read: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return sqlite_query.at_one_moment(read, self.connection)
        except (sqlite3.Error, OSError) as error:
            raise explain(self.path, error) from error

    def deliveries(self, since: float) -> Sequence[DeliveryRow]:
        tally = sqlite_query.Tally(since)
        while tally.begin is not None:
            tally.add(*self.ask(partial(sqlite_query.deliveries, since=tally.begin)))
        return tally.rows()


@contextmanager
def look_at(store: Path) -> Iterator[Look]:
    """A store with all its workers' files, beside a running relay or without one. Raises StoreError, StoreDamaged."""
    with ExitStack() as stack:
        files: list[_File] = []
        for path in map(absolute, (store, *merge.shards(store))):
            files.append(_File(path, stack.enter_context(closing(_connected(path)))))  # noqa: PERF401 - for the stack
        yield Look(files)


def _connected(path: Path) -> sqlite3.Connection:
    try:
        check(path)
        return connect_reader(path)
    except (sqlite3.Error, OSError) as error:
        raise explain(path, error) from error
