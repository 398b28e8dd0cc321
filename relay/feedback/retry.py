"""When a post is tried again, and when it is given up. Pure: time and randomness come in as arguments."""

from __future__ import annotations

from typing import NamedTuple

LADDER_S = (1.0, 5.0, 30.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0)
"""between attempts; the last one repeats"""
KEEP_TRYING_S = 3 * 86_400.0
"""from the event on"""
JITTER = 0.1
"""of a wait, on top of it: what failed together isn't tried again together"""
LONGEST_RETRY_AFTER_S = 3600.0
"""what a receiver may ask for"""
GONE_S = 1800.0
"""410: the least wait. It isn't the end: a proxy that is set up wrongly says it, too."""

_ASKS_TO_WAIT = (429, 503)


class Answer(NamedTuple):
    """What came of one attempt."""

    result: str
    """`200`, `timeout`: bounded, without anything that the receiver wrote"""
    status: int | None = None
    """None: there was no response"""
    retry_after_s: float | None = None

    @property
    def is_delivered(self) -> bool:
        return self.status is not None and 200 <= self.status <= 299


def next_attempt(answer: Answer, attempts: int, created_at: float, now: float, chance: float) -> float | None:
    """When a post is due again after an attempt failed at `now`; None: it is given up. `attempts`: failed before this
    one; `chance`: 0 to 1."""
    end = created_at + KEEP_TRYING_S
    if now >= end:
        return None
    wait_s = LADDER_S[min(attempts, len(LADDER_S) - 1)] * (1 + JITTER * chance)
    if answer.status in _ASKS_TO_WAIT and answer.retry_after_s is not None:
        wait_s = max(wait_s, min(answer.retry_after_s, LONGEST_RETRY_AFTER_S))
    if answer.status == 410:
        wait_s = max(wait_s, GONE_S)
    # The last attempt comes when the time is over, not before.
    return min(now + wait_s, max(end, now + LADDER_S[0]))
