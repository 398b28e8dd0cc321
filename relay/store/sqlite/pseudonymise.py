"""Pseudonyms: hashes in the place of the addresses of finished messages, as functions of a transaction."""

from __future__ import annotations

import os
import sqlite3
from typing import TYPE_CHECKING

from relay.store.addresses import SALT_BYTES, Hashed
from relay.store.sqlite.rows import is_unreadable

if TYPE_CHECKING:
    from relay.store.sqlite.commit import Tx

_DONE = "hidden"
"""in `setting`: no finished message has a readable address"""
BLANK = "h:0000000000000000"
"""in the place of an address that can't be read"""


def stored(connection: sqlite3.Connection) -> Hashed | None:
    """What this store's addresses are hashed with, if they ever were."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version < 2:  # a reader before the relay's first start on it
        return None
    found = connection.execute("SELECT value FROM setting WHERE name = 'salt'").fetchone()
    return None if found is None else Hashed(found[0])


def begin(tx: Tx, *, wanted: bool) -> tuple[Hashed | None, bool]:
    """Note whether addresses are to be hashed from now on: what with, and whether older messages' still have to be."""
    if not wanted:
        tx.execute("DELETE FROM setting WHERE name = ?", (_DONE,))
        return None, False
    tx.execute("INSERT OR IGNORE INTO setting VALUES ('salt', ?)", (os.urandom(SALT_BYTES),))
    (salt,) = tx.execute("SELECT value FROM setting WHERE name = 'salt'").fetchone()
    return Hashed(salt), tx.execute("SELECT 1 FROM setting WHERE name = ?", (_DONE,)).fetchone() is None


def hash_finished(tx: Tx, hashed: Hashed, after: str, limit: int) -> str | None:
    """Hash the addresses of the finished ones among the next messages behind the id `after`. Returns the last id, None
    when there are no more."""
    found = tx.execute("SELECT id, body FROM message WHERE id > ? ORDER BY id LIMIT ?", (after, limit)).fetchall()
    for message_id, body in found:
        if body is None:
            hash_addresses(tx, message_id, hashed)
    if not found:
        tx.execute("INSERT OR IGNORE INTO setting VALUES (?, 1)", (_DONE,))
        return None
    return str(found[-1][0])


def hash_addresses(tx: Tx, message_id: str, hashed: Hashed) -> None:
    """Hash every address of a finished message, also where a reply quotes it. Done twice it is the same as once. In
    one that can't be read they are blanked."""
    try:
        _hash(tx, message_id, hashed)
    except Exception as error:
        if not is_unreadable(error):
            raise
        import logging  # here, for the commands that look: it takes longer than they do

        logging.getLogger(__name__).warning("the addresses of %s can't be read, they are blanked", message_id)
        _blank(tx, message_id)


def _blank(tx: Tx, message_id: str) -> None:
    for change in (
        "message SET sender = '', subject = '', envid = NULL WHERE id = ?",
        f"recipient SET address = '{BLANK}', folded = NULL, orcpt = NULL, reply = NULL WHERE message_id = ?",
        "attempt SET reply = '' WHERE message_id = ?",
        "event SET reason = NULL WHERE message_id = ?",
    ):
        tx.execute(f"UPDATE {change}", (message_id,))


def _hash(tx: Tx, message_id: str, hashed: Hashed) -> None:
    sender, subject = tx.execute("SELECT sender, subject FROM message WHERE id = ?", (message_id,)).fetchone()
    tx.execute(
        "UPDATE message SET sender = ?, subject = ?, envid = NULL WHERE id = ?",
        (hashed.address(sender), hashed.text(subject, sender), message_id),
    )
    recipients = tx.execute(
        "SELECT position, address, reply FROM recipient WHERE message_id = ?", (message_id,)
    ).fetchall()
    known = {}
    for position, address, reply in recipients:
        known[position] = address
        tx.execute(
            "UPDATE recipient SET address = ?, folded = NULL, orcpt = NULL, reply = ?"
            " WHERE message_id = ? AND position = ?",
            (hashed.address(address), reply and hashed.text(reply, address), message_id, position),
        )
    attempts = tx.execute(
        "SELECT position, n, started_at, reply FROM attempt WHERE message_id = ?", (message_id,)
    ).fetchall()
    for position, n, started_at, reply in attempts:
        text = hashed.text(reply, known.get(position, ""))
        if text != reply:
            tx.execute(
                "UPDATE attempt SET reply = ? WHERE message_id = ? AND position = ? AND n = ? AND started_at = ?",
                (text, message_id, position, n, started_at),
            )
    events = tx.execute(
        "SELECT seq, position, reason FROM event WHERE message_id = ? AND reason IS NOT NULL", (message_id,)
    ).fetchall()
    for seq, position, reason in events:
        text = hashed.text(reason, known.get(position, ""))
        if text != reason:
            tx.execute("UPDATE event SET reason = ? WHERE seq = ?", (text, seq))
