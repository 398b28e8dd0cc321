"""The files of one relay, the main one and those of its bulk processes, read as one log.

A message that moves is written in the one file before it is deleted in the other, in two commits a few milliseconds
apart. The main file is read before the others, so a message that moves to a worker is found in one of them or in both:
listings show it once, `merge_counts` may count it twice at that moment. A worker's bounce moves the other way. A
listing or a count may miss it; the next has it. A process moves one message at a time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from relay.mail.mailbox_provider import provider_of_domain
from relay.store.events import EventSelection
from relay.store.model import DeliveryRow, LaneCount, ReportedRow, Selection, State
from relay.store.parts import joined
from relay.store.sqlite import relay_events
from relay.store.sqlite.files import explained
from relay.store.sqlite.reader import Reader
from relay.store.sqlite.split import parts_in, rows_of, whole, with_parts
from relay.store.timeline import News, TimeLines
from relay.store.view import SPLIT, Json, entry_of

T = TypeVar("T")


def shard(store: Path, number: int) -> Path:
    """The file of the worker of that number (from 1), beside the main store."""
    return store.with_name(f"{store.stem}-bulk{number}{store.suffix}")


def shards(store: Path) -> Sequence[Path]:
    """The workers' files that exist, in order. Raises StoreError where that can't be seen."""
    found: list[Path] = []
    with explained(store):
        while shard(store, len(found) + 1).exists():
            found.append(shard(store, len(found) + 1))
    return found


class MergedReader:
    """Several files read as one: a `Reader` over all of them. Each method blocks, and raises StoreError."""

    def __init__(self, main: Reader, others: Iterable[Reader] = (), lines: TimeLines | None = None) -> None:
        """`lines`: what ESPs reported; None: nothing."""
        self._main = main
        self._others = tuple(others)
        self._lines = lines

    def add(self, reader: Reader) -> None:
        """Read that file from now on, too. Any thread may call it."""
        self._others = (*self._others, reader)

    def add_new_files(self, store: Path) -> None:
        """Read the files of workers that came since this one was opened, too. Blocks; raises StoreError."""
        known = {reader.name for reader in self.readers()}
        for path in shards(store):
            if path.name not in known:
                self.add(Reader.open(path))

    def close(self) -> None:
        for reader in self.readers():
            reader.close()
        if self._lines is not None:
            self._lines.close()

    def get(self, message_id: str) -> Json | None:
        found = (reader.get(message_id) for reader in self._lookup_order())
        message = next((one for one in found if one is not None), None)
        if message is not None and SPLIT not in message:
            return self._completed(message)
        # The entry of a split message may be deleted before the last of its parts.
        entry = message_id if message is None else entry_of(message)
        parts = parts_in(self._lookup_order(), [entry], attempts=True)
        return joined([self._completed(part) for part in parts]) if parts else None

    def _completed(self, message: Json) -> Json:
        return message if self._lines is None else self._lines.complete(message, self.readers())

    def _lookup_order(self) -> Sequence[Reader]:
        """The main file, the others, and the main one once more: a worker's bounce may have moved there meanwhile."""
        return (self._main, *self._others, self._main) if self._others else (self._main,)

    def search(self, selection: Selection) -> Sequence[Json]:
        rows = rows_of(self.readers(), Reader.search, selection)
        return self.whole(rows)[: selection.limit]

    def whole(self, rows: Sequence[Sequence[Json]]) -> list[Json]:
        """The messages of what each file lists, newest first, each once and with all its parts."""
        add_deliveries = self._lines.add_deliveries if self._lines is not None else None
        found = whole(self._lookup_order(), rows, add_deliveries)
        return _newest(found) if self._others else found

    def with_parts(self, ids: Sequence[str]) -> Sequence[str]:
        """`base.Log.with_parts`."""
        return with_parts(self._lookup_order(), ids)

    def events(self, selection: EventSelection) -> Sequence[Json]:
        """The events selected, of the relay and of ESPs, oldest first."""
        return self._lines.search(selection, self.readers()) if self._lines is not None else []

    def news(self) -> News:
        """What happens from now on."""
        assert self._lines is not None
        return News(self._lines, lambda: {reader.name: reader for reader in self.readers()})

    def readers(self) -> Sequence[Reader]:
        """Of each file, the main one first."""
        return (self._main, *self._others)

    def waiting(self, selection: Selection) -> Sequence[Json]:
        found = whole(self._lookup_order(), rows_of(self.readers(), Reader.waiting, selection), queue=True)
        return (_earliest_due(found) if self._others else found)[: selection.limit]

    def counts(self) -> Sequence[LaneCount]:
        return merge_counts(reader.counts() for reader in self.readers())

    def delivery_slices(
        self, since: float, objectives: Mapping[str, float] | None = None
    ) -> Iterator[Sequence[DeliveryRow]]:
        """See `Reader.delivery_slices`."""
        esp = self._lines.esp if self._lines is not None else None
        for reader in self.readers():
            yield from reader.delivery_slices(since, objectives, None if esp is None else esp.path)

    def reported_slices(self, since: float) -> Iterator[Sequence[ReportedRow]]:
        """`base.Log.reported`, a slice of the events at a time."""
        esp = self._lines.esp if self._lines is not None else None
        if esp is not None:
            yield from esp.reported_slices(since)

    def deliveries(self, since: float, objectives: Mapping[str, float] | None = None) -> Sequence[DeliveryRow]:
        return DeliveryTally().of(self.delivery_slices(since, objectives))

    def reported(self, since: float) -> Sequence[ReportedRow]:
        return ReportedTally().of(self.reported_slices(since))


