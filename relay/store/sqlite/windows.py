"""Searches that no index answers: the log is read newest first, a window of some ten thousand messages at a time.

Each window is a statement of its own, so that a long search holds up neither the checkpoint nor other questions.
"""

# ruff: noqa: S608 - what is put together here are conditions of this package; every value is a parameter

from __future__ import annotations

import sqlite3

from relay.store.model import Selection
from relay.store.sqlite.search import selected, selection_values
from relay.store.sqlite.view import messages
from relay.store.view import Json

MESSAGES = 20_000
"""of a window: it takes about 50 ms"""


def begin_of_window(connection: sqlite3.Connection, end: float) -> float | None:
    """When a window that ends before `end` begins. None: there are fewer messages."""
    found = connection.execute(
        "SELECT accepted_at FROM message WHERE accepted_at < ? ORDER BY accepted_at DESC LIMIT 1 OFFSET ?",
        (end, MESSAGES - 1),
    ).fetchone()
    return None if found is None else float(found[0])


def search_window(connection: sqlite3.Connection, selection: Selection, begin: float, end: float) -> list[Json]:
    """The messages selected that were accepted from `begin` on and before `end`, newest first."""
    values = {**selection_values(connection, selection), "begin": begin, "end": end}
    found = connection.execute(
        "SELECT id FROM message AS m WHERE accepted_at >= :begin AND accepted_at < :end"
        f" AND {selected(selection)} ORDER BY accepted_at DESC, id DESC LIMIT :limit",
        values,
    )
    return messages(connection, [message_id for (message_id,) in found], attempts=False)
