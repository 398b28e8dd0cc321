"""The feedback process's log and counts: one function for each thing that happens."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

from relay.feedback.correlate import Miss
from relay.feedback.counts import Arrival, Counts, Result
from relay.observe import tracing
from relay.observe.metrics import Metrics
from relay.observe.relaylog import RelayLog
from relay.observe.tracing import Head, Tracing, exemplar_of
from relay.store.events import Recorded, Recording, Undecided

REPEATED_AFTER_S = 60.0
"""the same trouble with one upstream is logged once in this time"""
MOST_REMEMBERED = 1_000
_QUIET = frozenset({"processed", "opened", "clicked"})
"""kinds that are logged at level DEBUG"""


class FeedbackLog(RelayLog):
    """Watches webhooks, events and objectives. No line has an address, or a reason of an ESP: either may quote mail."""

    def __init__(self, metrics: Metrics, counts: Counts, recorded: Callable[[], None]) -> None:
        """`recorded` is called with each new event."""
        super().__init__(metrics)
        self._recorded = recorded
        self.counts = counts
        self.objectives: Mapping[str, float] = {}
        """by lane: the seconds within which its mail is to arrive"""
        self.tracing: Tracing | None = None
        """None: it is off"""
        self._logged: dict[tuple[str, ...], tuple[float, int]] = {}

    def task_ended(self, task: str, error: BaseException | None) -> None:
        self.counts.tasks[task.partition(" ")[0]] += 1
        super().task_ended(task, error)

    def loop_failed(self, where: str, error: BaseException | None) -> None:
        self.counts.tasks["loop"] += 1
        super().loop_failed(where, error)

    def on_request(self, upstream: str, result: Result) -> None:
        self.counts.requests[upstream, result] += 1

    def on_refused(self, upstream: str, why: str) -> None:
        self._once_in_a_while(logging.WARNING, "webhook_refused", upstream=upstream, reason=why)

    def on_miss(self, upstream: str, miss: Miss | str) -> None:
        self.counts.events[upstream, "other"] += 1
        self._once_in_a_while(logging.INFO, "event_ignored", upstream=upstream, reason=_MISSES[miss])

    def confirmed(self) -> None:
        """SNS was answered that a subscription of a listed topic is wanted."""
        self.line(logging.INFO, "subscription_confirmed")

    def on_trouble(self, where: str, error: BaseException) -> None:
        self.trouble(where, error)

    def on_event(self, event: Recording, recorded: Recorded) -> None:
        kept = event.event
        self._recorded()
        self.counts.events[kept.upstream or "", kept.kind] += 1
        ended_at = kept.at if kept.latest_at is None else kept.latest_at
        after_s = max(0.0, ended_at - event.accepted_at)
        if recorded.is_first_delivery:
            exemplar = exemplar_of(self.tracing, kept.message_id, event.trace)
            trace_id = None if exemplar is None else exemplar["trace_id"]
            self.counts.observe_inbox(Arrival(event.lane, event.provider, after_s, kept.upstream or "", trace_id))
        if self.tracing is not None:
            self._trace(self.tracing, event)
        if recorded.decides:
            self.decided(event.lane, after_s)
        again = kept.kind == "delivered" and not recorded.is_first_delivery
        level = logging.DEBUG if again or kept.kind in _QUIET else logging.INFO
        self.line(
            level,
            "esp_event",
            id=kept.message_id,
            kind=kept.kind,
            lane=event.lane,
            upstream=kept.upstream,
            permanent=None if kept.permanent is None else str(kept.permanent).lower(),
            after_ms=after_s * 1000,
        )

    def _trace(self, to: Tracing, event: Recording) -> None:
        kept = event.event
        if to.records(kept.message_id, event.trace):
            attributes = {
                "relay.lane": event.lane,
                "relay.event.source": "esp",
                "relay.event.permanent": kept.permanent,
                "messaging.destination.name": kept.upstream,
            }
            head = Head(kept.message_id, event.trace, event.accepted_at, 0)
            to.note(head, [tracing.event(kept.kind, kept.at, attributes)])

    def on_overdue(self, one: Undecided) -> None:
        """No delivered event came: the upstream's 250 decides."""
        self.decided(one.lane, one.sent_after_s)

    def decided(self, lane: str, after_s: float) -> None:
        within_s = self.objectives.get(lane)
        if within_s is not None:
            self.counts.objectives[lane, after_s <= within_s] += 1

    def _once_in_a_while(self, level: int, event: str, **values: str) -> None:
        """A public endpoint must not fill the log: the same line comes once a minute, with how often it happened."""
        key = (event, *values.values())
        now = time.monotonic()
        last_at, count = self._logged.get(key, (-REPEATED_AFTER_S, 0))
        if now - last_at < REPEATED_AFTER_S:
            self._logged[key] = last_at, count + 1
            return
        if len(self._logged) >= MOST_REMEMBERED:
            self._logged.clear()
        self._logged[key] = now, 0
        self.line(level, event, **values, repeated=count or None)


_MISSES = {
    "unknown": "it is about no message of this relay",
    "another recipient": "its message did not go to that address",
    "another upstream": "its message did not go by this upstream",
    "kind": "the relay has no use for this kind",
}
