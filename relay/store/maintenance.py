"""Check, back up and compact all files of a store, those of the bulk processes too: `otp-relay store`. Blocking."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from relay.store.base import StoreError
from relay.store.merge import shard, shards
from relay.store.sqlite import events_maintenance, integrity, maintenance, transfer
from relay.store.sqlite import files as sqlite_file
from relay.store.sqlite.events_schema import events_path

_SNAPSHOT_TRIES = 200


def files(store: Path) -> Sequence[Path]:
    """The main file, then those of the bulk processes."""
    return (sqlite_file.absolute(store), *shards(sqlite_file.absolute(store)))


def check(store: Path) -> Mapping[Path, Sequence[str]]:
    """What is wrong with each file, a line each. Also beside a running relay. Raises StoreError, StoreDamaged where
    one can't even be opened."""
    found: dict[Path, Sequence[str]] = {}
    for path in files(store):
        integrity.verify_if_unlocked(path)
        found[path] = maintenance.check(path)
    if (events := events_path(files(store)[0])).exists():
        found[events] = events_maintenance.check(events)
    return found


def backup(store: Path, destination: Path) -> Mapping[Path, int]:
    """Copy all files into new ones (0600): the main one to `destination`, the others beside it, by the names that
    a store of that name has. Also beside a running relay; the size in bytes of each copy.

    Each copy is its file at one moment. The moments differ by less than a millisecond, and a message that moved from
    one file to another between them is in at least one copy. Raises StoreError, also when one of the copies exists;
    then nothing is left.
    """
    sources = files(store)
    copies = (destination, *(shard(destination, number) for number in range(1, len(sources))))
    for copy in (*copies, events_path(destination)):
        try:
            there = copy.exists()
        except OSError as error:
            raise StoreError(f"{copy}: {error.strerror}") from error
        if there:
            raise StoreError(f"{copy}: exists already")
    with snapshots(sources) as connections, ExitStack() as undo:
        sizes = {}
        for copy, source in zip(copies, connections, strict=True):
            sizes[copy] = maintenance.copy(source, copy)
            undo.callback(copy.unlink)
        if (events := events_path(sources[0])).exists():
            copied = events_path(destination)
            sizes[copied] = events_maintenance.copy(events, copied)
            undo.callback(copied.unlink)
        sync_folder(destination.absolute().parent)
        undo.pop_all()
    return sizes


@contextmanager
def snapshots(paths: Sequence[Path]) -> Iterator[Sequence[sqlite3.Connection]]:
    """A reading transaction on each file in which every message is found that was in one of them when it began.
    Raises StoreError.

    A message that moves is committed where it goes before it is deleted where it was, so only one that was deleted
    between two of the reads can be missed. Each file counts those it deleted: the counts are taken from all files
    before the first transaction begins and again in each transaction, and all is begun again while they differ.
    """
    with ExitStack() as stack:
        with sqlite_file.explained(paths[0]):
            readers = [stack.enter_context(closing(maintenance.connect_for_copy(path))) for path in paths]
            for _ in range(_SNAPSHOT_TRIES):
                before = [transfer.transfer_count(reader) for reader in readers]
                for reader in readers:
                    reader.execute("BEGIN")
                # The transactions begin with this read.
                if before == [transfer.transfer_count(reader) for reader in readers]:
                    break
                for reader in readers:
                    reader.execute("ROLLBACK")
            else:
                raise StoreError(f"{paths[0]}: too much moves between its files just now; try again")
        yield readers


def compact(store: Path) -> Mapping[Path, tuple[int, int]]:
    """Rewrite all files without their free pages; the size in bytes of each before and after. No relay may be
    running: raises StoreError then."""
    paths = files(store)
    with ExitStack() as stack:
        for path in paths:  # all of them first: no relay begins in between
            stack.callback(os.close, sqlite_file.lock(path))
        compacted = {path: maintenance.compact(path) for path in paths}
        if (events := events_path(paths[0])).exists():
            compacted[events] = events_maintenance.compact(events)
        return compacted


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
