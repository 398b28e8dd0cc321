"""Suppressed addresses in the main store file: written in transactions, read beside them."""

# ruff: noqa: S608 - what is put together here are texts of this module; every value is a parameter

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from relay.policy.suppression import KEY_BYTES, SuppressionSet, without_addresses
from relay.store.sqlite.reader import Reader
from relay.store.sqlite.relay_events import SINCE_VERSION
from relay.store.sqlite.state import HEAVY_BYTES, StoreState
from relay.store.suppressions import Suppression, SuppressionQuery, cached_detail

if TYPE_CHECKING:
    from relay.store.sqlite.commit import Tx

_KEY = "suppression_key"
_COLUMNS = "key, cause, address, reason, upstream, at, until"
_STEP = 200
"""in one transaction, so that a code doesn't wait for it"""
_LOAD_STEP = 20_480
_SAYS_SOMETHING = "(excluded.reason <> '' OR excluded.until NOT NULL)"
_IS_NEWER = "(excluded.at >= at AND (cause = 'manual' OR excluded.upstream NOT NULL))"
"""an imported complaint has no upstream: it says nothing newer about one that is known"""
_ADD = (
    f"INSERT INTO suppression ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET"
    " address = coalesce(excluded.address, address),"
    f" reason = CASE WHEN {_IS_NEWER} AND (cause <> 'manual' OR excluded.reason <> '')"
    " THEN excluded.reason ELSE reason END,"
    f" upstream = CASE WHEN {_IS_NEWER} THEN excluded.upstream ELSE upstream END,"
    f" at = CASE WHEN {_IS_NEWER} THEN max(at, excluded.at) ELSE at END,"
    f" until = CASE WHEN cause = 'manual' THEN CASE WHEN {_SAYS_SOMETHING} THEN excluded.until ELSE until END"
    " WHEN until IS NULL OR excluded.until IS NULL THEN NULL ELSE max(until, excluded.until) END"
    # What an operator adds again is new if it says something else; an event, if it is newer or counts for longer; an
    # imported entry with another cause, if it counts for longer.
    " WHERE CASE WHEN cause = 'manual'"
    f" THEN ({_SAYS_SOMETHING} AND excluded.until IS NOT until) OR (excluded.reason NOT IN ('', reason))"
    " OR (address IS NULL AND excluded.address NOT NULL)"
    f" ELSE ({_IS_NEWER} AND excluded.at > at)"
    " OR (until NOT NULL AND (excluded.until IS NULL OR excluded.until > until)) END"
    f" RETURNING {_COLUMNS}"
)


def hash_key(tx: Tx) -> bytes:
    """What addresses are hashed with; made when it is asked for first."""
    tx.execute("INSERT OR IGNORE INTO setting VALUES (?, ?)", (_KEY, os.urandom(KEY_BYTES)))
    (key,) = tx.execute("SELECT value FROM setting WHERE name = ?", (_KEY,)).fetchone()
    return bytes(key)


def add(tx: Tx, rows: Sequence[Suppression]) -> list[Suppression]:
    """Returns those that are new or changed, as they are now."""
    return [Suppression(*found) for row in rows for found in tx.execute(_ADD, row).fetchall()]


def remove(tx: Tx, hashes: Sequence[int]) -> list[int]:
    """Remove all entries of these addresses. Returns their keys."""
    sql = "DELETE FROM suppression WHERE key BETWEEN ?1 AND ?1 + 3 RETURNING key"
    return [key for hashed in hashes for (key,) in tx.execute(sql, (hashed,)).fetchall()]


def blank(tx: Tx, keys: Sequence[int]) -> None:
    """Forget the addresses of these entries, also where a reason quotes one. They go on being suppressed."""
    for key in keys:
        (reason,) = tx.execute("SELECT reason FROM suppression WHERE key = ?", (key,)).fetchone() or ("",)
        text = without_addresses(reason)
        tx.execute("UPDATE suppression SET address = NULL, reason = ? WHERE key = ?", (text, key))


def prune(tx: Tx, now: float, limit: int) -> list[int]:
    """Delete entries that no longer count. Returns their keys."""
    sql = (
        "DELETE FROM suppression WHERE key IN"
        " (SELECT key FROM suppression WHERE until <= ? ORDER BY until LIMIT ?) RETURNING key"
    )
    return [key for (key,) in tx.execute(sql, (now, limit)).fetchall()]


def listing(connection: sqlite3.Connection, query: SuppressionQuery) -> list[Suppression]:
    """Newest first."""
    terms, values = ["TRUE"], dict[str, object](limit=query.limit)
    if query.hashed is not None:
        terms.append("+key BETWEEN :hash AND :hash + 3" if query.behind else "key BETWEEN :hash AND :hash + 3")
        values["hash"] = query.hashed
    if query.cause is not None:
        terms.append("cause = :cause")
        values["cause"] = query.cause
    if query.behind is not None:
        terms.append("(at, key) < (:at, :key)")
        values["at"], values["key"] = query.behind
    found = connection.execute(
        f"SELECT {_COLUMNS} FROM suppression WHERE {' AND '.join(terms)} ORDER BY at DESC, key DESC LIMIT :limit",
        values,
    )
    return [Suppression(*row) for row in found]


