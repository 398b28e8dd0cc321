"""The phase `receive`, the app's own part of a code's time: when it counts as slow, and what to change then. Pure."""

from __future__ import annotations

SLOW_MS = 10.0
MOST_BYTES = 256_000
"""A larger content takes time on any network, and the relay reads it at a limited rate."""
ADVICE = "Many small writes or a slow network do that: let it write the message in one piece, or set TCP_NODELAY."


def hint(receive_ms: object, size_bytes: int) -> str | None:
    """What to change in the app, where it took long to hand over a message of that size; else None.

    `receive_ms`: as the store has it; None and what is no number count as quick.
    """
    if not isinstance(receive_ms, (int, float)) or receive_ms <= SLOW_MS or size_bytes > MOST_BYTES:
        return None
    return f"The app took {receive_ms:.0f} ms from the 354 to its final dot. {ADVICE}"
