"""The report: counts, percentiles and bands by lane, upstream and mailbox provider. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from relay.observe.bands import BANDS, NEVER_ARRIVED, Band, band
from relay.observe.quantiles import percentile_of


class Finished(Protocol):
    """A row of the store's `deliveries`: finished recipients that have all of these in common."""

    @property
    def lane(self) -> str: ...
    @property
    def upstream(self) -> str | None: ...
    @property
    def provider(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def total_ms(self) -> float | None: ...
    @property
    def recipients(self) -> int: ...
    @property
    def slow_receive(self) -> bool: ...


class Figures(NamedTuple):
    """Outcomes of a group of recipients. Percentiles count sent recipients; bands count those that bounced or expired,
    too."""

    recipients: int
    states: dict[str, int]
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    bands: dict[Band, int]
    slow_receive: int
    """recipients whose message the app took long to hand over"""

    def as_json(self) -> dict[str, object]:
        return self._asdict()


class Line(NamedTuple):
    """One group of the report. Upstream and provider are None in a lane's total."""

    lane: str
    upstream: str | None
    provider: str | None
    figures: Figures

    def as_json(self) -> dict[str, object]:
        place = {"lane": self.lane, "upstream": self.upstream, "provider": self.provider}
        return {**place, **self.figures.as_json()}


class Report(NamedTuple):
    """Totals of the lanes, and the groups that make them up."""

    lanes: tuple[Line, ...]
    """one for each lane, by name"""
    lines: tuple[Line, ...]
    """one for each lane, upstream and provider: by lane, then largest first"""

    def as_json(self) -> dict[str, object]:
        return {
            "lanes": [line.as_json() for line in self.lanes],
            "lines": [line.as_json() for line in self.lines],
        }


def build(rows: Iterable[Finished]) -> Report:
    """The report on these recipients."""
    by_lane: defaultdict[str, list[Finished]] = defaultdict(list)
    by_group: defaultdict[tuple[str, str | None, str], list[Finished]] = defaultdict(list)
    for row in rows:
        by_lane[row.lane].append(row)
        by_group[row.lane, row.upstream, row.provider].append(row)
    lines = [Line(lane, upstream, provider, _figures(group)) for (lane, upstream, provider), group in by_group.items()]
    lines.sort(key=lambda line: (line.lane, -line.figures.recipients, line.upstream or "", line.provider or ""))
    totals = [Line(lane, None, None, _figures(group)) for lane, group in sorted(by_lane.items())]
    return Report(tuple(totals), tuple(lines))


def _figures(group: Sequence[Finished]) -> Figures:
    states: Counter[str] = Counter()
    times: Counter[float] = Counter()
    for row in group:
        states[row.state] += row.recipients
        if row.state == "sent" and row.total_ms is not None:
            times[row.total_ms] += row.recipients
    times_ms = sorted(times.items())
    bands = dict.fromkeys(BANDS, 0)
    for ms, recipients in times_ms:
        bands[band(ms / 1000)] += recipients
    bands["failed"] += sum(states[state] for state in NEVER_ARRIVED)
    return Figures(
        recipients=states.total(),
        states=dict(sorted(states.items())),
        p50_ms=percentile_of(times_ms, 50),
        p95_ms=percentile_of(times_ms, 95),
        p99_ms=percentile_of(times_ms, 99),
        bands=bands,
        slow_receive=sum(row.recipients for row in group if row.slow_receive),
    )
