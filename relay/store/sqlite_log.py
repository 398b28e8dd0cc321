"""The write-ahead log's upkeep: moved into the file now and then, emptied of what was wiped, and never cut off.

A log that grows, or that was cut and grows again, makes every commit write the file's size to the disk too, which on
ext4 goes through the file system's journal: 0.6 ms rather than 0.4 where nobody else writes, and 7 ms (p90) where
somebody does. So the log is laid out in full once, and emptied by overwriting it with zeros: SQLite ends its reading of
a log at the first frame that isn't one (sqlite.org/fileformat2.html, 4.1).
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOG_BYTES = 4_194_304
"""What is laid out: what is written between two of an idle store's checkpoints (`group`)."""
_CHUNK_BYTES = 65_536
_ZEROS = bytes(_CHUNK_BYTES)

_LOG = logging.getLogger(__name__)


def lay_out(connection: sqlite3.Connection) -> None:
    """Make the log as long as it will be, behind what it holds; where the disk has no room for that, it grows as it
    can. Raises sqlite3.Error."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        with _opened(connection) as log:
            for at in range(os.fstat(log).st_size, LOG_BYTES, _CHUNK_BYTES):
                os.pwrite(log, _ZEROS[: LOG_BYTES - at], at)
            os.fsync(log)
        _write_something(connection)
        connection.execute("COMMIT")
    except OSError as error:
        _LOG.warning("the store could not lay out its log: %s", error)
    finally:
        _roll_back(connection)


def checkpoint(connection: sqlite3.Connection) -> None:
    """Move the log into the file, as far as nobody reads it."""
    try:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    except sqlite3.Error as error:
        # A full disk, say. Nothing is lost: all of it is in the log, and the next checkpoint tries again.
        _LOG.warning("the store could not move its log into its file: %s", error)


def empty(connection: sqlite3.Connection) -> bool:
    """Move the log into the file, if nobody reads from it just now, and overwrite it with zeros: False where that
    can't be. Nobody is waited for: a message may come."""
    query = connection.execute
    (waits_ms,) = query("PRAGMA busy_timeout").fetchone()
    try:
        query("PRAGMA busy_timeout = 0").fetchall()
        before = query("PRAGMA data_version").fetchone()
        # From here on every reader reads the file alone, and the next commit begins the log anew.
        busy, _, _ = query("PRAGMA wal_checkpoint(RESTART)").fetchone()
        if busy:
            return False
        query("BEGIN IMMEDIATE")
        if query("PRAGMA data_version").fetchone() != before:
            # A stranger wrote in between: that stands in the log alone.
            query("ROLLBACK")
            return False
        with _opened(connection) as log:
            _overwrite(log)
        _write_something(connection)
        query("COMMIT")
    except (sqlite3.Error, OSError) as error:
        _roll_back(connection)
        _LOG.warning("the store could not empty its log: %s", error)
        return False
    finally:
        query(f"PRAGMA busy_timeout = {waits_ms}").fetchall()
    return True


def _write_something(connection: sqlite3.Connection) -> None:
    """A log's first commit syncs its header besides: no message should be that one."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    connection.execute(f"PRAGMA user_version = {version}")


@contextmanager
def _opened(connection: sqlite3.Connection) -> Iterator[int]:
    """SQLite holds no locks on the log itself: closing a descriptor of it gives none away."""
    (path,) = (path for _, name, path in connection.execute("PRAGMA database_list") if name == "main")
    descriptor = os.open(Path(f"{path}-wal"), os.O_RDWR | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _overwrite(log: int) -> None:
    """What is zero is left alone, so that only what was used is written; what bulk mail made it grow by goes.

    The header goes first and is synced: a crash that left it, and only some of the frames behind it, would have SQLite
    take those, which are older, for the truth over what is in the file.
    """
    os.pwrite(log, _ZEROS, 0)
    os.fdatasync(log)
    if os.fstat(log).st_size > LOG_BYTES:
        os.ftruncate(log, LOG_BYTES)
    for at in range(_CHUNK_BYTES, os.fstat(log).st_size, _CHUNK_BYTES):
        found = os.pread(log, _CHUNK_BYTES, at)
        if found != _ZEROS[: len(found)]:
            os.pwrite(log, _ZEROS[: len(found)], at)
    os.fdatasync(log)


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        connection.execute("ROLLBACK")
