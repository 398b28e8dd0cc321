"""A store with a past: a long log and a long queue, cloned from messages the relay itself wrote.

Only for measuring, on a store that no relay has open. What is cloned are whole rows, so the schema may grow; the few
columns that must differ from row to row are named here.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path

from bench import message
from bench.process import Failed

ROWS_OF_A_SENT_MESSAGE = 3
"""message, recipient, attempt"""
PAST_S = 29 * 86_400
"""the log reaches back so far: within its retention of 30 days"""
_SENT = "SELECT id FROM message WHERE body IS NULL ORDER BY id DESC LIMIT 1"
_ADDRESS = "'user' || numbers.copy || '@example.net'"
_WAITING = "SELECT id FROM message WHERE body IS NOT NULL ORDER BY id DESC LIMIT 1"
# Sorts before every id of today, as those of older messages do; 26 characters as all.
OLD_ID = "'00' || printf('%024d', numbers.copy + {offset})"
_WAITING_ID = "'01' || printf('%024d', numbers.copy + {offset})"


def fill(directory: Path, log_rows: int, queued: int) -> None:
    """Clone sent messages until there are `log_rows` rows more, and waiting ones `queued` times; evenly over the
    store's files in `directory` that hold one of the kind. Raises Failed where none does."""
    stores = sorted(directory.glob("*.db"))
    for query, clone, count in (
        (_SENT, _clone_sent, log_rows // ROWS_OF_A_SENT_MESSAGE),
        (_WAITING, _clone_waiting, queued),
    ):
        samples = [(store, sample) for store in stores for sample in _samples(store, query)]
        if count and not samples:
            raise Failed(f"no store in {directory} holds a message to clone: {query}")
        share = count // len(samples) if samples else 0
        for number, (store, sample) in enumerate(samples if share else ()):
            with closing(sqlite3.connect(store, isolation_level=None)) as connection:
                without_indexes(connection, partial(clone, sample=sample, messages=share, offset=number * share))


def holds_mail(store: Path) -> bool:
    """Some message waits in it."""
    return store.exists() and bool(_samples(store, _WAITING))


def _samples(store: Path, query: str) -> list[str]:
    with closing(sqlite3.connect(store)) as connection:
        return [found for (found,) in connection.execute(query)]


def without_indexes(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], None]) -> None:
    """The indexes are built at the end, in one go."""
    connection.execute("PRAGMA cache_size = -200000")
    connection.execute("PRAGMA synchronous = OFF")  # nothing here needs to survive a crash
    indexes = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
    ).fetchall()
    connection.execute("BEGIN IMMEDIATE")
    for name, _ in indexes:
        connection.execute(f'DROP INDEX "{name}"')
    work(connection)
    for _, sql in indexes:
        connection.execute(sql)
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _clone_sent(connection: sqlite3.Connection, sample: str, messages: int, offset: int) -> None:
    new_id = OLD_ID.format(offset=offset)
    at = f"accepted_at - {PAST_S}.0 * ({messages} - numbers.copy) / {max(1, messages)}"
    clone(connection, "message", "id", sample, messages, {"id": new_id, "accepted_at": at})
    changed = {"message_id": new_id, "accepted_at": at, "address": _ADDRESS}
    clone(connection, "recipient", "message_id", sample, messages, changed)
    clone(connection, "attempt", "message_id", sample, messages, {"message_id": new_id})


def _clone_waiting(connection: sqlite3.Connection, sample: str, messages: int, offset: int) -> None:
    new_id = _WAITING_ID.format(offset=offset)
    (body, top) = connection.execute(
        "SELECT (SELECT body FROM message WHERE id = ?), (SELECT max(id) FROM body)", (sample,)
    ).fetchone()
    # In clear: what is sealed opens under its own message's name only.
    content = message.bulk(2048)
    here = f"{top} + numbers.copy"
    clone(connection, "body", "id", body, messages, {"id": here, "content": f"x'{content.hex()}'"})
    plain = {"id": new_id, "body": here, "body_key": "NULL", "size": str(len(content))}
    clone(connection, "message", "id", sample, messages, plain)
    changed = {"message_id": new_id, "address": _ADDRESS}
    clone(connection, "recipient", "message_id", sample, messages, changed)


def clone(
    connection: sqlite3.Connection, table: str, key: str, sample: object, times: int, changed: Mapping[str, str]
) -> None:
    """Insert `times` copies of the rows whose `key` is `sample`, with other expressions for the `changed` columns;
    `numbers.copy` counts from 1."""
    columns = [name for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")]
    values = ", ".join(changed.get(name, f'"{name}"') for name in columns)
    names = ", ".join(f'"{name}"' for name in columns)
    connection.execute(
        f"WITH RECURSIVE numbers(copy) AS (SELECT 1 UNION ALL SELECT copy + 1 FROM numbers WHERE copy < {times})"
        f" INSERT INTO {table} ({names}) SELECT {values} FROM numbers, (SELECT * FROM {table} WHERE {key} = ?)",
        (sample,),
    )
