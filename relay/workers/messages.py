"""What the main process and a worker say to each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from relay.config.model import Loaded
from relay.store.codec import Codec
from relay.upstream.base import Upstream

LEASE, RETURN, GRANTED, WANTED, PACE, UNUSED = "lease", "return", "granted", "wanted", "pace", "unused"
PING, START, PUT, PUT_LARGE, MOVE = "ping", "start", "put", "put_large", "move"
ACT, RELOAD, METRICS, DRAIN = "act", "reload", "metrics", "drain"
STATUS = "status"
LOG_LEVEL = "OTP_RELAY_LOG_LEVEL"
"""environment variable"""


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """What a worker is to do; sent at its start, and again at a reload."""

    loaded: Loaded
    """the whole configuration; rates of bulk lanes already divided by the number of workers"""
    lanes: tuple[str, ...]
    store: Path
    codec: Codec = field(repr=False)
    """of the store: the keys that the main process began with"""
    clock_offset: float
    leases: Mapping[str, str]
    """under which name the main process lends an upstream's sessions and rate: another one once it is elsewhere"""


@dataclass(frozen=True, slots=True)
class UpstreamStatus:
    circuit: str
    """the circuit's state, or `untried`"""
    sessions: Mapping[str, int]
    reason: str
    window: int | None
    """as `Upstream.window_now`"""
    words: str
    """as `Circuit.words`: for the operator's eyes only"""

    @classmethod
    def of(cls, upstream: Upstream) -> Self:
        circuit = upstream.circuit
        state = circuit.state if circuit.tried or circuit.state != "closed" else "untried"
        return cls(state, upstream.counts(), circuit.reason, upstream.window_now(), circuit.words)


@dataclass(frozen=True, slots=True)
class Status:
    """How a worker is, told twice a second."""

    lanes: Mapping[str, Mapping[str, UpstreamStatus]]
    waiting: tuple[int, int]
    """open messages and their bytes"""
    recent: Sequence[tuple[str, float, float]]
    """deliveries since the last time: lane, when (seconds since the epoch), seconds it took"""
