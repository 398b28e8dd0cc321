"""A relay's several store files, and how what is read of each becomes one view. Pure but for looking which are there.

A message that moves is taken in there before it is forgotten here, in two commits a few milliseconds apart. The main
file is read before the others, so what goes to a worker is in one of the two, or in both: listings show it once,
`added` may count it twice in that moment. A worker's bounce, which goes the other way, may be in neither reading of a
listing or a count; it is there at the next. A process has one message at a time under way so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from relay.store.model import DeliveryRow, LaneCount, State
from relay.store.sqlite.files import explain

File = TypeVar("File")
Json = Mapping[str, object]


def shard(store: Path, number: int) -> Path:
    """The file of the worker of that number (from 1), beside the main store."""
    return store.with_name(f"{store.stem}-bulk{number}{store.suffix}")


def shards(store: Path) -> Sequence[Path]:
    """The workers' files that are there, in order. Raises StoreError where that can't be seen."""
    found: list[Path] = []
    try:
        while shard(store, len(found) + 1).exists():
            found.append(shard(store, len(found) + 1))
    except OSError as error:
        raise explain(store, error) from error
    return found


def turns(files: Sequence[File]) -> Sequence[Sequence[File]]:
    """Which files are asked for a single message, and after them which, until one has it: the main one (the first of
    `files`), the others, and the main one once more, where a worker's bounce may have come meanwhile."""
    main, *others = files
    return (main,), others, (main,)


def newest(lists: Iterable[Iterable[Json]], limit: int) -> Sequence[Json]:
    """Messages of all files, each once, newest first."""
    messages = _by_id(lists)
    return [messages[message_id] for message_id in sorted(messages, reverse=True)[:limit]]


def earliest_due(lists: Iterable[Iterable[Json]], limit: int) -> Sequence[Json]:
    """Messages of all files, each once, as their recipients' `next_at` come; those that have none last."""
    return sorted(_by_id(lists).values(), key=_due)[:limit]


def added(lists: Iterable[Iterable[LaneCount]]) -> Sequence[LaneCount]:
    """One row for each lane and state, as old as the oldest."""
    sums: dict[tuple[str, State], LaneCount] = {}
    for row in (row for rows in lists for row in rows):
        before = sums.get((row.lane, row.state))
        if before is not None:
            oldest = [at for at in (before.oldest_at, row.oldest_at) if at is not None]
            row = LaneCount(row.lane, row.state, before.recipients + row.recipients, min(oldest, default=None))
        sums[row.lane, row.state] = row
    return list(sums.values())


def joined(lists: Iterable[Iterable[DeliveryRow]]) -> Sequence[DeliveryRow]:
    """One behind the other: a report adds up what is alike."""
    return [row for rows in lists for row in rows]


def _by_id(lists: Iterable[Iterable[Json]]) -> dict[str, Json]:
    return {str(message["id"]): message for messages in lists for message in messages}


def _due(message: Json) -> tuple[str, str]:
    recipients = cast(Sequence[Mapping[str, Any]], message["recipients"])
    return min((str(one["next_at"]) for one in recipients if one.get("next_at")), default="~"), str(message["id"])
