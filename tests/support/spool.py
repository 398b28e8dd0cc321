"""The spool's files as a test sees them from outside."""

from __future__ import annotations

from pathlib import Path

from relay.intake.spool import PIECE_BYTES
from relay.store.codec import SEAL_BYTES


def have_come_in(spool: Path, size_bytes: int, clients: int = 1) -> bool:
    """Does the spool hold so much of one content from each client? The last line end may begin the final dot, and
    the last piece is written with the content's end."""
    pieces = (size_bytes - len(b"\r\n")) // PIECE_BYTES
    return [each.stat().st_size for each in spool.iterdir()] == [pieces * (PIECE_BYTES + SEAL_BYTES)] * clients
