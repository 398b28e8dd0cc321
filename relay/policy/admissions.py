"""When messages were accepted, by limit key: what limits are judged by. In memory, bounded, pure.

A key is a keyed hash of 64 bits (`limits.key_of`). Times are seconds since the epoch. The entries of all keys stand in
one queue in the order in which they came: the oldest leave it first, once they are too old to matter or there are too
many.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from typing import NamedTuple

MOST_ENTRIES = 1_500_000
MOST_KEYS = 500_000
"""A key takes some 200 bytes and each of its entries 24: 140 MB at most."""
_STEPS = 64
"""entries that one call lets go of, so that no message waits for a thousand others"""
_COMPACT_AT = 65_536
_NEVER: array[float] = array("d")


class Admission(NamedTuple):
    """One accepted message in the limits' books."""

    seq: int
    """A message takes as many numbers as it has keys, so the difference of two is the number of entries between."""
    at: float
    """when it counts: when it is sent, if that is later than its acceptance"""
    keys: tuple[int, ...]


class Admissions:
    """Entries by key."""

    def __init__(self, most_entries: int = MOST_ENTRIES, most_keys: int = MOST_KEYS) -> None:
        self.forgotten = 0
        """entries that had to go before their time, because there were too many"""
        self._most_entries, self._most_keys = most_entries, most_keys
        self._times: dict[int, array[float]] = {}
        self._ats = array("d")
        self._keys = array("q")
        self._first = 0
        """of `_ats` and `_keys`: those before it are gone"""
        self._next_seq = 1

    def __len__(self) -> int:
        return len(self._ats) - self._first

    def times(self, key: int) -> Sequence[float]:
        """When messages with this key count, in order. Some may be in the future."""
        return self._times.get(key, _NEVER)

    def add(self, at: float, keys: Sequence[int]) -> Admission:
        """Count a message."""
        admission = Admission(self._next_seq, at, tuple(keys))
        self.restore(admission)
        return admission

    def restore(self, admission: Admission) -> None:
        """Count a message that was counted before, by an earlier process."""
        for key in admission.keys:
            times = self._times.get(key)
            if times is None:
                self._times[key] = array("d", (admission.at,))
            elif times[-1] <= admission.at:
                times.append(admission.at)
            else:
                insort(times, admission.at)
            self._ats.append(admission.at)
            self._keys.append(key)
        self._next_seq = max(self._next_seq, admission.seq + len(admission.keys))
        while len(self) > self._most_entries or len(self._times) > self._most_keys:
            self._drop_first()
            self.forgotten += 1

    def restore_all(self, earlier: Iterable[Admission]) -> None:
        """Count all messages that earlier processes counted, in order, in books that are empty. Of too many, the newest
        stay: what is over the bounds is never entered, which takes a third of the time."""
        for seq, at, keys in earlier:
            for key in keys:
                self._ats.append(at)
                self._keys.append(key)
            self._next_seq = seq + len(keys)
        first = self._first_within_bounds()
        del self._ats[:first], self._keys[:first]
        self.forgotten += first
        times = self._times
        for key, at in zip(self._keys, self._ats, strict=True):
            counted = times.get(key)
            if counted is None:
                times[key] = array("d", (at,))
            elif counted[-1] <= at:
                counted.append(at)
            else:
                insort(counted, at)

    def _first_within_bounds(self) -> int:
        """The first of the entries, none of which has left, that is within both bounds."""
        least, seen = max(0, len(self._keys) - self._most_entries), set[int]()
        for place in range(len(self._keys) - 1, least - 1, -1):
            seen.add(self._keys[place])
            if len(seen) > self._most_keys:
                return place + 1
        return least

    def remove(self, admission: Admission) -> None:
        """A message that was counted isn't sent after all."""
        # Its places in the queue stay: when they leave it, their keys have no such time any more.
        for key in admission.keys:
            self._forget(key, admission.at)

    def expire(self, before: float) -> None:
        """Let go of some entries that count before this time."""
        for _ in range(_STEPS):
            if not len(self) or self._ats[self._first] >= before:
                return
            self._drop_first()

    def _drop_first(self) -> None:
        self._forget(self._keys[self._first], self._ats[self._first])
        self._first += 1
        if self._first >= _COMPACT_AT:
            del self._ats[: self._first], self._keys[: self._first]
            self._first = 0

    def _forget(self, key: int, at: float) -> None:
        times = self._times.get(key, _NEVER)
        place = bisect_left(times, at)
        if place == len(times) or times[place] != at:
            return
        if len(times) == 1:
            del self._times[key]
        else:
            del times[place]
