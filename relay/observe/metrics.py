"""The metrics of `/metrics`, each defined once, in a registry of their own.

Counters and histograms grow as mail is processed (by `MailLog`); `gauges` are read at the scrape. Label values are
bounded: lanes, rules and upstreams by the configuration, the others here.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Generic, TypeVar, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Exemplar, Sample

from relay import __version__
from relay.mail.mailbox_provider import provider_label
from relay.mail.outcome import Outcome
from relay.observe.bands import EDGES_S
from relay.observe.gauges import Snapshot, SnapshotCollector
from relay.providers.webhook import EspKind

DELIVERY_BUCKETS_S = (
    0.005, 0.01, 0.02, 0.035, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, *(edge_s for edge_s, _ in EDGES_S),
)  # fmt: skip
PHASE_BUCKETS_S = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0)
INBOX_BUCKETS_S = (0.5, 1.0, 2.0, 5.0, *(edge_s for edge_s, _ in EDGES_S), 300.0, 900.0, 3600.0)

NO_RULE = "default"
"""the `rule` label of mail that no rule matched"""
NO_UPSTREAM = "none"
"""the `upstream` label of recipients that ended without an upstream"""
OTHER = "other"
EVENT_KINDS = frozenset(get_args(EspKind))

_REASON = re.compile(r"[a-z0-9_-]{1,40}")
MAX_REASONS = 64

Labels = tuple[tuple[str, str], ...]
Child = TypeVar("Child", bound=MetricWrapperBase)


class _Children(dict[tuple[str, ...], Child], Generic[Child]):
    """A family's children by their label values: the hot path is one dictionary look-up."""

    def __init__(self, family: Child) -> None:
        super().__init__()
        self._family = family

    def __missing__(self, labels: tuple[str, ...]) -> Child:
        child = self[labels] = self._family.labels(*labels)
        return child


@dataclass(frozen=True, slots=True)
class Family:
    """A metric of another process: sample name, labels and value of each sample."""

    name: str
    samples: Sequence[tuple[str, Labels, float]]
    exemplars: Mapping[tuple[str, Labels], Exemplar] = field(default_factory=dict)
    """by sample name and labels: the latest trace that the bucket counts"""


