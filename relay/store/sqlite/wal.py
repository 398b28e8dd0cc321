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
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOG_BYTES = 4_194_304
"""What is laid out: what is written between two of an idle store's checkpoints (`group`)."""
_CHUNK_BYTES = 65_536
_ZEROS = bytes(_CHUNK_BYTES)
_HEADER_BYTES, _FRAME_HEADER_BYTES = 32, 24
_PAGE_BYTES, _PAGE_BYTES_AT = struct.Struct(">I"), 8
_SALT_AT, _FRAME_SALT_AT = 16, 8

_LOG = logging.getLogger(__name__)


def lay_out(connection: sqlite3.Connection) -> None:
    """Make the log as long as it will be, behind what it holds; where the disk has no room for that, it grows as it
    can, and the start goes on."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        with _opened(connection) as log:
            found_bytes = os.fstat(log).st_size
            try:
                for at in range(found_bytes, LOG_BYTES, _CHUNK_BYTES):
                    os.pwrite(log, _ZEROS[: LOG_BYTES - at], at)
            except OSError:
                os.ftruncate(log, found_bytes)  # somebody needs the room more
                raise
            finally:
                os.fsync(log)
        _write_something(connection)
        connection.execute("COMMIT")
    except (sqlite3.Error, OSError) as error:
        _LOG.warning("the store could not lay out its log: %s", error)
    finally:
        roll_back(connection)


def checkpoint(connection: sqlite3.Connection) -> None:
    """Move the log into the file, as far as nobody reads it."""
    try:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    except sqlite3.Error as error:
        # A full disk, say. Nothing is lost: all of it is in the log, and the next checkpoint tries again.
        _LOG.warning("the store could not move its log into its file: %s", error)


def empty(connection: sqlite3.Connection) -> bool:
    """Move the log into the file, if nobody reads from it just now, and overwrite what it held: False where that can't
    be. Nobody is waited for: a message may come."""
    query = connection.execute
    (waits_ms,) = query("PRAGMA busy_timeout").fetchone()
    try:
        query("PRAGMA busy_timeout = 0").fetchall()
        return _empty(connection)
    except (sqlite3.Error, OSError) as error:
        _LOG.warning("the store could not empty its log: %s", error)
        return False
    finally:
        roll_back(connection)
        query(f"PRAGMA busy_timeout = {waits_ms}").fetchall()


def _empty(connection: sqlite3.Connection) -> bool:
    """In an order in which the log is right at every moment: its header is never touched. SQLite writes a new one, with
    another salt, and syncs it; the old frames then belong to no log, and are overwritten."""
    query = connection.execute
    version = query("PRAGMA data_version").fetchone()
    with _opened(connection) as log:
        salt = _salt(log)
        busy, _, _ = query("PRAGMA wal_checkpoint(RESTART)").fetchone()
        if busy:
            return False
        query("BEGIN IMMEDIATE")
        _write_something(connection)
        query("COMMIT")
        query("BEGIN IMMEDIATE")  # nobody writes while we do
        # A reader that began just then keeps SQLite from beginning anew, and it goes on behind what is there.
        if _salt(log) == salt or query("PRAGMA data_version").fetchone() != version:
            return False
        _overwrite(log, _end_of_frames(log))
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


def _salt(log: int) -> bytes:
    return os.pread(log, 8, _SALT_AT)


def _end_of_frames(log: int) -> int:
    """Where the frames of the present log end: those have its salt (sqlite.org/fileformat2.html, 4.1)."""
    (page_bytes,) = _PAGE_BYTES.unpack(os.pread(log, _PAGE_BYTES.size, _PAGE_BYTES_AT))
    salt, at = _salt(log), _HEADER_BYTES
    while os.pread(log, 8, at + _FRAME_SALT_AT) == salt:
        at += _FRAME_HEADER_BYTES + page_bytes
    return at


def _overwrite(log: int, start: int) -> None:
    """What is zero is left alone, so that only what was used is written; what bulk mail made it grow by goes."""
    if os.fstat(log).st_size > LOG_BYTES:
        os.ftruncate(log, LOG_BYTES)
    for at in range(start, os.fstat(log).st_size, _CHUNK_BYTES):
        found = os.pread(log, _CHUNK_BYTES, at)
        if found != _ZEROS[: len(found)]:
            os.pwrite(log, _ZEROS[: len(found)], at)
    os.fdatasync(log)


def roll_back(connection: sqlite3.Connection) -> None:
    """SQLite rolls back by itself after some errors (a full disk), and not after others."""
    if connection.in_transaction:
        try:
            connection.execute("ROLLBACK")
        except sqlite3.Error:
            _LOG.warning("the store could not roll back", exc_info=True)
