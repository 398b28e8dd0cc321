"""From records (`observe.tracing`) to spans. A message's own span, `relay.message`, is exported once all its recipients
have ended; what comes later is a span of its own in the same trace."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from os import urandom
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from relay.mail import traceparent
from relay.observe.trace_ids import root_span_of, trace_of
from relay.observe.tracing import Head
from relay.tracing.export import Way

MOST_OPEN = 20_000
"""messages whose own span isn't exported yet"""
OPEN_FOR_S = 3_600.0
"""then it is, whatever waits"""
WAITING = "waiting"
"""the state of a message that hasn't ended"""
_BAD_ENDS = frozenset({"bounced", "expired", "ambiguous", WAITING})
_SYSTEM = {"messaging.system": "smtp"}
ATTRIBUTES: Mapping[str, type | tuple[type, ...]] = {
    "messaging.destination.name": str,
    "messaging.message.envelope.size": int,
    "network.protocol.name": str,
    "relay.content": str,
    "relay.event.permanent": bool,
    "relay.event.source": str,
    "relay.lane": str,
    "relay.limits": int,
    "relay.origin": str,
    "relay.outcome": str,
    "relay.parts": int,
    "relay.recipients": int,
    "relay.recipients.sent": int,
    "relay.reply.code": int,
    "relay.reply.enhanced_code": str,
    "relay.retry_in_s": (int, float),
    "relay.rule": str,
    "relay.session": str,
    "relay.via": str,
}
"""what a record may say of a message; anything else is left out"""
_MOST_CHARS = 200
_LATEST_S = 1e11


@dataclass(slots=True)
class _Open:
    """A message whose own span isn't exported yet."""

    head: Head
    since: float
    """time.monotonic"""
    start: float
    end: float
    attributes: dict[str, Any] = field(default_factory=dict)
    links: list[Link] = field(default_factory=list)
    events: list[tuple[str, dict[str, Any], float]] = field(default_factory=list)
    states: Counter[str] = field(default_factory=Counter)
    """ended recipients"""
    is_accepted: bool = False
    """intake's record of it has come; that may be later than a worker's"""


