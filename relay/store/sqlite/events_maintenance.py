"""Check, copy and compact the events file. Blocking."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from relay.store.base import StoreDamaged
from relay.store.sqlite import files, maintenance
from relay.store.sqlite.events_schema import APPLICATION_ID, connect_events_writer


def check(path: Path) -> Sequence[str]:
    """What is wrong with it, a line each. Also beside a running relay. Raises StoreError, StoreDamaged."""
    with files.explained(path), closing(files.connect_reader(path)) as connection:
        (found,) = connection.execute("PRAGMA application_id").fetchone()
        if found != APPLICATION_ID:
            raise StoreDamaged(f"{path}: not an events file of otp-relay")
        return [line for (line,) in connection.execute("PRAGMA integrity_check") if line != "ok"]


def copy(path: Path, destination: Path) -> int:
    """Copy it as it is now; the copy's size in bytes. Raises StoreError."""
    with files.explained(path), closing(files.connect_reader(path)) as connection:
        return maintenance.copy(connection, destination)


def compact(path: Path) -> tuple[int, int]:
    """Rewrite it without its free pages; its size in bytes before and after. No relay may be running. Raises
    StoreError, StoreDamaged."""
    before = path.stat().st_size
    with closing(connect_events_writer(path)) as connection, files.explained(path):
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return before, path.stat().st_size
