"""What a try's time went into, phase after phase: together they are its duration."""

from __future__ import annotations

from relay.upstream.smtp.session import Opening, Report

OF_AN_ATTEMPT = ("session", "connect", "tls", "auth", "envelope", "gate", "data")
SOMETIMES = ("rate", "encode")
"""phases of an attempt that few have: waited for the upstream's rate, re-encoded for what the session takes"""
OF_THE_WAY = ("accept", "earlier", "wait", *SOMETIMES, *OF_AN_ATTEMPT)
"""phases of a message that don't overlap: from the app's final dot to the upstream's reply to ours"""


class Phases:
    """Each phase ends where the next begins. Times are time.monotonic."""

    __slots__ = ("_at", "ms")

    def __init__(self, at: float) -> None:
        self._at = at
        self.ms: dict[str, float] = dict.fromkeys(OF_AN_ATTEMPT, 0.0)
        """milliseconds"""

    def until(self, at: float, phase: str) -> None:
        """What is since the last phase's end belongs to this one."""
        self.ms[phase] = self.ms.get(phase, 0.0) + (at - self._at) * 1000.0
        self._at = at

    def opened(self, at: float, opening: Opening) -> None:
        """A session that was waited for. Its opening may have begun before, and ended before its hand-over: only what
        of it was waited for counts, and the rest of the wait was one for a session."""
        for phase, ended in opening.ends():
            if self._at < ended <= at:
                self.until(max(self._at, min(opening.began_at, at)), "session")
                self.until(ended, phase)
        self.until(at, "session")

    def told(self, report: Report) -> None:
        """A transaction is over."""
        sent = report.ended_at - report.data_ms / 1000.0
        self.until(max(self._at, sent - report.gate_ms / 1000.0), "envelope")
        self.until(max(self._at, sent), "gate")
        self.until(max(self._at, report.ended_at), "data")
