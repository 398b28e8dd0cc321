"""The report: counts, percentiles and bands by lane, upstream and mailbox provider. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
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
    @property
    def resent(self) -> bool: ...
    @property
    def in_time(self) -> bool | None: ...


class Reported(Protocol):
    """A row of the store's `reported`: recipients with an event of an ESP that have all of these in common."""

    @property
    def lane(self) -> str: ...
    @property
    def upstream(self) -> str: ...
    @property
    def provider(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def after_ms(self) -> float | None: ...
    @property
    def recipients(self) -> int: ...


class Wanted(Protocol):
    """A lane's `objective`."""

    @property
    def within_s(self) -> float: ...
    @property
    def share(self) -> float: ...


class Objective(NamedTuple):
    """A lane's objective, and the recipients that it is about: those that were sent or have expired."""

    within_s: float
    wanted_share: float
    good: int
    total: int

    @property
    def share(self) -> float | None:
        """None: it is about no recipient so far."""
        return self.good / self.total if self.total else None

    @property
    def is_met(self) -> bool:
        return self.good >= self.wanted_share * self.total

    def as_json(self) -> dict[str, object]:
        return {
            "within_ms": self.within_s * 1000,
            "wanted_share": self.wanted_share,
            "good": self.good,
            "total": self.total,
            "share": self.share,
            "met": self.is_met if self.total else None,
        }


class Inbox(NamedTuple):
    """Recipients with a delivered event, and the time from the final dot to it."""

    delivered: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    bands: dict[Band, int]


class Rates(NamedTuple):
    """Shares of the finished recipients; `complained` and `unsubscribed`: of those that were sent."""

    bounced: float
    """those included that an ESP reported later"""
    expired: float
    superseded: float
    suppressed: float
    resent: float
    """the same rule had sent to the recipient before, within the message's life"""
    complained: float
    unsubscribed: float


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
    inbox: Inbox
    reported: dict[str, int]
    """recipients with an ESP's event of that kind"""
    rates: Rates

    def as_json(self) -> dict[str, object]:
        return {**self._asdict(), "inbox": self.inbox._asdict(), "rates": self.rates._asdict()}


class Line(NamedTuple):
    """One group of the report. Upstream and provider are None in a lane's total."""

    lane: str
    upstream: str | None
    provider: str | None
    figures: Figures
    objective: Objective | None = None
    """of a lane's total"""

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
            "lanes": [
                {**line.as_json(), "objective": None if line.objective is None else line.objective.as_json()}
                for line in self.lanes
            ],
            "lines": [line.as_json() for line in self.lines],
        }


class _Group:
    """The rows of one line."""

    def __init__(self) -> None:
        self.finished: list[Finished] = []
        self.reported: list[Reported] = []


def build(
    rows: Iterable[Finished], reported: Iterable[Reported] = (), objectives: Mapping[str, Wanted] | None = None
) -> Report:
    """The report on these recipients, and on what ESPs reported of them. `objectives`: by lane."""
    by_lane: defaultdict[str, _Group] = defaultdict(_Group)
    by_group: defaultdict[tuple[str, str | None, str], _Group] = defaultdict(_Group)
    for row in rows:
        by_lane[row.lane].finished.append(row)
        by_group[row.lane, row.upstream, row.provider].finished.append(row)
    for event in reported:
        by_lane[event.lane].reported.append(event)
        by_group[event.lane, event.upstream, event.provider].reported.append(event)
    lines = [Line(lane, upstream, provider, _figures(group)) for (lane, upstream, provider), group in by_group.items()]
    lines.sort(key=lambda line: (line.lane, -line.figures.recipients, line.upstream or "", line.provider or ""))
    wanted = objectives or {}
    totals = [
        Line(lane, None, None, _figures(group), _objective(group.finished, wanted.get(lane)))
        for lane, group in sorted(by_lane.items())
    ]
    return Report(tuple(totals), tuple(lines))


def _figures(group: _Group) -> Figures:
    states: Counter[str] = Counter()
    times: Counter[float] = Counter()
    slow = resent = 0
    for row in group.finished:
        states[row.state] += row.recipients
        slow += row.recipients if row.slow_receive else 0
        resent += row.recipients if row.resent else 0
        if row.state == "sent" and row.total_ms is not None:
            times[row.total_ms] += row.recipients
    times_ms = sorted(times.items())
    bands = _bands(times_ms)
    bands["failed"] += sum(states[state] for state in NEVER_ARRIVED)
    kinds: Counter[str] = Counter()
    for event in group.reported:
        kinds[event.kind] += event.recipients
    return Figures(
        states.total(),
        dict(sorted(states.items())),
        *_percentiles(times_ms),
        bands=bands,
        slow_receive=slow,
        inbox=_inbox(group.reported),
        reported=dict(sorted(kinds.items())),
        rates=_rates(states, kinds, resent),
    )


def _bands(times_ms: Sequence[tuple[float, int]]) -> dict[Band, int]:
    bands = dict.fromkeys(BANDS, 0)
    for ms, recipients in times_ms:
        bands[band(ms / 1000)] += recipients
    return bands


def _percentiles(times_ms: Sequence[tuple[float, int]]) -> tuple[float | None, float | None, float | None]:
    return percentile_of(times_ms, 50), percentile_of(times_ms, 95), percentile_of(times_ms, 99)


def _inbox(reported: Iterable[Reported]) -> Inbox:
    times: Counter[float] = Counter()
    for event in reported:
        if event.kind == "delivered" and event.after_ms is not None:
            times[event.after_ms] += event.recipients
    times_ms = sorted(times.items())
    return Inbox(times.total(), *_percentiles(times_ms), bands=_bands(times_ms))


def _rates(states: Mapping[str, int], kinds: Mapping[str, int], resent: int) -> Rates:
    finished = max(sum(states.values()), 1)
    # A recipient that bounced later was sent, too; one that was read before it finished may be missing.
    sent = max(states.get("sent", 0), kinds.get("delivered", 0), 1)
    return Rates(
        bounced=states.get("bounced", 0) / finished,
        expired=states.get("expired", 0) / finished,
        superseded=states.get("superseded", 0) / finished,
        suppressed=states.get("suppressed", 0) / finished,
        resent=resent / finished,
        complained=min(1.0, kinds.get("complained", 0) / sent),
        unsubscribed=min(1.0, kinds.get("unsubscribed", 0) / sent),
    )


def _objective(rows: Iterable[Finished], wanted: Wanted | None) -> Objective | None:
    if wanted is None:
        return None
    counted: Counter[bool] = Counter()
    for row in rows:
        if row.in_time is not None:
            counted[row.in_time] += row.recipients
    return Objective(wanted.within_s, wanted.share, counted[True], counted.total())