class Metrics:
    """All metrics of one process."""

    def __init__(self) -> None:
        # A `_created` series beside each counter would add a third more series, which nothing here reads.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        counter, histogram = self._counter, self._histogram
        self.accepted = counter("relay_messages_accepted", "Messages stored and answered 250.", "lane", "rule")
        self.rejected = counter("relay_messages_rejected", "Connections, commands and messages refused.", "reason")
        self.recipients = counter(
            "relay_recipients",
            "Recipients by the outcome of an attempt, or by how they ended without one.",
            "lane", "upstream", "outcome",
        )  # fmt: skip
        self.delivery = histogram(
            "relay_delivery_seconds",
            "From the app's final dot to the upstream's 250, a recipient.",
            DELIVERY_BUCKETS_S, "lane", "upstream",
        )  # fmt: skip
        self.phase = histogram(
            "relay_phase_seconds", "Time spent in each phase of a message.", PHASE_BUCKETS_S, "lane", "phase"
        )
        self.inbox = histogram(
            "relay_inbox_seconds",
            "From the app's final dot to the upstream's delivered event.",
            INBOX_BUCKETS_S, "lane", "provider",
        )  # fmt: skip
        self._make_feedback_counters()
        self._make_policy_counters()
        self._make_content_counters()
        self.replies = counter("relay_upstream_replies", "Replies of upstreams.", "upstream", "code")
        self.trace_spans = counter(
            "relay_trace_spans",
            "Spans of traces: exported, failed (the collector didn't take them), dropped (no room for the record).",
            "result",
        )
        self.restarts = counter(
            "relay_tasks_restarted", "Background tasks that ended by an error and were restarted, by kind.", "task"
        )
        self.reload_success = Gauge(
            "relay_config_reload_success",
            "1: the whole file is in force. 0: the last reload was refused, or the file needs a restart.",
            registry=self.registry,
        )
        self.reload_success.set(1)
        build = Gauge("relay_build_info", "Always 1.", ("version", "python"), registry=self.registry)
        build.labels(__version__, platform.python_version()).set(1)
        self._gauges = SnapshotCollector()
        self.registry.register(self._gauges)

    def _make_feedback_counters(self) -> None:
        """What became of mail behind the upstream."""
        counter = self._counter
        self.events = counter("relay_events", "New events of ESPs, a recipient.", "upstream", "kind")
        self.webhook_requests = counter(
            "relay_webhook_requests", "Requests to webhooks, by how they were answered.", "upstream", "result"
        )
        self.event_posts = counter(
            "relay_event_posts", "Attempts to post an event to a receiver; dead: events that were given up.", "result"
        )
        self.posts_waiting = Gauge(
            "relay_event_posts_waiting", "Events that their receivers have yet to take.", registry=self.registry
        )
        self.posts_oldest_s = Gauge(
            "relay_event_posts_oldest_seconds", "Age of the oldest of them; 0: none waits.", registry=self.registry
        )
        self.objective_good = counter(
            "relay_objective_good", "Recipients that the lane's objective was met for.", "lane"
        )
        self.objective_all = counter("relay_objective", "Recipients that the lane's objective is about.", "lane")
        self.suppressed = counter("relay_suppressed", "Recipients not mailed: they are suppressed.", "lane")

    def _make_policy_counters(self) -> None:
        """What apps asked for too often."""
        counter = self._counter
        self.limited = counter(
            "relay_limited", "Messages that exceeded a limit, by what became of them.", "lane", "limit", "action"
        )
        self.copies = counter(
            "relay_copies", "Copies for `copy_to`, by lane of the original: stored or failed.", "lane", "result"
        )
        self.resends = counter(
            "relay_resends", "Recipients that got mail of the same rule before, within its life.", "lane"
        )

    def _make_content_counters(self) -> None:
        """What messages say."""
        counter = self._counter
        self.detected = counter(
            "relay_detected", "Messages that the content detector examined, by what it saw: otp or other.", "content"
        )
        self.linted = counter(
            "relay_lint_messages", "Messages of lanes with `lint: report`: checked or skipped.", "lane", "result"
        )
        self.lint_findings = counter(
            "relay_lint_findings", "Messages that broke a rule of lint, where they were checked.", "lane", "rule"
        )

    def _counter(self, name: str, text: str, *labels: str) -> _Children[Counter]:
        return _Children(Counter(name, text, labels, registry=self.registry))

    def _histogram(self, name: str, text: str, buckets_s: Sequence[float], *labels: str) -> _Children[Histogram]:
        return _Children(Histogram(name, text, labels, buckets=buckets_s, registry=self.registry))

    def show_process(self) -> None:
        """Show `process_*` of this process, too."""
        ProcessCollector(registry=self.registry)

    def begin(self, upstreams: Mapping[str, Sequence[str]], objectives: Iterable[str] = ()) -> None:
        """Begin at 0 what an alert waits for: for Prometheus, a counter that comes up as 1 has not increased.
        `upstreams`: of each lane. `objectives`: lanes that have one."""
        for lane, names in upstreams.items():
            _ = self.suppressed[(lane,)], self.resends[(lane,)]
            for outcome in ("expired", "superseded"):
                _ = self.recipients[lane, NO_UPSTREAM, outcome]
            for name, outcome in product(names, get_args(Outcome)):
                _ = self.recipients[lane, name, outcome]
        for lane in objectives:
            self.count_objective(lane, is_good=False, count=0)
        for reason in ("busy", "limit", "store", "suppressed"):
            _ = self.rejected[(reason,)]
        for content in ("otp", "other"):
            _ = self.detected[(content,)]
        for result in ("delivered", "failed", "dead"):
            _ = self.event_posts[(result,)]

    def count_rejected(self, reason: str) -> None:
        """Count a refusal. `reason` is a short word; too many different ones are counted as `other`."""
        labels = (reason,)
        if labels not in self.rejected and (len(self.rejected) >= MAX_REASONS or not _REASON.fullmatch(reason)):
            labels = (OTHER,)
        self.rejected[labels].inc()

    def count_reply(self, upstream: str, code: int) -> None:
        """Count a reply of an upstream. What is no SMTP code counts as `other`."""
        self.replies[upstream, str(code) if 200 <= code <= 599 else OTHER].inc()

    def observe_phases(self, lane: str, timings_ms: Mapping[str, float]) -> None:
        """Add the phases of a message or an attempt; `total` is not a phase."""
        for phase, spent_ms in timings_ms.items():
            if phase != "total":
                self.phase[lane, phase].observe(spent_ms / 1000)

    def count_event(self, upstream: str, kind: str, count: float = 1) -> None:
        """Count events of an ESP. A kind that isn't known counts as `other`."""
        self.events[upstream, kind if kind in EVENT_KINDS else OTHER].inc(count)

    def count_objective(self, lane: str, *, is_good: bool, count: float = 1) -> None:
        """Count recipients of a lane that has an objective. `is_good`: it was met."""
        self.objective_all[(lane,)].inc(count)
        self.objective_good[(lane,)].inc(count if is_good else 0)

    def observe_inbox(
        self, lane: str, provider: str, duration_s: float, exemplar: dict[str, str] | None = None
    ) -> None:
        """Add the time of a delivered event. `provider`: as the store has it. `exemplar`: the trace."""
        self.inbox[lane, provider_label(provider)].observe(duration_s, exemplar)

    def numbers(self) -> Sequence[Family]:
        """Counters and histograms, for the process that serves `/metrics`."""
        return [
            Family(
                metric.name,
                [(*_key(one), one.value) for one in metric.samples],
                {_key(one): one.exemplar for one in metric.samples if one.exemplar is not None},
            )
            for metric in self.registry.collect()
            if metric.type in ("counter", "histogram")
        ]

    def render(self, snapshot: Snapshot, accept: str = "", others: Sequence[Family] = ()) -> tuple[bytes, str]:
        """The exposition in the format that `accept` (the request's header) asks for, and its content type. The
        numbers of `others` are added."""
        encode, content_type = choose_encoder(accept)
        self._gauges.snapshot = snapshot
        return encode(_Sum(self.registry, others) if others else self.registry), content_type


