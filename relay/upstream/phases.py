"""What the time of an attempt went into, phase after phase: together the phases are its duration."""

from __future__ import annotations

PHASES = ("session", "connect", "tls", "auth", "envelope", "gate", "data")
RARE_PHASES = ("rate", "encode")
"""phases that few attempts have: the wait for the upstream's rate, the re-encoding for what the session takes"""


class Phases:
    """Each phase ends where the next begins. Times are time.monotonic."""

    __slots__ = ("at", "ms")

    def __init__(self, at: float) -> None:
        self.at = at
        self.ms: dict[str, float] = dict.fromkeys(PHASES, 0.0)
        """milliseconds"""

    def copy(self) -> Phases:
        """The same, to go on from here."""
        copied = Phases(self.at)
        copied.ms = dict(self.ms)
        return copied

    def restore(self, before: Phases) -> None:
        """Go on from where that copy was made."""
        self.at, self.ms = before.at, before.ms

    def until(self, at: float, phase: str) -> None:
        """The time since the end of the last phase belongs to this one. A moment before that end counts nothing."""
        at = max(self.at, at)
        self.ms[phase] = self.ms.get(phase, 0.0) + (at - self.at) * 1000.0
        self.at = at
