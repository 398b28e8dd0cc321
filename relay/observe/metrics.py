"""The metrics of the contract, each defined once, in a registry of their own.

Counters and histograms are fed as mail goes by (`MailLog` does that); gauges are read from a `Snapshot` when somebody
scrapes. Label values are bounded: lanes, rules and upstreams by the configuration, the others here.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from relay import __version__
from relay.mail.address import provider_label
from relay.observe import lines
from relay.observe.bands import EDGES_S
from relay.observe.pressure import IntakeLoad, QueueFill

DELIVERY_BUCKETS_S = (
    0.005, 0.01, 0.02, 0.035, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, *(edge_s for edge_s, _ in EDGES_S),
)  # fmt: skip
PHASE_BUCKETS_S = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0)
INBOX_BUCKETS_S = (0.5, 1.0, 2.0, 5.0, *(edge_s for edge_s, _ in EDGES_S), 300.0, 900.0, 3600.0)

NO_RULE = "default"
"""the `rule` label of mail that no rule matched"""
NO_UPSTREAM = "none"
"""the `upstream` label of what ended without one"""
OTHER = "other"

_REASON = re.compile(r"[a-z0-9_-]{1,40}")
MAX_REASONS = 64

Child = TypeVar("Child", bound=MetricWrapperBase)


class _Children(dict[tuple[str, ...], Child], Generic[Child]):
    """A family's children by their label values: the hot path is one dictionary look-up."""

    def __init__(self, family: Child) -> None:
        super().__init__()
        self._family = family

    def __missing__(self, labels: tuple[str, ...]) -> Child:
        child = self[labels] = self._family.labels(*labels)
        return child


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
    """What the gauges show at one scrape."""

    now: float
    queue: Sequence[QueueCount] | None = None
    """None: the store could not say"""
    lanes: Iterable[str] = ()
    """lanes that are shown even when nothing waits in them"""
    states: Iterable[str] = ()
    """open states, shown as 0 where nothing is in them"""
    upstream_up: Mapping[str, bool] = field(default_factory=dict)
    upstream_sessions: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """(upstream, state of the session) → how many"""
    upstream_windows: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """(lane, upstream) → how many messages it may get at once"""
    fill: QueueFill | None = None
    intake: IntakeLoad = field(default_factory=IntakeLoad)


Samples = Sequence[tuple[str, tuple[tuple[str, str], ...], float]]


@dataclass(frozen=True, slots=True)
class Family:
    """A metric of another process as numbers: (sample name, labels, value) each."""

    name: str
    samples: Samples


