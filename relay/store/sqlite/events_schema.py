"""The events file itself: where it lies, how it is made, checked and connected to for writing."""

from __future__ import annotations

import sqlite3
from importlib import resources
from pathlib import Path

from relay.store.base import StoreDamaged, StoreError
from relay.store.sqlite import files
from relay.store.sqlite.schema import LOG_LIMIT_BYTES, create_private

APPLICATION_ID = 0x4F545045
"""`OTPE`, in the file's header"""
MIGRATIONS = ("1.sql", "2.sql")
POSITIONS_SINCE = 2
"""version of the schema: receivers have their positions in the configuration"""


def events_path(store: Path) -> Path:
    """The events file beside a main store file."""
    return store.with_name(f"{store.stem}-events{store.suffix}")


def connect_events_writer(path: Path) -> sqlite3.Connection:
    """The writing connection; a missing file is made. Raises StoreError, StoreDamaged."""
    with files.explained(path):
        if not path.exists():
            create_private(path)
        connection = files.connect(f"{path.as_uri()}?mode=rw")
        try:
            _prepare(path, connection)
        except BaseException:
            connection.close()
            raise
    return connection


def _prepare(path: Path, connection: sqlite3.Connection) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (found,) = connection.execute("PRAGMA application_id").fetchone()
    if found != APPLICATION_ID and (found or version):
        raise StoreDamaged(f"{path}: not an events file of otp-relay")
    if version > len(MIGRATIONS):
        raise StoreError(f"{path}: written by a newer otp-relay (schema {version}, this one is {len(MIGRATIONS)})")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute(f"PRAGMA journal_size_limit = {LOG_LIMIT_BYTES}")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    for number, name in enumerate(MIGRATIONS[version:], start=version + 1):
        script = (resources.files("relay.store.sqlite") / "sql" / "events" / name).read_text()
        connection.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {number};\nCOMMIT;")
