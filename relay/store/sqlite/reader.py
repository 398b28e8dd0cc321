"""The synchronous reader of one store file: used by the commands directly, by the relay on a thread (`log.py`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Self

from relay.store.model import DeliveryRow, LaneCount, ReportedRow, Selection
from relay.store.sqlite import files, report_rows, search, windows
from relay.store.sqlite.read_connection import ReadConnection
from relay.store.view import Json


class Reader(ReadConnection):
    """What one store file shows. Parts of split messages are messages here: `MergedReader` joins them."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._has_events = False
        """the events file is attached"""

    @property
    def name(self) -> str:
        """The file's."""
        return self.path.name

    @classmethod
    def open(cls, path: Path) -> Self:
        """Check the file first. Raises StoreError, StoreDamaged."""
        path = files.absolute(path)
        with files.explained(path):
            files.check(path)
        return cls(path)

    def get(self, message_id: str) -> Json | None:
        return self.ask(partial(search.get, message_id=message_id))

    def search(self, selection: Selection) -> Sequence[Json]:
        return self.ask(partial(search.search, selection=selection))

    def ids_that_begin(self, begin: str, limit: int) -> Sequence[str]:
        """The ids of messages that begin so."""
        return self.ask(partial(search.ids_that_begin, begin=begin, limit=limit))

    def begin_of_window(self, end: float) -> float | None:
        """See `windows.begin_of_window`."""
        return self.ask(partial(windows.begin_of_window, end=end))

    def search_window(self, selection: Selection, begin: float, end: float) -> Sequence[Json]:
        """See `windows.search_window`."""
        return self.ask(partial(windows.search_window, selection=selection, begin=begin, end=end))

    def waiting(self, selection: Selection) -> Sequence[Json]:
        return self.ask(partial(search.waiting, selection=selection))

    def parts(self, entries: Sequence[str], *, attempts: bool, queue: bool) -> Sequence[Json]:
        """The parts in this file of the split messages whose entries have these ids, as `get`, `search` or (`queue`)
        `waiting` shows them."""
        return self.ask(partial(search.parts, entries=entries, attempts=attempts, queue=queue))

    def counts(self) -> Sequence[LaneCount]:
        return self.ask(search.counts)

    def size(self) -> tuple[int, int]:
        """Open messages, and the bytes of their contents."""
        return self.ask(search.size)

    def delivery_slices(
        self, since: float, objectives: Mapping[str, float] | None = None, events: Path | None = None
    ) -> Iterator[Sequence[DeliveryRow]]:
        """`base.Log.deliveries`, a slice of the log at a time, each of its own moment: rows that are alike may come in
        several slices. The log may be long, and a long transaction would keep the write-ahead log from being reset.
        `events`: the events file, which is checked; None: there is none."""
        if events is not None and not self._has_events:
            with files.explained(events):
                uri = f"{events.absolute().as_uri()}?mode=ro"
                self._connection.execute(f"ATTACH ? AS {report_rows.EVENTS}", (uri,))
            self._has_events = True
        begin: float | None = since
        while begin is not None:
            read = partial(report_rows.deliveries, objectives=objectives or {}, with_events=self._has_events)
            rows, begin = self.ask(partial(read, since=begin))
            yield rows

    def reported_slices(self, since: float) -> Iterator[Sequence[ReportedRow]]:  # noqa: ARG002
        """What ESPs reported isn't in this file."""
        return iter(())
