"""Split messages over several files: their parts are looked for in all of them, and shown as one message."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from relay.store.model import Selection
from relay.store.parts import by_entry, joined
from relay.store.sqlite import search
from relay.store.sqlite.reader import Reader
from relay.store.view import SPLIT, Json, entry_of


def rows_of(
    readers: Sequence[Reader], ask: Callable[[Reader, Selection], Sequence[Json]], selection: Selection
) -> Sequence[Sequence[Json]]:
    """What each file lists (`Reader.search`, `Reader.waiting`). Of a split message several parts may be selected: then
    more is asked for, until each file has given as many messages as are wanted, or all."""
    wanted = selection
    while True:
        rows = [ask(reader, wanted) for reader in readers]
        if all(len(some) < wanted.limit or len(by_entry(some)) >= selection.limit for some in rows):
            return rows
        wanted = wanted._replace(limit=2 * wanted.limit)


def whole(
    lookup_order: Sequence[Reader],
    rows: Sequence[Sequence[Json]],
    add_deliveries: Callable[[Sequence[Json]], None] | None = None,
    *,
    queue: bool = False,
) -> list[Json]:
    """The messages of these rows, each once and with all its parts. `lookup_order`: see `parts_in`. `add_deliveries`
    is called with all parts, each a message of its own. `queue`: the rows are of `Reader.waiting`."""
    messages = {str(message["id"]): message for some in rows for message in some}
    entries = {entry_of(message) for message in messages.values() if SPLIT in message}
    if entries:
        parts = parts_in(lookup_order, sorted(entries), queue=queue)
        messages |= {str(part["id"]): part for part in parts}
    if add_deliveries is not None:
        add_deliveries(list(messages.values()))
    return [joined(some) if SPLIT in some[0] else some[0] for some in by_entry(messages.values()).values()]


def parts_in(
    lookup_order: Sequence[Reader], entries: Sequence[str], *, attempts: bool = False, queue: bool = False
) -> list[Json]:
    """All parts of the split messages with these entries. `lookup_order`: the files in the order in which no message
    that moves meanwhile is missed; one that is in two of them is taken from the later one, where it goes to."""
    found: dict[str, Json] = {}
    seen: set[str] = set()
    for reader in lookup_order:
        again = reader.name in seen
        seen.add(reader.name)
        for part in reader.parts(entries, attempts=attempts, queue=queue):
            if not (again and part["id"] in found):
                found[str(part["id"])] = part
    return list(found.values())


def with_parts(lookup_order: Sequence[Reader], ids: Sequence[str]) -> Sequence[str]:
    """These ids, and those of all parts of the split messages among them."""
    entries = {entry for reader in lookup_order for entry in reader.ask(partial(search.entries, ids=ids))}
    look = partial(search.part_ids, entries=[*ids, *sorted(entries)])
    return list(dict.fromkeys([*ids, *(one for reader in lookup_order for one in reader.ask(look))]))
