"""Check, back up and compact one store file, and check its keys. Blocking. `store/maintenance.py` does all files."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from relay.store.base import StoreError, StoreSealed
from relay.store.codec import Codec
from relay.store.sqlite import files, schema

_SHOWN = 20

_CONTRADICTIONS = {
    "open messages without their content": (
        "SELECT id FROM message WHERE body IS NOT NULL"
        " AND (SELECT count(*) FROM body WHERE body.id BETWEEN message.body AND message.body + parts - 1) <> parts"
    ),
    "finished messages with open recipients": (
        "SELECT id FROM message WHERE body IS NULL"
        " AND EXISTS (SELECT 1 FROM recipient WHERE recipient.message_id = message.id AND +open = 1)"
    ),
    "recipients without a message": (
        "SELECT DISTINCT message_id FROM recipient WHERE message_id NOT IN (SELECT id FROM message)"
    ),
}


_KEY = "key "
"""in `setting`, before the id of every key that contents were ever encrypted with"""
_KEY_IDS = (
    "SELECT DISTINCT body_key FROM message WHERE body_key IS NOT NULL"
    " AND id IN (SELECT message_id FROM recipient INDEXED BY recipient_open WHERE open = 1)"
)


def check(path: Path) -> Sequence[str]:
    """What is wrong with the store, a line each. Also beside a running relay. Raises StoreError, StoreDamaged if it
    can't even be opened."""
    path = files.absolute(path)
    with files.explained(path):
        files.check(path)
        with closing(files.connect_reader(path)) as connection:
            connection.execute("BEGIN")  # one moment, whatever a relay writes meanwhile
            wrong = [text for (text,) in connection.execute(f"PRAGMA integrity_check({_SHOWN})") if text != "ok"]
            if not wrong:
                for what, query in _CONTRADICTIONS.items():
                    if found := [row[0] for row in connection.execute(f"{query} LIMIT {_SHOWN}")]:
                        wrong.append(f"{what}: {', '.join(found)}")
    return wrong


def check_keys(path: Path, codec: Codec) -> None:
    """Check that the codec can read all waiting mail. Raises StoreSealed, which names the key that is missing;
    StoreError, StoreDamaged."""
    path = files.absolute(path)
    with files.explained(path), closing(files.connect_reader(path)) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version < 2 or _reads_all_noted(connection, codec):
            return
        try:
            for (key_id,) in connection.execute(_KEY_IDS):
                codec.check(key_id)
        except ValueError as error:
            raise StoreSealed(f"{path}: waiting mail is {error}") from None


def _reads_all_noted(connection: sqlite3.Connection, codec: Codec) -> bool:
    """Can it read everything that was ever encrypted? Then the waiting mail needn't be searched."""
    noted = connection.execute("SELECT name FROM setting WHERE name GLOB ?", (f"{_KEY}*",))
    try:
        for (name,) in noted.fetchall():
            codec.check(name.removeprefix(_KEY))
    except ValueError:
        return False
    return True


def note_key(connection: sqlite3.Connection, key_id: str) -> None:
    """Before anything is encrypted with it: see `check_keys`."""
    connection.execute("INSERT OR IGNORE INTO setting VALUES (?, 1)", (f"{_KEY}{key_id}",))


def connect_for_copy(path: Path) -> sqlite3.Connection:
    """A connection that reads a file that is a store. Raises StoreError, StoreDamaged."""
    with files.explained(path):
        files.check(path)
        return files.connect_reader(path)


def copy(source: sqlite3.Connection, destination: Path) -> int:
    """Copy the file as the source's reading transaction sees it into a new one (0600), on the disk when this returns;
    its size in bytes. Raises StoreError, also when the destination exists; then nothing is left."""
    try:
        schema.create_private(destination)
    except FileExistsError as error:
        raise StoreError(f"{destination}: exists already") from error
    except OSError as error:
        raise StoreError(f"{destination}: {error.strerror}") from error
    try:
        with closing(sqlite3.connect(destination)) as target:
            source.backup(target)
        with destination.open("rb") as written:
            os.fsync(written.fileno())
        return destination.stat().st_size
    except BaseException as error:
        destination.unlink(missing_ok=True)
        if isinstance(error, sqlite3.Error | OSError):
            raise files.explain(destination, error) from error
        raise


def compact(path: Path) -> tuple[int, int]:
    """Rewrite the file without its free pages; its size in bytes before and after. The lock is held. Raises
    StoreError, StoreDamaged."""
    with files.explained(path):
        files.check(path)
        before = path.stat().st_size
        with closing(schema.connect_writer(path)) as connection:
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return before, path.stat().st_size
