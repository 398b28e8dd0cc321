"""How many messages a session may have under way at once, and which upstreams can't take that. Times are
time.monotonic."""

from __future__ import annotations

ONE_AT_A_TIME_FOR_S = (300.0, 3_600.0, 86_400.0)
"""after each upset the upstream gets one message at a time for so long; the last repeats"""


class Depth:
    """Of one lane at one upstream."""

    __slots__ = ("_most", "_until", "_upsets")

    def __init__(self, most: int) -> None:
        """`most`: `sessions.depth`."""
        self._most = most
        self._upsets = 0
        self._until = 0.0

    def now(self, now: float) -> int:
        """Messages that one session may have under way."""
        return 1 if now < self._until else self._most

    def slow(self, now: float) -> None:
        """The upstream takes so long to answer a content that no message should stand behind another."""
        self._until = max(self._until, now + ONE_AT_A_TIME_FOR_S[0])

    def upset(self, now: float) -> bool:
        """The upstream lost step, or ended a session, when messages stood behind each other. False: that is known."""
        if now < self._until:
            return False
        self._until = now + ONE_AT_A_TIME_FOR_S[min(self._upsets, len(ONE_AT_A_TIME_FOR_S) - 1)]
        self._upsets += 1
        return True
