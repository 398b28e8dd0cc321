"""Searches that no index answers, over all files of a relay: the log is read newest first, a window at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from relay.store.merge import MergedReader
from relay.store.model import Selection
from relay.store.search_text import Found


def find_slices(reader: MergedReader, selection: Selection) -> Iterator[Found]:
    """As `MergedReader.search`, also by `text` and `states`. Each slice is of one window, newest first, and so are all
    of them together. `searched_since`: when the window begins; None: it is the last one. Raises StoreError."""
    if selection.text is None and not selection.states:
        yield Found(reader.search(selection))
        return
    end = math.inf if selection.until is None else selection.until
    since = -math.inf if selection.since is None else selection.since
    while True:
        # By their ids messages are found at once, in one window.
        begins = [] if selection.ids else [each.begin_of_window(end) for each in reader.readers()]
        begin = max([since, *(found for found in begins if found is not None)])
        found = reader.whole([each.search_window(selection, begin, end) for each in reader.readers()])
        yield Found(found, begin if begin > since else None)
        if begin <= since:
            return
        end = begin


def ids_that_begin(reader: MergedReader, begin: str, limit: int) -> Sequence[str]:
    """The ids of messages that begin so, newest first, of a part of a split one too; `limit` at most. Raises
    StoreError."""
    found = {one for each in reader.readers() for one in each.ids_that_begin(begin, limit)}
    return sorted(found, reverse=True)[:limit]