class Metrics:
    """All metrics of one process."""

    def __init__(self) -> None:
        # A `_created` series beside each counter would cost a third more series and tell nothing here.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        registry = self.registry
        self.accepted = _Children(
            Counter("relay_messages_accepted", "Messages stored and answered 250.", ("lane", "rule"), registry=registry)
        )
        self.rejected = _Children(
            Counter("relay_messages_rejected", "Refusals at the door.", ("reason",), registry=registry)
        )
        self.recipients = _Children(
            Counter(
                "relay_recipients",
                "Recipients by the outcome of an attempt, or by how they ended without one.",
                ("lane", "upstream", "outcome"),
                registry=registry,
            )
        )
        self.delivery = _Children(
            Histogram(
                "relay_delivery_seconds",
                "From the app's final dot to the upstream's 250, a recipient.",
                ("lane", "upstream"),
                buckets=DELIVERY_BUCKETS_S,
                registry=registry,
            )
        )
        self.phase = _Children(
            Histogram(
                "relay_phase_seconds",
                "Time spent in each phase of a message.",
                ("lane", "phase"),
                buckets=PHASE_BUCKETS_S,
                registry=registry,
            )
        )
        self.inbox = _Children(
            Histogram(
                "relay_inbox_seconds",
                "From the app's final dot to the upstream's delivered event.",
                ("lane", "provider"),
                buckets=INBOX_BUCKETS_S,
                registry=registry,
            )
        )
        self.replies = _Children(
            Counter("relay_upstream_replies", "Replies of upstreams.", ("upstream", "code"), registry=registry)
        )
        self.restarts = _Children(
            Counter(
                "relay_tasks_restarted",
                "Background tasks that ended by an error, and were begun again, by kind.",
                ("task",),
                registry=registry,
            )
        )
        self.reload_success = Gauge(
            "relay_config_reload_success",
            "1: the whole file is in force. 0: the last reload was refused, or the file asks for what takes a restart.",
            registry=registry,
        )
        self.reload_success.set(1)
        Gauge("relay_build_info", "Always 1.", ("version", "python"), registry=registry).labels(
            __version__, platform.python_version()
        ).set(1)
        self._gauges = _Gauges()
        registry.register(self._gauges)
        registry.register(_LostLines())

    def count_rejected(self, reason: str) -> None:
        """A refusal; `reason` is a short word, and past the bound `other`."""
        labels = (reason,)
        if labels not in self.rejected and (len(self.rejected) >= MAX_REASONS or not _REASON.fullmatch(reason)):
            labels = (OTHER,)
        self.rejected[labels].inc()

    def count_reply(self, upstream: str, code: int) -> None:
        """A reply of an upstream; what is no SMTP code counts as `other`."""
        self.replies[upstream, str(code) if 200 <= code <= 599 else OTHER].inc()

    def observe_phases(self, lane: str, timings_ms: Mapping[str, float]) -> None:
        """The phases of a message or an attempt, as its time line has them; `total` is none."""
        for phase, spent_ms in timings_ms.items():
            if phase != "total":
                self.phase[lane, phase].observe(spent_ms / 1000)

    def observe_inbox(self, lane: str, provider: str, duration_s: float) -> None:
        """`provider`: as the store has it."""
        self.inbox[lane, provider_label(provider)].observe(duration_s)

    def numbers(self) -> Sequence[Family]:
        """Counters and histograms, for the process whose `/metrics` shows them."""
        return [
            Family(metric.name, [(one.name, tuple(sorted(one.labels.items())), one.value) for one in metric.samples])
            for metric in self.registry.collect()
            if metric.type in ("counter", "histogram")
        ]

    def render(self, snapshot: Snapshot, accept: str = "", others: Sequence[Family] = ()) -> tuple[bytes, str]:
        """The exposition in the format that `accept` (the request's header) asks for, and its content type. What
        `others` counted is added in."""
        encode, content_type = choose_encoder(accept)
        self._gauges.snapshot = snapshot
        return encode(_Sum(self.registry, others) if others else self.registry), content_type


class _Sum:
    """A registry with other processes' numbers added to its own."""

    def __init__(self, registry: CollectorRegistry, others: Sequence[Family]) -> None:
        self._registry = registry
        self._others = {
            family.name: {(name, labels): value for name, labels, value in family.samples} for family in others
        }

    def collect(self) -> Iterable[Metric]:
        for metric in self._registry.collect():
            more = self._others.get(metric.name)
            if more:
                ours = {(one.name, tuple(sorted(one.labels.items()))): one.value for one in metric.samples}
                for key, value in more.items():
                    ours[key] = ours.get(key, 0.0) + value
                # All samples of one child must stand together, its buckets in their order.
                metric.samples = [Sample(name, dict(labels), value) for (name, labels), value in ours.items()]
                metric.samples.sort(key=_child_then_bucket)
            yield metric


def _child_then_bucket(sample: Sample) -> tuple[list[tuple[str, str]], int, float]:
    labels = sorted((name, value) for name, value in sample.labels.items() if name != "le")
    return labels, 0 if "le" in sample.labels else 1, float(sample.labels.get("le", "0"))


class _LostLines(Collector):
    """Counted where they are lost."""

    def collect(self) -> Iterable[Metric]:
        yield CounterMetricFamily(
            "relay_log_lines_lost", "Log lines that stderr's reader did not take in time.", value=lines.lost()
        )


