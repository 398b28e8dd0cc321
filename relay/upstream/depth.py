"""How many messages a session may have under way at once, learnt from the upstream. Pure; times are time.monotonic.

Three things speak against it: an upstream that loses step, one that takes so long to answer a content that another
session is opened in less time, and one that hasn't shown yet that it reads ahead.
"""

from __future__ import annotations

ONE_AT_A_TIME_FOR_S = (300.0, 3_600.0, 86_400.0)
"""after each upset the upstream gets one message at a time for so long; the last repeats"""
LEAST_WAIT_S = 0.25
"""what a message may wait for those before it, however quickly a session is opened"""
NEWEST_SHARE = 0.3
"""of the newest measurement in the mean"""


class Depth:
    """Of one lane at one upstream."""

    __slots__ = ("_content_s", "_most", "_opening_s", "_until", "_upsets", "is_proven", "reason")

    def __init__(self, most: int) -> None:
        """`most`: `sessions.depth`."""
        self.is_proven = False
        """the upstream has answered an envelope that stood behind a content: it reads ahead"""
        self.reason = ""
        """why there is one message at a time"""
        self._most = most
        self._upsets = 0
        self._until = 0.0
        self._content_s = 0.0
        """mean time of the reply to a content that stood alone; 0: none was measured"""
        self._opening_s = 0.0

    def limit_to_one(self) -> None:
        """The protocol has one message after the other."""
        self._most = 1

    def now(self, now: float) -> int:
        """Messages that one session may have under way."""
        return 1 if now < self._until else self._most

    def allows_behind(self, now: float, messages: int) -> bool:
        """Whether one more may stand behind so many messages, rather than wait for another session."""
        wait_s = messages * self._content_s
        return messages < self.now(now) and wait_s <= max(LEAST_WAIT_S, self._opening_s)

    def answered(self, content_s: float) -> None:
        """A content that stood alone was answered after so long."""
        self._content_s = _mean(self._content_s, content_s)

    def opened(self, opening_s: float) -> None:
        """Opening a session took so long."""
        self._opening_s = _mean(self._opening_s, opening_s)

    def slow(self, now: float) -> bool:
        """The upstream takes so long to answer a content that a message behind it gave up. False: that is known."""
        return self._one_at_a_time(now, ONE_AT_A_TIME_FOR_S[0], "slow replies to contents")

    def upset(self, now: float) -> bool:
        """The upstream lost step, or ended a session, when messages stood behind each other. False: that is known."""
        self.is_proven = False
        for_s = ONE_AT_A_TIME_FOR_S[min(self._upsets, len(ONE_AT_A_TIME_FOR_S) - 1)]
        known = not self._one_at_a_time(now, for_s, "replies out of step")
        self._upsets += not known
        return not known

    def _one_at_a_time(self, now: float, for_s: float, reason: str) -> bool:
        if now < self._until:
            return False
        self._until, self.reason = now + for_s, reason
        return True


def _mean(before: float, newest: float) -> float:
    return before + NEWEST_SHARE * (newest - before) if before else newest
