"""The rate at which large contents are read, all together: the event loop that reads them serves codes, too."""

from __future__ import annotations

import time

LARGE_BYTES_A_S = 64_000_000
"""Ten messages of 20 MB take three seconds, and a quarter of the loop's time."""
_SAVED_S = 0.01


class Pace:
    """A token bucket of bytes, shared by all sessions."""

    __slots__ = ("_free_at", "_rate", "held_back_s")

    def __init__(self, bytes_a_s: float = LARGE_BYTES_A_S) -> None:
        self._rate = bytes_a_s
        self._free_at = 0.0
        self.held_back_s = 0.0
        """how long readers have waited, in all"""

    @property
    def behind_s(self) -> float:
        """How long a reader would wait now."""
        return max(0.0, self._free_at - time.monotonic())

    def count(self, size_bytes: int) -> float:
        """Count bytes that were read; returns how many seconds their reader waits now."""
        now = time.monotonic()
        self._free_at = max(self._free_at, now - _SAVED_S) + size_bytes / self._rate
        wait_s = max(0.0, self._free_at - now)
        self.held_back_s += wait_s
        return wait_s
