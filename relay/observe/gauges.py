"""Gauges: metrics whose values are read at the scrape, from a `Snapshot` of the relay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from relay.observe import log_output
from relay.observe.pressure import IntakeLoad, QueueFill

LabelValues = TypeVar("LabelValues", tuple[str], tuple[str, str])


class QueueCount(Protocol):
    """A row of the store's `counts`."""

    @property
    def lane(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def recipients(self) -> int: ...
    @property
    def oldest_at(self) -> float | None: ...


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of the relay that the gauges show at one scrape."""

    now: float
    queue: Sequence[QueueCount] | None = None
    """None: the store gave no answer; then these gauges are left out"""
    lanes: Iterable[str] = ()
    """lanes that are shown even when they are empty"""
    states: Iterable[str] = ()
    """open states, shown as 0 where no recipient has them"""
    upstream_up: Mapping[str, bool] = field(default_factory=dict)
    upstream_sessions: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """(upstream, state of the session) → sessions"""
    upstream_windows: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """(lane, upstream) → messages it may get at once"""
    upstream_warm: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """(lane, upstream) → sessions that are to stay open"""
    certificates: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """(`upstream` or `listener`, its name or address) → when its certificate ends, in seconds since the epoch"""
    fill: QueueFill | None = None
    intake: IntakeLoad = field(default_factory=IntakeLoad)


class SnapshotCollector(Collector):
    """Collects the gauges of its `snapshot`, which the caller sets before each scrape."""

    def __init__(self) -> None:
        self.snapshot = Snapshot(now=0.0)

    def collect(self) -> Iterable[Metric]:
        snapshot = self.snapshot
        if snapshot.queue is not None:
            yield from _queue(snapshot, snapshot.queue)
        up = {(upstream,): float(is_up) for upstream, is_up in snapshot.upstream_up.items()}
        yield _gauge("relay_upstream_up", "0 while the circuit is open.", ("upstream",), up)
        yield _gauge(
            "relay_upstream_sessions", "Open sessions to upstreams.", ("upstream", "state"), snapshot.upstream_sessions
        )
        yield _gauge(
            "relay_upstream_warm_sessions",
            "Sessions that an express lane keeps open ahead of need, as recent bursts and sessions.warm ask for.",
            ("lane", "upstream"),
            snapshot.upstream_warm,
        )
        yield _gauge(
            "relay_upstream_window",
            "Bulk messages that an upstream may get at once, as measured; 0 while it asked for a pause.",
            ("lane", "upstream"),
            snapshot.upstream_windows,
        )
        yield _gauge(
            "relay_certificate_expiry_timestamp_seconds",
            "When the TLS certificate of an upstream, as its last connection showed it, or of a listener ends.",
            ("of", "name"),
            snapshot.certificates,
        )
        if snapshot.fill is not None:
            yield from _fill(snapshot.fill)
        yield from _intake(snapshot.intake)
        yield CounterMetricFamily(
            "relay_log_lines_lost",
            "Log lines that the reader of stderr did not take in time.",
            value=log_output.lost_lines(),
        )


def _gauge(name: str, text: str, labels: Sequence[str], values: Mapping[LabelValues, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for label_values, value in sorted(values.items()):
        family.add_metric(label_values, float(value))
    return family


def _fill(fill: QueueFill) -> Iterable[Metric]:
    yield GaugeMetricFamily("relay_queue_messages", "Messages that are not finished.", value=fill.messages)
    yield GaugeMetricFamily("relay_queue_bytes", "Size of their contents.", value=fill.size_bytes)
    yield GaugeMetricFamily("relay_queue_free_bytes", "Free space on the store's disk.", value=fill.free_bytes)
    limits = {"max_messages": fill.max_messages, "max_bytes": fill.max_bytes, "min_free": fill.min_free_bytes}
    yield _gauge(
        "relay_queue_limit",
        "Configured limits: mail is refused from there on (below, for min_free).",
        ("limit",),
        {(name,): limit for name, limit in limits.items() if limit is not None},
    )


def _intake(load: IntakeLoad) -> Iterable[Metric]:
    yield GaugeMetricFamily("relay_intake_sessions", "Connections of apps.", value=load.sessions)
    yield _gauge(
        "relay_intake_messages",
        "Messages whose final dot is not answered yet, by what they wait for.",
        ("state",),
        {("storing",): load.storing - load.waiting, ("waiting",): load.waiting},
    )
    yield GaugeMetricFamily("relay_intake_slowed", "1: clients are made to wait now.", value=float(load.slowed))
    held_back = CounterMetricFamily(
        "relay_intake_held_back_seconds", "Time that clients were made to wait, in total.", labels=("brake",)
    )
    for brake, seconds in load.held_back_s.items():
        held_back.add_metric((brake,), seconds)
    yield held_back


def _queue(snapshot: Snapshot, rows: Sequence[QueueCount]) -> Iterable[Metric]:
    recipients = {(lane, state): 0 for lane in snapshot.lanes for state in snapshot.states}
    oldest_s = dict.fromkeys(snapshot.lanes, 0.0)
    for row in rows:
        recipients[row.lane, row.state] = row.recipients
        age_s = 0.0 if row.oldest_at is None else snapshot.now - row.oldest_at
        oldest_s[row.lane] = max(oldest_s.get(row.lane, 0.0), age_s)
    yield _gauge("relay_queue_recipients", "Recipients that are not finished.", ("lane", "state"), recipients)
    yield _gauge(
        "relay_queue_oldest_seconds",
        "Age of the oldest message that is not finished.",
        ("lane",),
        {(lane,): age_s for lane, age_s in oldest_s.items()},
    )
