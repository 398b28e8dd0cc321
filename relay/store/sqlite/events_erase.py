"""An address is forgotten in the events file, as a function of a transaction."""

# ruff: noqa: S608 - what is put together here are names of this module; every value is a parameter

from __future__ import annotations

import json

from relay.store.sqlite.commit import Tx


def erase(tx: Tx, address: str) -> int:
    """Blank the reasons that quote an address, and delete posts and effects about it: posts that have not arrived, and
    suppressions that would bring it back. Returns how many rows changed. Reads the whole file."""
    values = {
        "given": address,
        "lower": address.lower(),
        # As it stands in a body in JSON, where it may be escaped.
        "quoted": json.dumps(address, ensure_ascii=False)[1:-1],
        "quoted_lower": json.dumps(address.lower(), ensure_ascii=False)[1:-1],
    }
    changed = 0
    for change in (
        f"UPDATE event SET reason = NULL WHERE {_quotes('reason')}",
        f"DELETE FROM outbox WHERE {_quotes('CAST(body AS TEXT)', 'quoted')} OR {_quotes('result')}",
        f"DELETE FROM effect WHERE {_quotes('address')} OR {_quotes('reason')}",
    ):
        changed += tx.execute(change, values).rowcount
    return changed


def _quotes(column: str, name: str = "") -> str:
    """SQLite's lower() knows ASCII only: where there are other letters, both spellings are looked for."""
    lower, given = (":quoted_lower", ":quoted") if name else (":lower", ":given")
    return f"(instr(lower({column}), {lower}) OR instr({column}, {given}))"
