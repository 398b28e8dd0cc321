"""Congestion window: how much bulk mail an upstream gets at once, learnt and not configured. Pure; times are
time.monotonic.

As TCP's (RFC 5681), it grows by one for each window that went well, and is halved when the upstream throttles or gets
slow. TCP sends again at once what it lost, but a message waits for its ladder's next step. So a size that was once too
much is tried again seldom.
"""

from __future__ import annotations

import math
import re

from relay.mail.reply import Reply
from relay.upstream.results import Phase

INITIAL_WINDOW = 4
PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""pauses after throttled messages; the last repeats. SES asks for 5, 10 and 30."""
CUT_EVERY_S = 1.0
"""Messages that were under way when the window was halved say nothing about the new size."""
CAP_FOR_S = 15.0
CAP_FOR_AT_MOST_S = 240.0
"""time after which one more session than allowed is tried; doubled with each further refusal"""

SAMPLES_PER_ROUND = 8
"""RFC 9406 4.2: a round is slow if its quickest reply is. Fewer slow replies say nothing."""
SLOW_FACTOR = 3.0
SLOW_S = 0.1
FORGET_S = 60.0
"""After 60 to 120 s the slower reply time becomes the new baseline: the cause is not our load."""

_MAIL_CODES = frozenset({421, 450, 451, 452, 454})
_ABOUT_THE_HOST = frozenset({"3", "4", "7"})
"""RFC 3463 subjects that speak of the system, the network or policy; 1, 2 and 6 are about addresses and content"""
# SES: "Throttling failure: Maximum sending rate exceeded", Azure: "Excessive message rate", Exchange Online: "sender
# thread limit exceeded", Resend: "Too many requests", SendGrid: "Maximum credits exceeded"; "too many connections".
_THROTTLING_TEXT = re.compile(
    r"throttl|slow down|rate.?limit|too fast|too many (?!recipients)|excessive|credits exceeded"
    r"|(?:rate|sending|connection|session|thread|concurren\w*|message|daily|hourly) (?:limit|quota)"
    r"|(?:rate|connections|sessions|messages)\b.{0,30}\bexceed|exceed\w*\b.{0,30}\b(?:rate|connections|sessions)",
    re.IGNORECASE,
)


def is_throttling_text(reply: Reply) -> bool:
    """Whether a 4yz says in its text that the upstream gets too much, and isn't about a mailbox."""
    enhanced = reply.enhanced
    about_a_mailbox = enhanced is not None and enhanced[2] in "12"
    return reply.transient and not about_a_mailbox and _THROTTLING_TEXT.search(reply.text) is not None


def throttles(reply: Reply, phase: Phase, *, kept: bool) -> bool:
    """Whether a 4yz in a transaction asks for less, rather than being about this one message.

    `kept`: the session carried others before. An upstream then ends an old session with 421 to MAIL (RFC 5321 3.8).
    """
    if is_throttling_text(reply):
        return True
    if phase == "mail":
        enhanced = reply.enhanced
        subject_fits = enhanced is None or enhanced[2] in _ABOUT_THE_HOST
        return reply.code in _MAIL_CODES and subject_fits and not (kept and reply.code == 421)
    return reply.code in (421, 454)


