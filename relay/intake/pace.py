"""How fast large contents are let in, all together: what reads them is the loop that codes need, too."""

from __future__ import annotations

import time

LARGE_BYTES_A_S = 64_000_000
"""Ten messages of 20 MB take three seconds in all; the loop is theirs for a quarter of that time at most."""
_SAVED_S = 0.01


class Pace:
    """Bytes a second, shared out among whoever takes them; pure but for the steady clock."""

    __slots__ = ("_free_at", "_rate", "held_back_s")

    def __init__(self, bytes_a_s: float = LARGE_BYTES_A_S) -> None:
        self._rate = bytes_a_s
        self._free_at = 0.0
        self.held_back_s = 0.0
        """what readers were told to wait, all together"""

    @property
    def behind_s(self) -> float:
        """What who takes more now is told to wait at least."""
        return max(0.0, self._free_at - time.monotonic())

    def took(self, size_bytes: int) -> float:
        """So many bytes were read; returns the seconds until their reader may go on."""
        now = time.monotonic()
        self._free_at = max(self._free_at, now - _SAVED_S) + size_bytes / self._rate
        wait_s = max(0.0, self._free_at - now)
        self.held_back_s += wait_s
        return wait_s
