"""A store with a past: a long log and a long queue, cloned from messages the relay itself wrote.

Only for measuring, on a store that no relay has open. What is cloned are whole rows, so the schema may grow; the few
columns that must differ from row to row are named here.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from bench.process import Failed

ROWS_OF_A_SENT_MESSAGE = 3
"""message, recipient, attempt"""
PAST_S = 29 * 86_400
"""the log reaches back so far: within its retention of 30 days"""
_SENT = "SELECT id FROM message WHERE body IS NULL ORDER BY id DESC LIMIT 1"
_WAITING = "SELECT id FROM message WHERE body IS NOT NULL ORDER BY id DESC LIMIT 1"
# Sorts before every id of today, as those of older messages do; 26 characters as all.
_OLD_ID = "'00' || printf('%024d', numbers.n)"
_WAITING_ID = "'01' || printf('%024d', numbers.n)"


def fill(store: Path, log_rows: int, queued: int) -> None:
    """Clone the newest sent message until there are `log_rows` rows more, the newest waiting one `queued` times.
    Raises Failed where there is none of a kind."""
    with closing(sqlite3.connect(store, isolation_level=None)) as connection:
        connection.execute("PRAGMA cache_size = -200000")
        connection.execute("PRAGMA synchronous = OFF")  # nothing here needs to survive a crash
        indexes = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
        ).fetchall()
        connection.execute("BEGIN IMMEDIATE")
        for name, _ in indexes:
            connection.execute(f'DROP INDEX "{name}"')  # built at the end, in one go
        _clone_sent(connection, log_rows // ROWS_OF_A_SENT_MESSAGE)
        _clone_waiting(connection, queued)
        for _, sql in indexes:
            connection.execute(sql)
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _clone_sent(connection: sqlite3.Connection, messages: int) -> None:
    sample = _one(connection, _SENT, "sent")
    at = f"accepted_at - {PAST_S}.0 * ({messages} - numbers.n) / {max(1, messages)}"
    _clone(connection, "message", "id", sample, messages, {"id": _OLD_ID, "accepted_at": at})
    changed = {"message_id": _OLD_ID, "accepted_at": at, "address": "'user' || numbers.n || '@example.net'"}
    _clone(connection, "recipient", "message_id", sample, messages, changed)
    _clone(connection, "attempt", "message_id", sample, messages, {"message_id": _OLD_ID})


def _clone_waiting(connection: sqlite3.Connection, messages: int) -> None:
    sample = _one(connection, _WAITING, "waiting")
    (body, top) = connection.execute(
        "SELECT (SELECT body FROM message WHERE id = ?), (SELECT max(id) FROM body)", (sample,)
    ).fetchone()
    _clone(connection, "body", "id", body, messages, {"id": f"{top} + numbers.n"})
    changed = {"id": _WAITING_ID, "body": f"{top} + numbers.n"}
    _clone(connection, "message", "id", sample, messages, changed)
    changed = {"message_id": _WAITING_ID, "address": "'user' || numbers.n || '@example.net'"}
    _clone(connection, "recipient", "message_id", sample, messages, changed)


def _one(connection: sqlite3.Connection, query: str, what: str) -> object:
    found = connection.execute(query).fetchone()
    if found is None:
        raise Failed(f"the store holds no {what} message to clone")
    return found[0]


def _clone(
    connection: sqlite3.Connection, table: str, key: str, sample: object, times: int, changed: Mapping[str, str]
) -> None:
    """Insert `times` copies of the rows whose `key` is `sample`, with other expressions for the `changed` columns;
    `numbers.n` counts from 1."""
    columns = [name for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")]
    values = ", ".join(changed.get(name, f'"{name}"') for name in columns)
    names = ", ".join(f'"{name}"' for name in columns)
    connection.execute(
        f"WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {times})"
        f" INSERT INTO {table} ({names}) SELECT {values} FROM numbers, (SELECT * FROM {table} WHERE {key} = ?)",
        (sample,),
    )