def _mentioning(connection: sqlite3.Connection, hashed: int, address: str) -> list[int]:
    """Keys of the entries that show this address, as theirs or in a reason."""
    found = connection.execute(
        "SELECT key FROM suppression WHERE (key BETWEEN :hash AND :hash + 3 AND address NOT NULL)"
        " UNION SELECT key FROM suppression WHERE instr(lower(reason), lower(:address)) > 0",
        {"hash": hashed, "address": address},
    )
    return [key for (key,) in found]


def _readable(connection: sqlite3.Connection) -> list[int]:
    found = connection.execute(
        "SELECT key FROM suppression WHERE address NOT NULL AND cause <> 'manual' LIMIT ?", (_STEP,)
    )
    return [key for (key,) in found]


def _load_slice(connection: sqlite3.Connection, after: int) -> list[tuple[int, int, int, str, str]]:
    # `until` is rounded up, as in `Suppression.entry`.
    found = connection.execute(
        "SELECT key, CAST(at AS INTEGER), coalesce(CAST(until AS INTEGER) + (until > CAST(until AS INTEGER)), 0),"
        " cause, reason FROM suppression WHERE key > ? ORDER BY key LIMIT ?",
        (after, _LOAD_STEP),
    )
    return found.fetchall()


def _read_key(connection: sqlite3.Connection) -> bytes | None:
    """None: nothing was ever suppressed, or an older relay left the file."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version < SINCE_VERSION:
        return None
    found = connection.execute("SELECT value FROM setting WHERE name = ?", (_KEY,)).fetchone()
    return None if found is None else bytes(found[0])


def load(path: Path) -> tuple[bytes, SuppressionSet]:
    """The hashes' key and all entries, read beside the process that writes them. Blocks; raises StoreError."""
    entries, after = SuppressionSet(), -(2**63)
    with closing(Reader.open(path)) as reader:
        key = reader.ask(_read_key)
        if key is None:
            return bytes(KEY_BYTES), entries
        while rows := reader.ask(partial(_load_slice, after=after)):
            entries.extend([(at_key, at, until, cached_detail(cause, why)) for at_key, at, until, cause, why in rows])
            after = rows[-1][0]
    return key, entries


class OfflineSuppressions:
    """Suppressions as a command lists them, whether a relay runs or not. Each method blocks, and raises StoreError."""

    def __init__(self, path: Path) -> None:
        self._reader = Reader.open(path)
        self.hash_key = self._reader.ask(_read_key)
        """None: there are none"""

    def close(self) -> None:
        self._reader.close()

    def listing(self, query: SuppressionQuery) -> list[Suppression]:
        return [] if self.hash_key is None else self._reader.ask(partial(listing, query=query))

    def pages(self, query: SuppressionQuery) -> Iterator[Suppression]:
        """All, a page (`query.limit`) in memory at a time."""
        while rows := self.listing(query):
            yield from rows
            query = query._replace(behind=(rows[-1].at, rows[-1].key))


class SqliteSuppressions:
    """`base.Suppressions` in the main store file."""

    def __init__(self, state: StoreState) -> None:
        self._state = state

    async def hash_key(self) -> bytes:
        return await self._state.write(hash_key)

    async def add(self, rows: Sequence[Suppression]) -> list[Suppression]:
        changed: list[Suppression] = []
        for start in range(0, len(rows), _STEP):
            write = partial(add, rows=rows[start : start + _STEP])
            changed += await self._state.write(write, size_bytes=HEAVY_BYTES if len(rows) > 1 else 0)
        return changed

    async def remove(self, hashes: Sequence[int]) -> list[int]:
        removed: list[int] = []
        for start in range(0, len(hashes), _STEP):
            removed += await self._state.write(partial(remove, hashes=hashes[start : start + _STEP]))
        return removed

    async def listing(self, query: SuppressionQuery) -> list[Suppression]:
        return await self._state.ask(partial(listing, query=query))

    async def erase(self, hashed: int, address: str) -> int:
        keys = await self._state.ask(partial(_mentioning, hashed=hashed, address=address))
        for start in range(0, len(keys), _STEP):
            await self._state.write(partial(blank, keys=keys[start : start + _STEP]), size_bytes=HEAVY_BYTES)
        return len(keys)

    async def blank_readable(self) -> None:
        while keys := await self._state.ask(_readable):
            await self._state.write(partial(blank, keys=keys), size_bytes=HEAVY_BYTES)

    async def prune(self, now: float) -> list[int]:
        return await self._state.write(partial(prune, now=now, limit=_STEP), size_bytes=HEAVY_BYTES)