class _Gauges(Collector):
    """The gauges that are read off a snapshot."""

    def __init__(self) -> None:
        self.snapshot = Snapshot(now=0.0)

    def collect(self) -> Iterable[Metric]:
        snapshot = self.snapshot
        if snapshot.queue is not None:
            yield from _queue(snapshot, snapshot.queue)
        up = GaugeMetricFamily("relay_upstream_up", "0 while the circuit is open.", labels=("upstream",))
        for upstream, is_up in sorted(snapshot.upstream_up.items()):
            up.add_metric((upstream,), float(is_up))
        yield up
        sessions = GaugeMetricFamily(
            "relay_upstream_sessions", "Open sessions to upstreams.", labels=("upstream", "state")
        )
        for labels, count in sorted(snapshot.upstream_sessions.items()):
            sessions.add_metric(labels, float(count))
        yield sessions
        windows = GaugeMetricFamily(
            "relay_upstream_window",
            "Bulk messages that an upstream may get at once, as found out; 0 while it asked for a pause.",
            labels=("lane", "upstream"),
        )
        for labels, size in sorted(snapshot.upstream_windows.items()):
            windows.add_metric(labels, float(size))
        yield windows
        if snapshot.fill is not None:
            yield from _fill(snapshot.fill)
        yield from _intake(snapshot.intake)


def _fill(fill: QueueFill) -> Iterable[Metric]:
    yield GaugeMetricFamily("relay_queue_messages", "Messages that are not finished.", value=fill.messages)
    yield GaugeMetricFamily("relay_queue_bytes", "Size of their contents.", value=fill.size_bytes)
    yield GaugeMetricFamily("relay_queue_free_bytes", "Free space on the store's disk.", value=fill.free_bytes)
    limits = GaugeMetricFamily(
        "relay_queue_limit", "What is configured: mail is refused from there on (below, min_free).", labels=("limit",)
    )
    configured = {"max_messages": fill.max_messages, "max_bytes": fill.max_bytes, "min_free": fill.min_free_bytes}
    for name, limit in configured.items():
        if limit is not None:
            limits.add_metric((name,), limit)
    yield limits


def _intake(load: IntakeLoad) -> Iterable[Metric]:
    yield GaugeMetricFamily("relay_intake_sessions", "Connections of apps.", value=load.sessions)
    messages = GaugeMetricFamily(
        "relay_intake_messages",
        "Messages whose final dot is not answered yet, by what they wait for.",
        labels=("state",),
    )
    messages.add_metric(("storing",), load.storing - load.waiting)
    messages.add_metric(("waiting",), load.waiting)
    yield messages
    yield GaugeMetricFamily("relay_intake_slowed", "1: clients are made to wait now.", value=float(load.slowed))
    held_back = CounterMetricFamily(
        "relay_intake_held_back_seconds", "What clients were made to wait, all together.", labels=("brake",)
    )
    for brake, seconds in load.held_back_s.items():
        held_back.add_metric((brake,), seconds)
    yield held_back


def _queue(snapshot: Snapshot, rows: Sequence[QueueCount]) -> Iterable[Metric]:
    recipients = {(lane, state): 0 for lane in snapshot.lanes for state in snapshot.states}
    oldest_at: dict[str, float | None] = dict.fromkeys(snapshot.lanes)
    for row in rows:
        recipients[row.lane, row.state] = row.recipients
        known = [at for at in (oldest_at.get(row.lane), row.oldest_at) if at is not None]
        oldest_at[row.lane] = min(known, default=None)
    waiting = GaugeMetricFamily("relay_queue_recipients", "Recipients that are not finished.", labels=("lane", "state"))
    for labels, count in sorted(recipients.items()):
        waiting.add_metric(labels, float(count))
    oldest = GaugeMetricFamily(
        "relay_queue_oldest_seconds", "Age of the oldest message that is not finished.", labels=("lane",)
    )
    for lane, at in sorted(oldest_at.items()):
        oldest.add_metric((lane,), 0.0 if at is None else max(0.0, snapshot.now - at))
    return (waiting, oldest)
