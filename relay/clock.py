"""The relay's clock: the time of day at its start, carried on by a clock that never jumps.

When the machine's clock is set, no retry moves and no code expires, and stored times stay in order. The clock goes on
while the machine is suspended. Times are seconds since the epoch. Dates in mail are the machine's time of day: `today`
and `of_day`.
"""

from __future__ import annotations

import time

# CLOCK_BOOTTIME goes on while the machine is suspended (Linux): a code ages then, too.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def steady() -> float:
    """Seconds on the clock of deadlines: it never jumps, and goes on while the machine is suspended."""
    return time.clock_gettime(_CLOCK)


class Clock:
    """Converts between the relay's time, the steady clock, time.monotonic and the machine's time of day."""

    __slots__ = ("offset",)

    def __init__(self, offset: float | None = None) -> None:
        """`offset`: of another process's clock on this machine, in seconds, to share it. None: start a new one."""
        self.offset = time.time() - steady() if offset is None else offset

    def now(self) -> float:
        """The relay's time now."""
        return self.offset + steady()

    def today(self) -> float:
        """The machine's time of day now; it may jump."""
        return time.time()

    def steady(self, at: float) -> float:
        """A relay time on the steady clock, for deadlines in memory."""
        return at - self.offset

    def monotonic(self, at: float) -> float:
        """A relay time on time.monotonic, for measurements; time in suspension doesn't count there."""
        return time.monotonic() + (at - self.now())

    def epoch(self, monotonic: float) -> float:
        """The relay time of a recent moment of time.monotonic."""
        return self.now() + (monotonic - time.monotonic())

    def of_day(self, at: float) -> float:
        """The machine's time of day at a relay time, by how the machine's clock is set now."""
        return at + (self.today() - self.now())