class _Sum:
    """A registry whose metrics include the numbers of other processes."""

    def __init__(self, registry: CollectorRegistry, others: Sequence[Family]) -> None:
        self._registry = registry
        self._others = {
            family.name: {(name, labels): value for name, labels, value in family.samples} for family in others
        }
        self._exemplars = {family.name: family.exemplars for family in others if family.exemplars}

    def collect(self) -> Iterable[Metric]:
        for metric in self._registry.collect():
            more = self._others.get(metric.name)
            if more:
                ours = {_key(one): one.value for one in metric.samples}
                seen = {_key(one): one.exemplar for one in metric.samples if one.exemplar is not None}
                seen = latest([self._exemplars.get(metric.name, {}), seen])
                for key, value in more.items():
                    ours[key] = ours.get(key, 0.0) + value
                # All samples of one child must stand together, its buckets in their order.
                metric.samples = [
                    Sample(name, dict(labels), value, exemplar=seen.get((name, labels)))
                    for (name, labels), value in ours.items()
                ]
                metric.samples.sort(key=_child_then_bucket)
            yield metric


def latest(some: Sequence[Mapping[tuple[str, Labels], Exemplar]]) -> dict[tuple[str, Labels], Exemplar]:
    """Of each sample the latest exemplar."""
    found: dict[tuple[str, Labels], Exemplar] = {}
    for exemplars in some:
        for key, exemplar in exemplars.items():
            if key not in found or float(exemplar.timestamp or 0) >= float(found[key].timestamp or 0):
                found[key] = exemplar
    return found


def _key(sample: Sample) -> tuple[str, Labels]:
    return sample.name, tuple(sorted(sample.labels.items()))


def _child_then_bucket(sample: Sample) -> tuple[list[tuple[str, str]], int, float]:
    labels = sorted((name, value) for name, value in sample.labels.items() if name != "le")
    return labels, 0 if "le" in sample.labels else 1, float(sample.labels.get("le", "0"))
