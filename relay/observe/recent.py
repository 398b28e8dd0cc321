"""The last deliveries of each lane, in memory: what a live view shows without asking the store."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from dataclasses import dataclass

from relay.observe.bands import Band, tally
from relay.observe.quantiles import percentile

KEPT = 2000
"""deliveries remembered per lane, failed ones among them"""
NEVER_S = math.inf
"""the duration of a delivery that failed"""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a lane was within a window."""

    sent: int
    failed: int
    """recipients that nothing reached: bounced or expired"""
    p50_ms: float | None
    p95_ms: float | None
    max_ms: float | None
    bands: dict[Band, int]
    """of both"""
    latest_ms: tuple[float, ...]
    """the newest last"""

    def as_json(self) -> dict[str, object]:
        return {
            "sent": self.sent,
            "failed": self.failed,
            "p50_ms": self.p50_ms,
            "p95_ms": self.p95_ms,
            "max_ms": self.max_ms,
            "bands": self.bands,
            "latest_ms": list(self.latest_ms),
        }


class Recent:
    """`note` each delivery, ask for the `pace` of a lane."""

    def __init__(self, kept: int = KEPT) -> None:
        self._lanes: defaultdict[str, deque[tuple[float, float]]] = defaultdict(lambda: deque(maxlen=kept))

    def note(self, lane: str, at: float, total_s: float) -> None:
        """`at`: seconds since the epoch. `total_s`: NEVER_S where it failed."""
        self._lanes[lane].append((at, total_s))

    def pace(self, lane: str, since: float, latest: int = 60) -> Pace:
        """Of the remembered deliveries since then; `latest`: how many single times to give."""
        if lane not in self._lanes:
            return Pace(0, 0, None, None, None, tally(()), ())
        ended_s = [total_s for at, total_s in self._lanes[lane] if at >= since]
        times_s = [total_s for total_s in ended_s if total_s < NEVER_S]
        ordered_ms = sorted(total_s * 1000 for total_s in times_s)
        return Pace(
            sent=len(times_s),
            failed=len(ended_s) - len(times_s),
            p50_ms=percentile(ordered_ms, 50),
            p95_ms=percentile(ordered_ms, 95),
            max_ms=ordered_ms[-1] if ordered_ms else None,
            bands=tally(ended_s),
            latest_ms=tuple(total_s * 1000 for total_s in times_s[-latest:]),
        )
