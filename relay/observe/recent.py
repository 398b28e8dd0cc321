"""The last deliveries of each lane, in memory, for live views that don't ask the store."""

from __future__ import annotations

import math
from collections import Counter, defaultdict, deque
from typing import Literal, NamedTuple, get_args

from relay.observe.bands import Band, tally
from relay.observe.quantiles import percentile

KEPT = 2000
"""deliveries remembered per lane, failed ones among them"""
NEVER_S = math.inf
"""the duration of a delivery that failed"""
Failure = Literal["bounced", "expired"]
FAILURES: tuple[Failure, ...] = get_args(Failure)
RecentDelivery = tuple[str, float, float, Failure | None]
"""what `Recent.note` takes"""


class Pace(NamedTuple):
    """Delivery times of a lane within a window."""

    sent: int
    failed: int
    """recipients that bounced or expired"""
    ended: dict[Failure, int]
    """the failed ones, by how they ended"""
    p50_ms: float | None
    p95_ms: float | None
    max_ms: float | None
    bands: dict[Band, int]
    """of sent and failed recipients"""
    latest_ms: tuple[float, ...]
    """single delivery times, newest last"""

    def as_json(self) -> dict[str, object]:
        return self._asdict()


class Recent:
    """A bounded history of deliveries: `note` each one, read the `pace` of a lane."""

    def __init__(self, kept: int = KEPT) -> None:
        self._lanes: defaultdict[str, deque[tuple[float, float, Failure | None]]] = defaultdict(
            lambda: deque(maxlen=kept)
        )

    def note(self, lane: str, at: float, total_s: float, failure: Failure | None = None) -> None:
        """`at`: seconds since the epoch. `total_s`: NEVER_S where it failed."""
        self._lanes[lane].append((at, total_s, failure))

    def pace(self, lane: str, since: float, latest: int = 60) -> Pace:
        """The remembered deliveries since that time. `latest`: the number of single delivery times."""
        if lane not in self._lanes:
            return Pace(0, 0, dict.fromkeys(FAILURES, 0), None, None, None, tally(()), ())
        within = [(total_s, failure) for at, total_s, failure in self._lanes[lane] if at >= since]
        ended_s = [total_s for total_s, _ in within]
        failures = Counter(failure for _, failure in within)
        times_s = [total_s for total_s in ended_s if total_s < NEVER_S]
        ordered_ms = sorted(total_s * 1000 for total_s in times_s)
        return Pace(
            sent=len(times_s),
            failed=len(ended_s) - len(times_s),
            ended={failure: failures[failure] for failure in FAILURES},
            p50_ms=percentile(ordered_ms, 50),
            p95_ms=percentile(ordered_ms, 95),
            max_ms=ordered_ms[-1] if ordered_ms else None,
            bands=tally(ended_s),
            latest_ms=tuple(total_s * 1000 for total_s in times_s[-latest:]),
        )
