"""Suppressed addresses as the store keeps them, and as JSON shows them."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

from relay.policy.suppression import Cause, Entry, detail_of, hash_of, key_of, shown_hash, without_addresses
from relay.store.view import Json, time_text

MOST_REASON_CHARS = 500
cached_detail = lru_cache(maxsize=4_096)(detail_of)


class Suppression(NamedTuple):
    """One address that must not be mailed, for one cause. Times are seconds since the epoch."""

    key: int
    """`policy.suppression.key_of`"""
    cause: Cause
    address: str | None
    """as it was given; None: it isn't kept"""
    reason: str
    upstream: str | None
    at: float
    until: float | None
    """None: until it is removed"""

    @classmethod
    def of(
        cls,
        address: str,
        cause: Cause,
        reason: str,
        *,
        hash_key: bytes,
        at: float,
        upstream: str | None = None,
        until: float | None = None,
        hashed: bool = False,
    ) -> Suppression:
        """`hash_key`: the store's. `hashed`: the address isn't kept, unless it was given by hand."""
        hash_ = hash_of(address, hash_key)
        is_known = shown_hash(hash_) != address and (cause == "manual" or not hashed)
        text = " ".join(reason.split()) if cause == "manual" else without_addresses(reason)
        text = "".join(char for char in text if char.isprintable())[:MOST_REASON_CHARS]
        until = None if until is None else round(until, 3)  # as `import` reads what `export` wrote
        return cls(key_of(hash_, cause), cause, address if is_known else None, text, upstream, at, until)

    def entry(self) -> Entry:
        """It as the set in memory has it."""
        until = None if self.until is None else math.ceil(self.until)
        return Entry(self.key, int(self.at), until, cached_detail(self.cause, self.reason))

    def as_json(self) -> Json:
        return {
            "address": self.address if self.address is not None else shown_hash(self.key),
            "cause": self.cause,
            "reason": self.reason,
            "upstream": self.upstream,
            "at": time_text(self.at),
            "until": time_text(self.until),
        }


class SuppressionQuery(NamedTuple):
    """Which suppressions a listing shows, newest first."""

    hashed: int | None = None
    """an address (`policy.suppression.hash_of`)"""
    cause: Cause | None = None
    behind: tuple[float, int] | None = None
    """`at` and `key` of the last one that the page before showed"""
    limit: int = 100


class WantedSuppression(NamedTuple):
    """What an operator adds."""

    address: str
    reason: str = ""
    until: float | None = None
    """seconds since the epoch; None: until it is removed"""
    cause: Cause = "manual"

    def row(self, hash_key: bytes, at: float, *, hashed: bool = False) -> Suppression:
        """It as the store keeps it. `hash_key`, `at` and `hashed` as in `Suppression.of`."""
        return Suppression.of(
            self.address, self.cause, self.reason, hash_key=hash_key, at=at, until=self.until, hashed=hashed
        )
