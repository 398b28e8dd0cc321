"""What the measuring processes write down, and what is made of it."""

from __future__ import annotations

import math
import statistics
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ARRIVAL = struct.Struct("<QQQB")
"""the sink's: bench id (0: none), monotonic ns of the last byte, bytes of the content, 1 if it was signed"""
SENT = struct.Struct("<QQQ")
"""the load's: bench id, monotonic ns just before the final dot was written, monotonic ns of the 250 (0: none came)"""


@dataclass(frozen=True, slots=True)
class Arrival:
    bench_id: int
    at_ns: int
    size_bytes: int
    signed: bool


@dataclass(frozen=True, slots=True)
class Sent:
    bench_id: int
    dot_ns: int
    acknowledged_ns: int


def arrivals(path: Path) -> list[Arrival]:
    return [Arrival(a, b, c, bool(d)) for a, b, c, d in ARRIVAL.iter_unpack(_whole(path, ARRIVAL.size))]


def arrived(path: Path) -> int:
    """How many messages so far."""
    return path.stat().st_size // ARRIVAL.size if path.exists() else 0


def sent(path: Path) -> list[Sent]:
    return [Sent(*fields) for fields in SENT.iter_unpack(_whole(path, SENT.size))]


def _whole(path: Path, size: int) -> bytes:
    data = path.read_bytes() if path.exists() else b""
    return data[: len(data) // size * size]


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Of times in milliseconds."""

    n: int
    p50: float
    p95: float
    p99: float
    worst: float


def quantiles(values_ms: Sequence[float]) -> Quantiles:
    """By nearest rank: each is a time that was measured."""
    if not values_ms:
        return Quantiles(0, math.nan, math.nan, math.nan, math.nan)
    ranked = sorted(values_ms)

    def rank(share: float) -> float:
        return ranked[max(0, math.ceil(share * len(ranked)) - 1)]

    return Quantiles(len(ranked), rank(0.5), rank(0.95), rank(0.99), ranked[-1])


@dataclass(frozen=True, slots=True)
class Spread:
    """One figure over the repetitions."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        if not values:
            return cls(math.nan, math.nan, math.nan)
        return cls(statistics.median(values), min(values), max(values))
