"""IPC messages between the main process and a worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from relay.config.model import Loaded
from relay.observe.recent import RecentDelivery
from relay.store.codec import Codec
from relay.upstream.base import Upstream
from relay.upstream.warm import Warm

# Requests of the main process.
PING, START, PUT, PUT_LARGE = "ping", "start", "put", "put_large"
ACT, RELOAD, METRICS, DRAIN = "act", "reload", "metrics", "drain"
END_SENT = "end_sent"
"""a request of the main process: a `LateEnd`; the reply is an `Ended`"""
ERASE = "erase"
MOVE = "move"
"""a request of either: import a message of another store"""
LEND_RATE = "lend_rate"
ACCESS = "access"
"""requests of the worker; `access`: an `Asked`, the reply is a `Given`"""
SHARE, SUPPRESS = "share", "suppress"
LEARN, PROVIDER = "learn", "provider"
"""notifications of the main process; `learn`: a list of `Sample`; `provider`: a domain and its mailbox provider"""
# Notifications of the worker.
STATUS, NEED, RATE_UNUSED = "status", "need", "rate_unused"
BAD_ADDRESS = "bad_address"


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """What a worker needs to begin; sent at its start, and again at a reload."""

    loaded: Loaded
    """the whole configuration; rate and concurrency of bulk lanes are divided by the number of workers"""
    lanes: tuple[str, ...]
    store: Path
    codec: Codec = field(repr=False)
    clock_offset: float
    limits_keys: Mapping[str, str]
    """by upstream: the key of its limits in the main process; another one when the upstream moves to another account"""


@dataclass(frozen=True, slots=True)
class UpstreamStatus:
    circuit: str
    """the circuit's state, or `untried`"""
    sessions: Mapping[str, int]
    reason: str
    window: int | None
    """as `Upstream.window_now`"""
    reply_text: str
    """as `Circuit.reply_text`: for the operator's eyes only"""
    warm: Warm | None = None
    """how many sessions an express lane keeps open, and why; None: a bulk lane, which keeps none"""
    certificate_ends_at: float | None = None
    """seconds since the epoch; None: not known, or there is none"""

    @classmethod
    def of(cls, upstream: Upstream) -> Self:
        circuit = upstream.circuit
        state = circuit.state if circuit.tried or circuit.state != "closed" else "untried"
        warm = upstream.warm() if upstream.express else None
        reason = upstream.ways_down or circuit.reason
        ends_at = upstream.certificates.first
        return cls(state, upstream.counts(), reason, upstream.window_now(), circuit.reply_text, warm, ends_at)


@dataclass(frozen=True, slots=True)
class Status:
    """A worker's status, sent twice a second."""

    lanes: Mapping[str, Mapping[str, UpstreamStatus]]
    waiting: tuple[int, int]
    """open messages and their bytes"""
    recent: Sequence[RecentDelivery]
    """since the last status"""
