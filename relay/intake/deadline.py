"""One timer for a connection's deadlines: it stays while the deadline moves on, and looks again when it fires.

A timer for each wait would cost a message a tenth of its time in the SMTP service.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable


class Deadline:
    """Calls `expired` at the time that was set last. Times are the loop's."""

    __slots__ = ("_at", "_expired", "_loop", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, expired: Callable[[], None]) -> None:
        self._loop = loop
        self._expired = expired
        self._at = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def set(self, at: float) -> None:
        """Expire at `at`, and not before."""
        self._at = at
        if self._timer is not None:
            if self._timer.when() <= at:
                return
            self._timer.cancel()
        # For less than half a millisecond uvloop makes a handle without `when`, not a timer.
        self._timer = self._loop.call_at(max(at, self._loop.time() + 0.001), self._fire)

    def clear(self) -> None:
        """Don't expire. The timer stays for the next deadline."""
        self._at = math.inf

    def cancel(self) -> None:
        """Never expire any more. Neither the timer nor `expired` is kept: the connection, which holds this, would be
        freed by the garbage collector only."""
        self.clear()
        self._expired = _nothing
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        if self._loop.time() >= self._at:
            self._expired()
        elif self._at < math.inf:
            self.set(self._at)


def _nothing() -> None:
    pass
