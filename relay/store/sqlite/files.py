"""The store's file: checked, locked, connected to for reading. `schema.py` makes it and connects the writer."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from relay.store.base import StoreDamaged, StoreError, StoreFull

APPLICATION_ID = 0x4F545052
"""`OTPR`, in the file's header: tells a store from any other SQLite file."""
MIGRATIONS = ("1.sql", "2.sql", "3.sql", "4.sql", "5.sql", "6.sql", "7.sql", "8.sql")
"""Schema steps in `sql/`: the n-th leads from version n-1 to n. A landed one never changes."""
PARTS_SINCE_VERSION = 7
"""of the schema: messages have `part_of` and `places`"""
TRACE_SINCE_VERSION = 8
"""of the schema: messages have `trace`"""

_CACHED_STATEMENTS = 256
"""the writer has some for each number of rows (`put.insert_rows`)"""
_BUSY_S = 5.0
"""Only another program (a shell, a backup tool) can hold SQLite's own lock, and not for long."""


def explain(path: Path, error: Exception) -> Exception:
    """The store's own error for what SQLite or the system raised; any other error as it is."""
    if isinstance(error, StoreError):
        return error
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            return StoreFull(f"{path}: the disk is full")
        if code == sqlite3.SQLITE_NOTADB:
            return StoreDamaged(f"{path}: not a store of otp-relay")
        if code == sqlite3.SQLITE_CORRUPT:
            return StoreDamaged(f"{path}: damaged: {error}")
        return StoreError(f"{path}: {error}")
    if isinstance(error, OSError):
        return StoreError(f"{path}: {error.strerror or error}")
    return error


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """What SQLite or the system raises within becomes a StoreError, as `explain` has it."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise explain(path, error) from error


def is_denial(error: BaseException | None) -> bool:
    """Is a missing right the likely cause? To SQLite other causes look the same."""
    while error is not None:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if isinstance(error, PermissionError) or code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
            return True
        error = error.__cause__
    return False


def absolute(path: Path) -> Path:
    """The path without symbolic links: -wal, -shm and the lock lie beside the file itself."""
    return path.resolve()


def lock(path: Path) -> int:
    """Lock the store for this process, until the descriptor is closed. Raises StoreError if another process has it."""
    lock_path = _lock_path(path)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        reason = "not a folder" if isinstance(error, FileExistsError) else error.strerror
        raise StoreError(f"{error.filename}: {reason}") from error
    try:
        descriptor = _open_lock(lock_path, os.O_RDWR | os.O_CREAT)
    except FileNotFoundError as error:
        raise StoreError(f"{lock_path}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError as error:
        pid = _written_pid(descriptor)
        os.close(descriptor)
        raise StoreError(f"{path}: in use by another relay (pid {pid})") from error
    except OSError as error:
        os.close(descriptor)
        raise StoreError(f"{lock_path}: {error.strerror}") from error
    return descriptor


def holder(path: Path) -> str | None:
    """The pid of the relay that has locked the store, or `unknown`; None: no relay runs on it. Raises StoreError if the
    lock file can't be read."""
    lock_path = _lock_path(absolute(path))
    try:
        descriptor = _open_lock(lock_path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # given back at once: closing does it
    except BlockingIOError:
        return _written_pid(descriptor)
    except OSError as error:
        raise StoreError(f"{lock_path}: {error.strerror}") from error
    finally:
        os.close(descriptor)
    return None


def _lock_path(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def _open_lock(path: Path, flags: int) -> int:
    """Open a lock file of the relay's own. It is written to, so a link that another user made is refused. Raises
    StoreError, FileNotFoundError."""
    try:
        descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise StoreError(f"{path}: a symbolic link; remove it") from error
        raise explain(path, error) from error
    found = os.fstat(descriptor)
    # Its folder's owner can put anything there, and root looks after the stores of others.
    owners = {0, os.geteuid(), path.parent.stat().st_uid}
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1 or found.st_uid not in owners:
        os.close(descriptor)
        raise StoreError(f"{path}: not a file of the relay's own (owner {found.st_uid}); remove it")
    return descriptor


def _written_pid(descriptor: int) -> str:
    return os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"


def check(path: Path) -> None:
    """Check that it is a store of a known version, without writing. Raises StoreError, StoreDamaged, sqlite3.Error.

    The file is only ever opened through SQLite: closing another descriptor of it would drop the locks of every
    connection that this process has on it (POSIX locks).
    """
    if not path.exists():
        raise StoreError(f"{path}: there is no store")
    if not path.is_file():
        raise StoreDamaged(f"{path}: not a file")
    log = path.with_name(path.name + "-wal")
    try:
        # `immutable`: SQLite makes no -wal and -shm beside a file that may not be a store.
        with closing(sqlite3.connect(f"{path.as_uri()}?immutable=1", uri=True)) as connection:
            _identify(path, connection)
    except sqlite3.DatabaseError as error:
        # After a crash in a checkpoint the file alone looks damaged: the log has the missing pages.
        if error.sqlite_errorcode != sqlite3.SQLITE_CORRUPT or not log.exists() or not log.stat().st_size:
            raise
    with closing(connect_reader(path)) as connection:
        _identify(path, connection)
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not tables >= {"message", "recipient", "body"}:
            raise StoreDamaged(f"{path}: damaged: tables are missing")


def schema_version(connection: sqlite3.Connection) -> int:
    """How many of MIGRATIONS the file has seen."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _identify(path: Path, connection: sqlite3.Connection) -> None:
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application_id != APPLICATION_ID:
        raise StoreDamaged(f"{path}: not a store of otp-relay")
    if version > len(MIGRATIONS):
        raise StoreError(f"{path}: written by a newer otp-relay (schema {version}, this one is {len(MIGRATIONS)})")


def connect_reader(path: Path) -> sqlite3.Connection:
    """A connection that can't write, beside a running relay or without one. Raises sqlite3.Error."""
    connection = connect(f"{path.as_uri()}?mode=ro")
    with suppress(sqlite3.DatabaseError):  # a damaged file says so at the first query, where it is explained
        connection.execute("PRAGMA query_only = ON")
    return connection


def connect(uri: str) -> sqlite3.Connection:
    """A connection with the settings that all connections to a store have."""
    # One thread at a time uses it, but not always the same (`group`).
    connection = sqlite3.connect(
        uri,
        uri=True,
        timeout=_BUSY_S,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=_CACHED_STATEMENTS,
    )
    connection.execute("PRAGMA temp_store = MEMORY")
    return connection
