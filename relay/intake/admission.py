"""Whether mail can be taken now: the queue's limits, the disk, the store's health."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from relay.config.model import Queue
from relay.mail.reply import Reply
from relay.observe.pressure import QueueFill

FULL = Reply(452, "4.3.1 no room for more mail now; try again")
BROKEN = Reply(451, "4.3.0 the store can't be written now; try again")
DISK_EVERY_S = 1.0
STORE_FAILED_FOR_S = 5.0
"""after a failed write the relay says no for so long, unless a later write succeeds; then it tries again"""


class Admission:
    """Asked before every message, so it answers from memory; the disk is looked at once a second at most."""

    def __init__(self, store: Path) -> None:
        self._folder = store.parent
        self._free_bytes = 0
        self._looked_at = 0.0
        self._failed_at: float | None = None
        self._failed_with = BROKEN

    def store_failed(self, *, full: bool) -> None:
        """A message could not be written just now; `full`: for want of room."""
        self._failed_at, self._failed_with = time.monotonic(), FULL if full else BROKEN

    def store_works(self) -> None:
        self._failed_at = None

    def fill(self, queue: Queue, waiting: tuple[int, int]) -> QueueFill:
        """What waits beside its limits. `waiting`: open messages and their bytes."""
        messages, size_bytes = waiting
        return QueueFill(messages, size_bytes, self._free(), queue.min_free_bytes, queue.max_messages, queue.max_bytes)

    def reasons(self, queue: Queue, waiting: tuple[int, int]) -> Sequence[str]:
        """Why not, in words; empty: it can."""
        failed = self._failed_at is not None and time.monotonic() - self._failed_at < STORE_FAILED_FOR_S
        return [*(("store unwritable",) if failed else ()), *self.fill(queue, waiting).reasons()]

    def refusal(self, queue: Queue, waiting: tuple[int, int]) -> Reply | None:
        """What an app is told before its message; None: go on."""
        reasons = self.reasons(queue, waiting)
        if not reasons:
            return None
        return self._failed_with if reasons == ["store unwritable"] else FULL

    def _free(self) -> int:
        now = time.monotonic()
        if now - self._looked_at >= DISK_EVERY_S:
            self._looked_at = now
            disk = os.statvfs(self._folder)
            self._free_bytes = disk.f_bavail * disk.f_frsize
        return self._free_bytes