def open_readers(store: Path) -> MergedReader:
    """A reader of the main file and every worker's. Raises StoreError, StoreDamaged."""
    with ExitStack() as undo:
        readers: list[Reader] = []
        for path in (store, *shards(store)):
            readers.append(Reader.open(path))
            undo.callback(readers[-1].close)
        undo.pop_all()
    return MergedReader(readers[0], readers[1:], TimeLines(store))


def newest_events(store: Path) -> Mapping[str, int]:
    """The number of the newest event in each file, by the file's name. Raises StoreError."""
    found: dict[str, int] = {}
    for path in (store, *shards(store)):
        with closing(Reader.open(path)) as reader:
            found[path.name] = reader.ask(relay_events.last)
    return found


@contextmanager
def open_offline(store: Path) -> Iterator[MergedReader]:
    """`open_readers` for one command: no event loop, no thread. Raises StoreError, StoreDamaged."""
    with closing(open_readers(store)) as reader:
        yield reader


def merge_counts(lists: Iterable[Iterable[LaneCount]]) -> Sequence[LaneCount]:
    """One row for each lane and state, as old as the oldest."""
    sums: dict[tuple[str, State], LaneCount] = {}
    for row in (row for rows in lists for row in rows):
        before = sums.get((row.lane, row.state))
        if before is not None:
            oldest = [at for at in (before.oldest_at, row.oldest_at) if at is not None]
            row = LaneCount(row.lane, row.state, before.recipients + row.recipients, min(oldest, default=None))
        sums[row.lane, row.state] = row
    return list(sums.values())


class Tally(ABC, Generic[T]):
    """Sums up rows that are alike but for their number of recipients."""

    def __init__(self) -> None:
        self._sums: Counter[T] = Counter()
        """by the row without its recipients"""

    @abstractmethod
    def add(self, rows: Iterable[T]) -> None: ...

    @abstractmethod
    def rows(self) -> Sequence[T]: ...

    def of(self, slices: Iterable[Iterable[T]]) -> Sequence[T]:
        """The rows of all slices, summed up."""
        for rows in slices:
            self.add(rows)
        return self.rows()


class DeliveryTally(Tally[DeliveryRow]):
    def add(self, rows: Iterable[DeliveryRow]) -> None:
        for row in rows:
            name = provider_of_domain(row.provider)  # older files have the main domain
            self._sums[row._replace(provider=name, recipients=0)] += row.recipients

    def rows(self) -> Sequence[DeliveryRow]:
        return [row._replace(recipients=recipients) for row, recipients in self._sums.items()]


class ReportedTally(Tally[ReportedRow]):
    def add(self, rows: Iterable[ReportedRow]) -> None:
        for row in rows:
            self._sums[row._replace(recipients=0)] += row.recipients

    def rows(self) -> Sequence[ReportedRow]:
        return [row._replace(recipients=recipients) for row, recipients in self._sums.items()]


def _newest(messages: Iterable[Json]) -> list[Json]:
    return sorted(messages, key=lambda message: (str(message["accepted_at"]), str(message["id"])), reverse=True)


def _earliest_due(messages: Iterable[Json]) -> list[Json]:
    """In order of their recipients' `next_at`; those that have none last."""
    return sorted(messages, key=_due)


def _due(message: Json) -> tuple[str, str]:
    recipients = cast(Sequence[Mapping[str, Any]], message["recipients"])
    return min((str(one["next_at"]) for one in recipients if one.get("next_at")), default="~"), str(message["id"])
