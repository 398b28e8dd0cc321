"""An address is forgotten in the events file, as a function of a transaction."""

# ruff: noqa: S608 - what is put together here are names of this module; every value is a parameter

from __future__ import annotations

from relay.store.sqlite import events_outbox
from relay.store.sqlite.commit import Tx


def erase(tx: Tx, address: str, now: float) -> int:
    """Blank the reasons that quote an address, and delete posts and effects about it: posts that have not arrived, and
    suppressions that would bring it back. Returns how many rows changed. Reads the whole file."""
    values = {"given": address, "lower": address.lower()}
    changed = events_outbox.erase(tx, address, now)
    for change in (
        f"UPDATE event SET reason = NULL WHERE {_quotes('reason')}",
        f"DELETE FROM effect WHERE {_quotes('address')} OR {_quotes('reason')}",
    ):
        changed += tx.execute(change, values).rowcount
    return changed


def _quotes(column: str) -> str:
    """SQLite's lower() knows ASCII only: where there are other letters, both spellings are looked for."""
    return f"(instr(lower({column}), :lower) OR instr({column}, :given))"
