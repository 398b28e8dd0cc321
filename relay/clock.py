"""The relay's clock: the time of day when it started, carried on by a steady clock that runs while a machine is
suspended.

A machine's clock that jumps a day changes no retry and expires no code; what is stored stays in order. Times are
seconds since the epoch. What is written into mail is the time of day as it is now: `today`, `of_day`.
"""

from __future__ import annotations

import time

# Linux's runs while the machine is suspended: a code's life does, too.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def steady() -> float:
    """Seconds on the clock that messages' deadlines are on: it never jumps, and runs through a suspension."""
    return time.clock_gettime(_CLOCK)


class Clock:
    """Made once, at start; `offset` (seconds) to share another process's on the same machine."""

    __slots__ = ("offset",)

    def __init__(self, offset: float | None = None) -> None:
        self.offset = time.time() - steady() if offset is None else offset

    def now(self) -> float:
        return self.offset + steady()

    def today(self) -> float:
        """The machine's time of day, which may jump."""
        return time.time()

    def steady(self, at: float) -> float:
        """That moment as `gate.steady` has it, for deadlines in memory."""
        return at - self.offset

    def monotonic(self, at: float) -> float:
        """That moment as time.monotonic has it, for what is measured; a suspension in between isn't measured."""
        return time.monotonic() + (at - self.now())

    def epoch(self, monotonic: float) -> float:
        """A moment of time.monotonic that has just been."""
        return self.now() + (monotonic - time.monotonic())

    def of_day(self, at: float) -> float:
        """What the machine's clock would have shown then, if it had been as it is now."""
        return at + (self.today() - self.now())
