"""Whether the same rule sent to the same recipient a short time ago, for a metric. In memory, bounded, pure."""

from __future__ import annotations

MOST_KEYS = 100_000


class Resends:
    """The last time of each key. The oldest are forgotten where there are too many."""

    def __init__(self, most: int = MOST_KEYS) -> None:
        self._most = most
        self._last: dict[int, float] = {}

    def note(self, key: int, now: float, within_s: float) -> bool:
        """Note a message with this key. Whether there was one within that time before."""
        before = self._last.pop(key, None)
        self._last[key] = now
        if len(self._last) > self._most:
            del self._last[next(iter(self._last))]
        return before is not None and now - before < within_s
