"""Whether mail can be taken now: looks at the queue, the disk and the store for the policy, which decides."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from relay.config.model import Queue
from relay.mail.reply import Reply
from relay.observe.pressure import QueueFill
from relay.policy.check import PolicyFacts, Refuse, StoreFailure, check_capacity

DISK_EVERY_S = 1.0
STORE_FAILED_FOR_S = 5.0
"""How long a failed write refuses mail, unless a later write succeeds."""


class Admission:
    """Asked several times a message, so it answers from memory; the disk is looked at once a second at most."""

    def __init__(
        self,
        store: Path,
        queue: Callable[[], Queue],
        waiting: Callable[[], tuple[int, int]],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`queue`: the limits in force. `waiting`: how many messages are unfinished, and their bytes."""
        self._folder = store.parent
        self._queue = queue
        self._waiting = waiting
        self._now = now
        self._free_bytes = 0
        self._disk_due_at = 0.0
        self._failure: StoreFailure = "unwritable"
        self._failed_until = 0.0

    def store_failed(self, *, full: bool) -> None:
        """A message could not be written just now; `full`: for want of space."""
        self._failure = "full" if full else "unwritable"
        self._failed_until = self._now() + STORE_FAILED_FOR_S

    def store_works(self) -> None:
        """A message was written just now."""
        self._failed_until = 0.0

    def fill(self) -> QueueFill:
        """What waits, beside its limits."""
        queue, (messages, size_bytes) = self._queue(), self._waiting()
        return QueueFill(messages, size_bytes, self._free(), queue.min_free_bytes, queue.max_messages, queue.max_bytes)

    def facts(self, size_bytes: int) -> PolicyFacts:
        """What the policy decides from about a content of that size, which has come in."""
        return PolicyFacts(free_bytes=self._free(), size_bytes=size_bytes)

    def capacity(self) -> PolicyFacts:
        """What the policy decides from before a message begins."""
        fill, failed = self.fill(), self._now() < self._failed_until
        return PolicyFacts(fill.reasons(), self._failure if failed else None, fill.free_bytes)

    def reasons(self) -> Sequence[str]:
        """Why no mail can be taken, in words; empty: it can."""
        facts = self.capacity()
        return [*(["store unwritable"] if facts.store_failure else []), *facts.limits_reached]

    def refusal(self) -> Reply | None:
        """The reply to a client that would begin a message; None: it may."""
        decision = check_capacity(self.capacity())
        return decision.reply if isinstance(decision, Refuse) else None

    def _free(self) -> int:
        now = self._now()
        if now >= self._disk_due_at:
            self._disk_due_at = now + DISK_EVERY_S
            disk = os.statvfs(self._folder)
            self._free_bytes = disk.f_bavail * disk.f_frsize
        return self._free_bytes
