"""Message ids: ULIDs, text that sorts by time (https://github.com/ulid/spec)."""

from __future__ import annotations

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = tuple(high + low for high in _ALPHABET for low in _ALPHABET)
_SHIFTS = tuple(range(120, -1, -10))
_RANDOM_BITS = 80
_LARGEST_MS = (1 << 48) - 1


class IdMaker:
    """Makes ids that are strictly increasing within the process, also when the clock stands or goes back."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last = -1

    def new_id(self, now: float, random: bytes) -> str:
        """26 characters of Crockford's base 32. `now`: seconds since the epoch; `random`: ten bytes of it."""
        milliseconds = min(max(int(now * 1000), 0), _LARGEST_MS)
        value = milliseconds << _RANDOM_BITS | int.from_bytes(random[:10], "big")
        if value <= self._last:
            value = self._last + 1
        self._last = value
        return "".join([_PAIRS[value >> shift & 1023] for shift in _SHIFTS])
