"""Whether a commit is made in place, on the event loop, or on the writer's thread.

In place it takes half a millisecond. To wake the thread for it, and then the loop again, takes as long again. Beside a
busy loop the thread waits for the interpreter's lock behind each statement, up to 5 ms each time
(`sys.setswitchinterval`): a commit of one message then takes up to 28 ms.
"""

from __future__ import annotations

import math
import time

SHARE = 5
"""Commits of single operations take at most 1/5 of the loop's time; the others wait for the loop's next turn, and go
together."""
BUSY_TURN_S = 0.001
"""A loop that takes longer for a turn is busy."""
SLOW_S = 0.01
"""A commit that takes longer is slow."""
SLOW_IN_A_ROW = 2
"""One alone may be a processor that was busy elsewhere; so many are the disk."""
_SLOW_FOR_S = 5.0
"""Behind slow commits, none is made in place for this time."""
_CODES_FOR_S = 0.1
"""after the last express operation"""


class InPlace:
    """Times are of time.monotonic: the loop's own has whole milliseconds."""

    __slots__ = ("_asked_at", "_code_at", "_from", "_single_from", "_slow")

    def __init__(self) -> None:
        self._asked_at = math.inf
        """when the loop's next turn was asked for"""
        self._code_at = -math.inf
        self._single_from = self._from = -math.inf
        """from when on one operation, or a group of them, may be committed in place again"""
        self._slow = 0
        """slow commits in a row"""

    def code_came(self) -> None:
        """An express operation was submitted."""
        self._code_at = time.monotonic()

    def codes_are_about(self) -> bool:
        """The next code may come at any moment, and would wait behind what the thread commits."""
        return time.monotonic() - self._code_at < _CODES_FOR_S

    def turn_asked(self) -> None:
        """What waits is to be committed in the loop's next turn."""
        self._asked_at = time.monotonic()

    def now(self) -> bool:
        """Whether a single operation may be committed at once."""
        return time.monotonic() >= self._single_from

    def at_turn(self) -> bool:
        """Whether what waits may be committed in place: the turn that was asked for begins, in a busy loop, and the
        thread would hold up a code."""
        now = time.monotonic()
        is_late, self._asked_at = now - self._asked_at > BUSY_TURN_S, math.inf
        return is_late and now >= self._from and self.codes_are_about()

    def took(self, began: float) -> None:
        """A commit in place is over."""
        ended = time.monotonic()
        took_s = ended - began
        self._slow = self._slow + 1 if took_s > SLOW_S else 0
        # On a slow disk the loop has better things to do than to wait.
        self._from = ended + _SLOW_FOR_S if self._slow >= SLOW_IN_A_ROW else self._from
        self._single_from = max(self._from, ended + (SHARE - 1) * took_s)
