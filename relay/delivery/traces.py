"""Delivery's part of a message's trace: where tracing is on, its attempts and outcomes become records."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

from relay.delivery.message import Job
from relay.mail.reply import Reply, is_own
from relay.observe import tracing
from relay.observe.tracing import Attributes, Head, Item, Tracing, wall
from relay.store.model import OPEN_STATES, NewMessage, RecipientUpdate, Settlement, State
from relay.upstream.attempt import Report

_IN_ORDER = ("rate", "session", "connect", "tls", "auth", "encode", "envelope", "gate", "data")
"""phases as they follow each other"""


def trace_attempt(to: Tracing, lane: str, job: Job, report: Report) -> None:
    """An attempt is over."""
    if not to.records(job.queued.id, job.queued.trace):
        return
    outcomes = Counter(result.outcome for result in report.results)
    reply = _told(report)
    sent = outcomes["sent"]
    attributes: Attributes = {
        "relay.lane": lane,
        "relay.via": report.via,
        "relay.session": report.session,
        "relay.outcome": next(iter(outcomes)) if len(outcomes) == 1 else "mixed",
        "relay.recipients": len(report.results),
        "relay.recipients.sent": sent,
        "relay.reply.code": None if reply is None else reply.code,
        "relay.reply.enhanced_code": None if reply is None else reply.enhanced,
    }
    phases_ms = {name: ms for name in _IN_ORDER if (ms := report.timings_ms.get(name, 0.0)) > 0.0}
    item = tracing.attempt(report.upstream, wall(report.started_at), phases_ms, attributes, failed=not sent)
    to.note(_head(job), [item])


def trace_settlement(to: Tracing, lane: str, job: Job, settlement: Settlement) -> None:
    """A round's outcome, or an interim one, is durable."""
    if not to.records(job.queued.id, job.queued.trace):
        return
    items = [] if job.is_traced else list(_steps(job))
    job.is_traced = True
    items += _events(lane, job, settlement.updates)
    if items:
        to.note(_head(job), items)
    for bounce in settlement.bounces:
        trace_own(to, bounce, "dsn", job.queued.id, job.queued.trace)


def trace_end(to: Tracing, lane: str, message_id: str, state: State, recipients: int) -> None:
    """Recipients ended in the store, without a job."""
    items = [tracing.event(state, time.time(), {"relay.lane": lane, "relay.recipients": recipients}, ended=recipients)]
    to.note(Head(message_id, None, 0.0, 0), items)


def trace_own(to: Tracing, new: NewMessage, origin: str, source_id: str, source_trace: str | None) -> None:
    """A message of the relay's own is stored, which comes from another one: `dsn` or `copy`."""
    if to.records(new.id, new.trace):
        now = time.time()
        attributes = {"relay.lane": new.lane, "relay.rule": new.rule, "relay.origin": origin}
        head = Head(new.id, new.trace, now, len(new.envelope.recipients))
        to.note(head, [tracing.root(now, attributes, (source_id, source_trace))])


def _head(job: Job) -> Head:
    queued = job.queued
    return Head(queued.id, queued.trace, wall(job.final_dot), len(queued.envelope.recipients))


def _told(report: Report) -> Reply | None:
    """The upstream's reply that says most: to a recipient that wasn't accepted, else to the last one."""
    replies = [one.reply for one in report.results if not one.reply.is_own]
    return next((reply for reply in replies if not reply.positive), replies[-1] if replies else None)


def _steps(job: Job) -> Iterator[Item]:
    """Its way to the first attempt."""
    offered_at, picked_at = wall(job.offered_at), wall(job.picked_at or time.monotonic())
    if job.is_claimed:
        # A retry has waited for its time, which the event `deferred` says.
        if not any(one.attempts or one.step for one in job.queued.due):
            yield tracing.span("wait", wall(job.final_dot), picked_at)
    else:
        if (store_ms := job.timings_ms.get("store")) is not None:
            yield tracing.span("store", offered_at, offered_at + store_ms / 1000.0)
        yield tracing.span("wait", offered_at, picked_at)
    if job.sign_ms > 0.0:
        signed_at = wall(job.sign_began_at)
        yield tracing.span("sign", signed_at, signed_at + job.sign_ms / 1000.0)


def _events(lane: str, job: Job, updates: tuple[RecipientUpdate, ...]) -> Iterator[Item]:
    now = time.time()
    day = wall(job.final_dot) - job.queued.accepted_at
    """what a time of the relay's clock is behind the machine's time of day"""
    alike: dict[tuple[State, str | None, int | None], list[RecipientUpdate]] = {}
    for update in updates:
        if update.state not in ("queued", "sending"):
            alike.setdefault((update.state, update.upstream, _code(update)), []).append(update)
    for (state, upstream, code), some in alike.items():
        sent = [one.sent_at for one in some if one.sent_at is not None]
        due = [one.next_at for one in some if one.next_at is not None]
        attributes = {
            "relay.lane": lane,
            "messaging.destination.name": upstream,
            "relay.recipients": len(some),
            "relay.reply.code": code,
            "relay.retry_in_s": round(max(0.0, min(due) + day - now), 3) if due else None,
        }
        at = max(sent) + day if sent else now
        yield tracing.event(state, at, attributes, ended=0 if state in OPEN_STATES else len(some))


def _code(update: RecipientUpdate) -> int | None:
    reply = update.reply or ""
    return int(reply[:3]) if reply[:3].isdecimal() and not is_own(reply) else None
