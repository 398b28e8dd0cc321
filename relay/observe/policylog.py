"""Log lines and metrics about mail as it is accepted: its limits, its idempotency key, its copy."""

from __future__ import annotations

import logging
from math import inf

from relay.observe.relaylog import RelayLog


class PolicyLog(RelayLog):
    """The part of `MailLog` that intake and policy write."""

    def limited(self, message_id: str, lane: str, limit: str, action: str, wait_s: float | None = None) -> None:
        """The message exceeded a limit of the lane. If it is rejected, it isn't stored. `wait_s`: until it would be
        within the limit."""
        self.metrics.limited[lane, limit, action].inc()
        wait_ms = None if wait_s is None or wait_s == inf else wait_s * 1000
        self.line(logging.INFO, "limited", id=message_id, lane=lane, limit=limit, action=action, wait_ms=wait_ms)

    def repeated(self, message_id: str) -> None:
        """A request came again with its idempotency key: it got the same answer, and nothing is sent."""
        self.line(logging.INFO, "repeated", id=message_id)

    def copied(self, message_id: str, lane: str, copy: str) -> None:
        """A copy of the message is stored, for the archive of its lane."""
        self.metrics.copies[lane, "stored"].inc()
        self.line(logging.INFO, "copied", id=message_id, lane=lane, copy=copy)

    def not_copied(self, message_id: str, lane: str, error: Exception) -> None:
        """The message is stored and goes on; its copy for the archive of its lane could not be stored."""
        self.metrics.copies[lane, "failed"].inc()
        self.line(logging.ERROR, "not_copied", id=message_id, lane=lane, error=type(error).__name__)

    def resent(self, lane: str, *, recipients: int) -> None:
        """The same rule sent to these recipients before, within the life of its mail."""
        self.metrics.resends[(lane,)].inc(recipients)

    def limits_full(self, entries: int) -> None:
        """Limits count so many messages that the oldest are forgotten before their time."""
        self.line(logging.WARNING, "limits_full", entries=entries)