class Window:
    """How many messages one lane may have under way at one upstream (`room`), and how many sessions (`sessions`).

    Both are at most `ceiling` and, outside of a pause, at least 1.
    """

    __slots__ = (
        "_cap",
        "_cap_for_s",
        "_cap_until",
        "_cut_again_at",
        "_floor_s",
        "_forget_at",
        "_limit",
        "_next_floor_s",
        "_quickest_s",
        "_replies",
        "_slow",
        "_threshold",
        "_throttled",
        "ceiling",
        "resume_at",
    )

    def __init__(self, ceiling: int, start: int = INITIAL_WINDOW) -> None:
        self.ceiling = ceiling
        self.resume_at = 0.0
        """end of the pause: nothing is sent before"""
        self._limit = float(max(1, min(start, ceiling)))
        self._threshold = math.inf
        """below it the window grows by one a message (slow start), above it by one a window"""
        self._throttled = 0
        """pauses since it last went well"""
        self._cut_again_at = 0.0
        self._cap = ceiling
        """how many the upstream allowed when it refused one more"""
        self._cap_for_s = CAP_FOR_S
        self._cap_until = 0.0
        self._floor_s = self._next_floor_s = self._quickest_s = math.inf
        self._forget_at = 0.0
        self._replies = 0
        self._slow = False

    @property
    def limit(self) -> int:
        """How many messages may be under way outside of a pause."""
        return int(self._limit)

    def room(self, now: float) -> int:
        """How many messages may be under way now: none in a pause, one until that was accepted, then `limit`."""
        if now < self.resume_at:
            return 0
        return 1 if self._throttled else self.sessions(now)

    def sessions(self, now: float) -> int:
        """How many sessions may be open; now and then one more than the upstream last allowed."""
        if self._cap >= self._limit:
            return int(self._limit)
        return min(int(self._limit), self._cap + (now >= self._cap_until))

    def succeeded(self, now: float, in_use: int, reply_s: float | None = None) -> None:
        """A message was accepted, while `in_use` sessions were busy. `reply_s`: how long the reply to its content took;
        None where that says nothing about the upstream (a large content)."""
        if now < self.resume_at:
            return  # it was under way before the pause
        self._throttled = 0
        self.opened(in_use)
        if reply_s is not None:
            self._timed(now, reply_s)
        # RFC 7661: a window that isn't full proves nothing.
        if in_use >= self.limit and not self._slow:
            step = 1.0 if self._limit < self._threshold else 1.0 / self._limit
            self._limit = min(float(self.ceiling), self._limit + step)

    def throttled(self, now: float) -> None:
        """The upstream asks for less: pause, then half the window."""
        if now < self.resume_at:
            return
        if not self._throttled:
            self.refused(now, self.sessions(now) - 1)
        self._cut(now, CUT_EVERY_S)
        self.resume_at = now + PAUSES_S[min(self._throttled, len(PAUSES_S) - 1)]
        self._throttled += 1

    def refused(self, now: float, held: int) -> None:
        """One more than `held` (sessions open or opening, or messages under way) was one too many."""
        if now >= self._cap_until:
            again = self._cap_until > 0.0 and held <= self._cap
            self._cap_for_s = min(2 * self._cap_for_s, CAP_FOR_AT_MOST_S) if again else CAP_FOR_S
            self._cap_until = now + self._cap_for_s
        self._cap = max(1, min(held, self.ceiling))

    def opened(self, held: int) -> None:
        """So many sessions are allowed after all."""
        if held > self._cap:
            self._cap = min(held, self.ceiling)

    def _timed(self, now: float, reply_s: float) -> None:
        """Compare the quickest reply of each round with the quickest known."""
        self._quickest_s = min(self._quickest_s, reply_s)
        self._replies += 1
        if self._replies < SAMPLES_PER_ROUND:
            return
        round_s, self._quickest_s, self._replies = self._quickest_s, math.inf, 0
        if now >= self._forget_at:
            self._floor_s, self._next_floor_s = self._next_floor_s, round_s
            self._forget_at = now + FORGET_S
        self._next_floor_s = min(self._next_floor_s, round_s)
        self._floor_s = min(self._floor_s, round_s)
        self._slow = round_s > max(SLOW_S, SLOW_FACTOR * self._floor_s)
        if self._slow:
            self._cut(now, max(CUT_EVERY_S, round_s))

    def _cut(self, now: float, every_s: float) -> None:
        if now < self._cut_again_at:
            return
        self._limit = self._threshold = max(1.0, self._limit / 2)
        self._cut_again_at = now + every_s
