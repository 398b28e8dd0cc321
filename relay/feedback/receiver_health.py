"""Whether a receiver works: what the answers to its posts say. Pure."""

from __future__ import annotations

DOWN_AFTER = 20
"""failures in a row"""
LINES_EVERY_S = 60.0
"""A receiver that fails now and then gets a pair of log lines no more often than this."""


class Health:
    """Failures in a row of one receiver. Times are the relay's."""

    def __init__(self) -> None:
        self.failing_since: float | None = None
        """None: the last post arrived, or there was none"""
        self.last_result: str | None = None
        self._failures = 0
        self._logged_at: float | None = None
        self._logged = False

    @property
    def is_down(self) -> bool:
        return self._failures >= DOWN_AFTER

    def failed(self, result: str, now: float) -> bool:
        """A post failed. True: that is worth a log line."""
        self.last_result = result
        self._failures += 1
        if self.failing_since is not None:
            return False
        self.failing_since = now
        if self._logged_at is not None and now - self._logged_at < LINES_EVERY_S:
            return False
        self._logged_at, self._logged = now, True
        return True

    def worked(self, result: str) -> bool:
        """A post arrived. True: that is worth a log line."""
        self.last_result = result
        self._failures = 0
        self.failing_since = None
        logged, self._logged = self._logged, False
        return logged
