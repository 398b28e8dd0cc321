"""What a code would take if codes and bulk mail stood in one queue: computed from what the demo measures. Pure.

The queue is first in, first out. Each mail goes to the same upstreams as in the demo; only the lanes are missing. Then
a code leaves when every bulk message that was accepted before it has been tried once:

    ahead  = bulk messages that are accepted and were not tried yet, when the code leaves
    rate   = bulk messages that the slow upstream was tried with for the first time, a second, over RATE_OVER_S
    answer = ahead / rate + what the code took

That favours the one queue: second tries of bulk messages are not counted as ahead, nor are bulk messages whose event
has not come yet.
"""

from __future__ import annotations

from collections import deque

RATE_OVER_S = 15.0
LEAST_TRIES, LEAST_S = 5, 1.0


class OneQueue:
    """Told of bulk mail and of codes, it answers for each code. Times are seconds of one clock."""

    def __init__(self) -> None:
        self._untried: set[str] = set()
        self._tried_at: deque[float] = deque()
        self.rate_per_s: float | None = None
        """None while too little is measured"""

    @property
    def ahead(self) -> int:
        return len(self._untried)

    def bulk_accepted(self, message_id: str) -> None:
        self._untried.add(message_id)

    def bulk_tried(self, message_id: str, at_s: float) -> None:
        """A try of a bulk message ended, whatever came of it."""
        if message_id not in self._untried:
            return
        self._untried.discard(message_id)
        self._tried_at.append(at_s)
        while self._tried_at[0] < at_s - RATE_OVER_S:
            self._tried_at.popleft()
        over_s = at_s - self._tried_at[0]
        if len(self._tried_at) >= LEAST_TRIES and over_s >= LEAST_S:
            self.rate_per_s = (len(self._tried_at) - 1) / over_s

    def code_would_take_s(self, took_s: float) -> float | None:
        """For a code that leaves now, `took_s` after its final dot. None while too little is measured."""
        return None if self.rate_per_s is None else self.ahead / self.rate_per_s + took_s
