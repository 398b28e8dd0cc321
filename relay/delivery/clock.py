"""The relay's clock: the time of day when it started, carried on by the steady clock.

A machine's clock that jumps a day changes no retry and expires no code; what is written down stays in order. Times
are seconds since the epoch; `monotonic` turns one into time.monotonic, which deadlines in memory use.
"""

from __future__ import annotations

import time


class Clock:
    """Made once, at start; `offset` (seconds) to share another process's on the same machine."""

    __slots__ = ("offset",)

    def __init__(self, offset: float | None = None) -> None:
        self.offset = time.time() - time.monotonic() if offset is None else offset

    def now(self) -> float:
        return self.offset + time.monotonic()

    def monotonic(self, at: float) -> float:
        return at - self.offset

    def epoch(self, monotonic: float) -> float:
        return self.offset + monotonic