class Spans:
    """Makes spans of records, in the order in which they come."""

    def __init__(self, way: Way, since: float) -> None:
        """`since`: when the relay began, or this process where it was started again (seconds since the epoch). Messages
        accepted before it have had their own span, or will never get one."""
        self._way = way
        self._since = since
        self._open: OrderedDict[str, _Open] = OrderedDict()

    def add(self, record: Any, now: float) -> None:
        """One record, as JSON has it. `now`: time.monotonic. Raises ValueError, TypeError, LookupError where it isn't
        well formed."""
        head, items = _head(record[0]), record[1]
        if head.accepted_at and not self._is_recorded(head):
            return
        for item in items:
            match item:
                case ["root", start, attributes, linked]:
                    self._begin(head, _time(start), _attributes(attributes), linked, now)
                case ["span", str() as name, start, end]:
                    self._step(head, name, _time(start), _time(end))
                case ["attempt", str() as upstream, start, phases, attributes, bool() as failed]:
                    self._attempt(head, upstream, _time(start), phases, _attributes(attributes), failed=failed)
                case ["event", str() as name, at, attributes, int() as ended]:
                    self._event(head, name, _time(at), _attributes(attributes), ended, now)
                case _:
                    raise ValueError("unknown item")

    def forget(self, now: float) -> None:
        """Export the own spans of messages that have waited too long, and of the oldest where there are too many."""
        while self._open:
            oldest = next(iter(self._open.values()))
            if len(self._open) <= MOST_OPEN and now - oldest.since < OPEN_FOR_S:
                return
            self._finish(oldest)

    def finish(self) -> None:
        """The relay ends: export all."""
        for one in list(self._open.values()):
            self._finish(one)

    # what a record says

    def _begin(
        self, head: Head, start: float, attributes: dict[str, Any], linked: Sequence[str | None], now: float
    ) -> None:
        one = self._opened(head, now)
        one.is_accepted, one.start = True, start
        one.attributes |= attributes
        if linked:
            source_id, source_trace = linked
            one.links.append(Link(_own_context(str(source_id), _parent(source_trace))))
        self._finish_if_over(one)

    def _step(self, head: Head, name: str, start: float, end: float) -> None:
        span = self._start(head, name[:_MOST_CHARS], start)
        self._end(span, max(start, end))
        if (one := self._open.get(head.id)) is not None:
            one.end = max(one.end, end)

    def _attempt(
        self,
        head: Head,
        upstream: str,
        start: float,
        phases: Iterable[tuple[str, float]],
        attributes: dict[str, Any],
        *,
        failed: bool,
    ) -> None:
        upstream = upstream[:_MOST_CHARS]
        attributes |= _SYSTEM | {
            "messaging.operation.name": "send",
            "messaging.operation.type": "send",
            "messaging.destination.name": upstream,
            "messaging.message.id": head.id,
        }
        if failed:
            attributes["error.type"] = str(
                attributes.get("relay.reply.code", attributes.get("relay.outcome", "_OTHER"))
            )
        span = self._start(head, f"send {upstream}", start, kind=SpanKind.CLIENT, attributes=attributes)
        at = start
        for phase, spent_ms in phases:
            child = self._start(head, str(phase)[:_MOST_CHARS], at, parent=span.get_span_context())
            at += float(spent_ms) / 1000.0
            self._end(child, at)
        if failed:
            span.set_status(Status(StatusCode.ERROR))
        self._end(span, at)

    def _event(self, head: Head, name: str, at: float, attributes: dict[str, Any], ended: int, now: float) -> None:
        name = name[:_MOST_CHARS]
        one = self._open.get(head.id)
        if one is None and head.recipients and head.accepted_at >= self._since:
            one = self._opened(head, now)
        if one is not None:
            one.events.append((name, attributes, at))
            one.end = max(one.end, at)
            one.states[name] += ended
            self._finish_if_over(one)
        elif head.accepted_at:
            own = _own_context(head.id, head.trace)
            attributes |= {"relay.event": name, "messaging.message.id": head.id}
            self._end(self._start(head, "relay.event", at, attributes=attributes, links=[Link(own)]), at)

    # a message's own span

    def _opened(self, head: Head, now: float) -> _Open:
        one = self._open.get(head.id)
        if one is None:
            one = self._open[head.id] = _Open(head, now, head.accepted_at, head.accepted_at)
        return one

    def _finish_if_over(self, one: _Open) -> None:
        if one.is_accepted and one.states.total() >= one.head.recipients:
            self._finish(one)

    def _finish(self, one: _Open) -> None:
        del self._open[one.head.id]
        head, states = one.head, +one.states
        if states.total() < head.recipients:
            states[WAITING] = head.recipients - states.total()
        one.attributes |= _SYSTEM | {
            "messaging.operation.name": "relay",
            "messaging.message.id": head.id,
            "relay.state": next(iter(states)) if len(states) == 1 else "mixed" if states else WAITING,
        }
        self._way.ids.trace_id, self._way.ids.span_id = _ids(head)
        span = self._way.tracer.start_span(
            "relay.message",
            _app_context(head.trace),
            SpanKind.SERVER,
            one.attributes,
            one.links,
            _ns(one.start),
        )
        for name, attributes, at in one.events:
            span.add_event(name, attributes, _ns(at))
        if not _BAD_ENDS.isdisjoint(states):
            span.set_status(Status(StatusCode.ERROR))
        self._end(span, max(one.start, one.end))

    # spans

    def _is_recorded(self, head: Head) -> bool:
        trace_id, _ = _ids(head)
        made = self._way.sampler.should_sample(_app_context(head.trace), trace_id, "relay.message", SpanKind.SERVER)
        return made.decision is Decision.RECORD_AND_SAMPLE

    def _start(
        self,
        head: Head,
        name: str,
        start: float,
        *,
        parent: SpanContext | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: dict[str, Any] | None = None,
        links: Sequence[Link] = (),
    ) -> Span:
        """`parent` None: the message's own span."""
        self._way.ids.span_id = int.from_bytes(urandom(8), "big") or 1
        context = set_span_in_context(NonRecordingSpan(parent or _own_context(head.id, head.trace)), Context())
        return self._way.tracer.start_span(name, context, kind, attributes, links, _ns(start))

    def _end(self, span: Span, at: float) -> None:
        if span.is_recording():  # a sampler of another package may decide for each span
            self._way.made += 1
        span.end(_ns(at))


def _ids(head: Head) -> tuple[int, int]:
    return int(trace_of(head.id, head.trace), 16), int(root_span_of(head.id), 16)


def _own_context(message_id: str, parent: str | None) -> SpanContext:
    trace_id, span_id = int(trace_of(message_id, parent), 16), int(root_span_of(message_id), 16)
    return SpanContext(trace_id, span_id, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))


def _app_context(parent: str | None) -> Context:
    if parent is None:
        return Context()
    flags = TraceFlags(TraceFlags.SAMPLED if traceparent.is_sampled(parent) else TraceFlags.DEFAULT)
    trace_id, span_id = int(traceparent.trace_id(parent), 16), int(traceparent.parent_id(parent), 16)
    return set_span_in_context(NonRecordingSpan(SpanContext(trace_id, span_id, True, flags)), Context())


def _ns(at: float) -> int:
    return round(at * 1_000_000) * 1_000


# reading: the feedback process is reached by the public, and may write anything


def _head(given: Any) -> Head:
    match given:
        case [str() as message_id, trace, int() | float() as accepted_at, int() as recipients] if len(message_id) <= 64:
            return Head(message_id, _parent(trace), _time(accepted_at) if accepted_at else 0.0, recipients)
    raise ValueError("no message")


def _parent(given: Any) -> str | None:
    return traceparent.read(given.encode()) if isinstance(given, str) else None


def _time(given: Any) -> float:
    if not isinstance(given, int | float) or not 0 <= given <= _LATEST_S:
        raise ValueError("not a time")
    return float(given)


def _attributes(given: Any) -> dict[str, Any]:
    return {
        name: value[:_MOST_CHARS] if isinstance(value, str) else value
        for name, value in given.items()
        if name in ATTRIBUTES and isinstance(value, ATTRIBUTES[name])
    }
