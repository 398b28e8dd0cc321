"""The schema: make a store file, migrate it, and connect its one writer."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from importlib import resources
from pathlib import Path

from relay.store.base import StoreError
from relay.store.sqlite import files
from relay.store.sqlite.files import APPLICATION_ID, check, connect, explained

_WRITER_CACHE_KIB = 8192
_NET_PAGES = 8000
"""SQLite checkpoints inside of a commit at this size of the log; `GroupWriter` does so earlier, outside of one."""
LOG_LIMIT_BYTES = 40_000_000
"""SQLite cuts the log to this when it uses it again after a long reader let it grow. Other mail doesn't reach it."""


def prepare(path: Path) -> None:
    """Make the file if there is none, check it if there is. The lock is held.

    Raises StoreDamaged if it isn't a store or is damaged, StoreError if it can't be read or made.
    """
    with explained(path):
        if not path.exists() or (path.is_file() and path.stat().st_size == 0):
            _create(path)
        else:
            check(path)


def _create(path: Path) -> None:
    """Make it under another name first, so that a file of this name is always complete."""
    new = path.with_name(path.name + ".new")
    for leftover in (new, new.with_name(new.name + "-journal")):
        leftover.unlink(missing_ok=True)
    create_private(new)
    with closing(sqlite3.connect(new, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        migrate(connection)
        connection.execute("PRAGMA journal_mode = WAL")
    new.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    os.fsync(directory)
    os.close(directory)


def create_private(path: Path) -> None:
    """An empty file for its owner only, whatever the umask; -wal and -shm take their mode from it. Raises OSError."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    os.fchmod(descriptor, 0o600)
    os.close(descriptor)


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the schema up to date, each step in a transaction with its version."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    for number, name in enumerate(files.MIGRATIONS[version:], start=version + 1):
        script = (resources.files("relay.store.sqlite") / "sql" / name).read_text()
        connection.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {number};\nCOMMIT;")


def connect_writer(path: Path, now: Callable[[], float] = time.time) -> sqlite3.Connection:
    """The one writing connection. Its commits are on the disk when they return (`synchronous = FULL`).

    `now`: the relay's clock, for the times of events.
    """
    connection = connect(f"{path.as_uri()}?mode=rw")
    try:
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise StoreError(f"{path}: this file system can't hold a write-ahead log (SQLite stays with '{mode}')")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute(f"PRAGMA cache_size = -{_WRITER_CACHE_KIB}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_NET_PAGES}")
        connection.execute(f"PRAGMA journal_size_limit = {LOG_LIMIT_BYTES}")
        migrate(connection)
        connection.create_function("relay_now", 0, now)
        # Says now if the file can't be written: SQLite opens such a one for reading and lets a transaction begin.
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(f"PRAGMA user_version = {len(files.MIGRATIONS)}")
        connection.execute("ROLLBACK")
    except BaseException:
        connection.close()
        raise
    return connection
