"""The commands' source where the store's files are at hand, whether a relay runs on them or not."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from relay.cli.common import CommandFailed
from relay.cli.source import Filters, Json
from relay.store.find import find_slices, ids_that_begin
from relay.store.merge import open_readers
from relay.store.model import LaneCount, Selection
from relay.store.search_text import Found
from relay.web.query import event_selection, listing, parse_since, rfc3339

LOOK_EVERY_S = 0.2
MOST_NAMED = 5
"""ids that a message names, of those that begin alike"""


class Offline:
    """`close` it at the end. Nothing is locked."""

    def __init__(self, store: Path, config: Path) -> None:
        """`config`: the configuration's file. Raises StoreError, StoreDamaged."""
        self._store = store
        self._config = config
        self._reader = open_readers(store)

    def close(self) -> None:
        self._reader.close()

    def message(self, begin: str) -> Json | None:
        found = self._reader.get(begin)
        if found is not None or not begin:
            return found
        ids = ids_that_begin(self._reader, begin.upper(), MOST_NAMED + 1)
        return None if not ids else self._reader.get(only_one(begin, ids))

    def find(self, filters: Filters) -> Found:
        selection = self._selection(filters)
        if selection is None:
            return Found([])
        found: list[Mapping[str, object]] = []
        for some in find_slices(self._reader, selection):
            found += some.messages
            if len(found) >= selection.limit:
                break
        return Found(found[: selection.limit])

    def waiting(self, filters: Filters) -> tuple[Sequence[Json], Sequence[LaneCount]]:
        selection = self._selection(filters)
        return [] if selection is None else self._reader.waiting(selection), self._reader.counts()

    def report(self, since: str) -> Json:
        from relay.config.partial import find_objectives
        from relay.observe.report import build

        begin = parse_since(since, time.time())
        objectives = find_objectives(self._config, os.environ)
        within_s = {lane: one.within_s for lane, one in objectives.items()}
        built = build(self._reader.deliveries(begin, within_s), self._reader.reported(begin), objectives)
        return {"since": rfc3339(begin), **built.as_json()}

    def events(self, filters: Filters) -> Sequence[Json]:
        return self._reader.events(event_selection(filters, time.time()))

    def news(self) -> Iterator[Sequence[Json]]:
        news = self._reader.news()

        def follow() -> Iterator[Sequence[Json]]:
            while True:
                time.sleep(LOOK_EVERY_S)
                self._reader.add_new_files(self._store)
                yield news.take()

        return follow()

    def _selection(self, filters: Filters) -> Selection | None:
        """None: nothing is selected."""
        asked = listing(filters, time.time())
        if asked.id_begins is None:
            return asked.selection
        return asked.by_ids(ids_that_begin(self._reader, asked.id_begins, asked.selection.limit))


def only_one(begin: str, ids: Sequence[str]) -> str:
    """The one id that begins so. Raises CommandFailed where there are more."""
    if len(ids) == 1:
        return ids[0]
    named = ", ".join(ids[:MOST_NAMED])
    raise CommandFailed(f"several ids begin with {begin}: {named}{', ...' if len(ids) > MOST_NAMED else ''}")
