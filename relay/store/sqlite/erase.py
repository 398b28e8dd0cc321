"""An address is forgotten in finished mail: hashes take its place, as functions of a connection and a transaction."""

# ruff: noqa: S608 - what is put together here are names of this module; every value is a parameter

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from relay.store.addresses import SALT_BYTES, Hashed
from relay.store.sqlite.pseudonymise import hash_addresses

if TYPE_CHECKING:
    from relay.store.sqlite.commit import Tx

_TEXTS = {
    "message": ("subject", "message_id"),
    "recipient": ("reply", "orcpt"),
    "attempt": ("reply",),
    "event": ("reason",),
    "note": ("text",),
}
"""columns that may quote an address, by table"""


def salt(tx: Tx) -> Hashed:
    """What addresses of this file are hashed with; made when it is asked for first."""
    tx.execute("INSERT OR IGNORE INTO setting VALUES ('salt', ?)", (os.urandom(SALT_BYTES),))
    (found,) = tx.execute("SELECT value FROM setting WHERE name = 'salt'").fetchone()
    return Hashed(found)


class Found(NamedTuple):
    """Where an address is."""

    messages: list[str]
    """ids of finished messages to or from it, or that quote it"""
    events: list[int]
    """`seq` of events that quote it, and whose messages have moved to another file"""


def find(connection: sqlite3.Connection, address: str) -> Found:
    """Reads the whole file."""
    fold, values = _folding(connection, address)
    quotes = " UNION ".join(
        f"SELECT {'id' if table == 'message' else 'message_id'} FROM {table} WHERE instr({fold}({column}), :address)"
        for table, columns in _TEXTS.items()
        for column in columns
    )
    found = connection.execute(
        "SELECT id FROM message WHERE body IS NULL AND id IN ("
        "SELECT message_id FROM recipient WHERE coalesce(folded, address) = :address"
        f" UNION SELECT id FROM message WHERE {fold}(sender) = :address UNION {quotes})",
        values,
    )
    ids = [message_id for (message_id,) in found]
    moved = connection.execute(
        f"SELECT seq FROM event WHERE instr({fold}(reason), :address) AND message_id NOT IN (SELECT id FROM message)",
        values,
    )
    return Found(ids, [seq for (seq,) in moved])


def _folding(connection: sqlite3.Connection, address: str) -> tuple[str, dict[str, str]]:
    """The SQL function that folds the case of texts as the address is folded in the values."""
    if address.isascii():
        return "lower", {"address": address.lower()}
    connection.create_function("casefold", 1, _casefold, deterministic=True)
    return "casefold", {"address": address.casefold()}


def _casefold(text: object) -> str | None:
    return text.casefold() if isinstance(text, str) else None


def erase_events(tx: Tx, events: Sequence[int], address: str, hashed: Hashed) -> None:
    """Hash the address in the reasons of these events."""
    for seq in events:
        (reason,) = tx.execute("SELECT reason FROM event WHERE seq = ?", (seq,)).fetchone() or (None,)
        if reason is not None:
            tx.execute("UPDATE event SET reason = ? WHERE seq = ?", (hashed.text(reason, address), seq))


def erase(tx: Tx, ids: Sequence[str], address: str, hashed: Hashed) -> int:
    """Hash every address of these messages that are finished, and this one wherever they quote it. Returns how many
    messages those were."""
    erased = 0
    for message_id in ids:
        if tx.execute("SELECT 1 FROM message WHERE id = ? AND body IS NULL", (message_id,)).fetchone() is None:
            continue
        hash_addresses(tx, message_id, hashed)
        _erase_quotes(tx, message_id, address, hashed)
        erased += 1
    return erased


def _erase_quotes(tx: Tx, message_id: str, address: str, hashed: Hashed) -> None:
    folded = address.casefold()
    for table, columns in _TEXTS.items():
        key = "id" if table == "message" else "message_id"
        for column in columns:
            found = tx.execute(f"SELECT DISTINCT {column} FROM {table} WHERE {key} = ?", (message_id,)).fetchall()
            for (text,) in found:
                if isinstance(text, str) and folded in text.casefold():
                    tx.execute(
                        f"UPDATE {table} SET {column} = ? WHERE {key} = ? AND {column} = ?",
                        (hashed.text(text, address), message_id, text),
                    )
