"""From a round's outcome to the one transaction that writes it: pure but for the ids and the clock it is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from relay.config.model import Lane
from relay.delivery.job import Job, Pending
from relay.delivery.judge import retry_at
from relay.delivery.round import last_word
from relay.mail.redact import redact_reply
from relay.store.base import NewMessage, RecipientUpdate, Settlement, State

EXPIRED_REPLY = "451 4.4.7 expired before it could be sent"
DELAY_NOTICE_SHARE = 0.25
"""an RFC 3461 NOTIFY=DELAY is honoured once this share of a message's life has passed without delivery"""

Bounces = Callable[[Job, Sequence[RecipientUpdate], Sequence[RecipientUpdate]], tuple[NewMessage, ...]]
"""The DSNs to queue for (ended, deferred) recipients of a message."""


class Moment(NamedTuple):
    """When it is judged: `now` (seconds since the epoch), the same as time.monotonic, and `chance` (0..1) for the
    jitter."""

    now: float
    monotonic: float
    chance: float


def conclude(job: Job, lane: Lane, moment: Moment) -> None:
    """Turn every recipient still pending into an update: ended, or deferred with its next step."""
    match job.withdrawn(moment.monotonic):
        case "superseded":
            _end_all(job, "superseded", f"superseded by {job.superseded_by}")
        case "expired":
            _end_all(job, "expired", EXPIRED_REPLY)
        case None:
            for pending in job.pending.values():
                job.updates.append(_pending(job, pending, lane, moment))
            job.pending.clear()


def _pending(job: Job, pending: Pending, lane: Lane, moment: Moment) -> RecipientUpdate:
    said = redact_reply(str(last_word(pending)), job.queued.content)
    position, step = pending.open.position, pending.open.step
    if pending.last is not None and pending.unfit_everywhere:
        return RecipientUpdate(position, "bounced", upstream=pending.upstream, reply=said, step=step)
    due = min(retry_at(moment.now, lane.retry_s, step, moment.chance), job.queued.expires_at)
    return RecipientUpdate(
        position,
        "deferred",
        upstream=pending.upstream,
        reply=said,
        next_at=due,
        step=step + 1,
        delay_notified=pending.open.delay_notified or _is_late(job, pending, moment.now),
    )


def _is_late(job: Job, pending: Pending, now: float) -> bool:
    """Is the sender to hear of the delay (RFC 3461 NOTIFY=DELAY, or RFC 2852 by-mode N)?"""
    queued, notify = job.queued, pending.open.recipient.notify
    late_s = now - queued.accepted_at
    by = queued.envelope.deliver_by
    if by is not None and by.mode == "N":
        return late_s >= by.seconds
    life_s = queued.expires_at - queued.accepted_at
    return notify is not None and "DELAY" in notify and late_s >= life_s * DELAY_NOTICE_SHARE


def unknown(job: Job) -> None:
    """The relay stopped while the upstream's answer to the final dot was still out. Who wasn't in that transaction
    stays pending."""
    others = {at: one for at, one in job.pending.items() if at not in job.carried}
    for position in others:
        del job.pending[position]
    _end_all(job, "ambiguous", "451 4.3.2 the relay stopped before the upstream answered")
    job.pending.update(others)


def _end_all(job: Job, state: State, reply: str) -> None:
    for pending in job.pending.values():
        job.updates.append(RecipientUpdate(pending.open.position, state, reply=reply, step=pending.open.step))
    job.pending.clear()


def settlement(job: Job, bounces: Bounces) -> Settlement:
    """Everything the job has gathered, ready for the store; the job starts afresh."""
    updates = job.take_updates()
    already = {one.position: one.delay_notified for one in job.queued.due}
    deferred = [one for one in updates if one.state == "deferred" and one.delay_notified and not already[one.position]]
    ended = [
        one
        for one in updates
        if one.state in ("bounced", "expired") or (one.state == "sent" and one.position in job.relayed)
    ]
    return Settlement(
        job.queued.id,
        updates=updates,
        attempts=job.take_attempts(),
        timings_ms=dict(job.timings_ms),
        bounces=bounces(job, ended, deferred) if ended or deferred else (),
        note=f"superseded by {job.superseded_by}" if job.superseded_by is not None else None,
        only_bytes=len(job.queued.content) if len(job.queued.envelope.recipients) == 1 else None,
    )
