"""From a round's outcome to the one transaction that writes it: pure but for the ids and the clock it is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from relay.config.model import Lane
from relay.delivery.ladder import retry_at
from relay.delivery.message import Job, Pending
from relay.mail.message import has_large_head
from relay.mail.reply import Reply
from relay.store.model import NewMessage, RecipientUpdate, Settlement, State
from relay.upstream.results import TROUBLE

EXPIRED_REPLY = str(Reply.own(451, "4.4.7", "expired before it could be sent"))
UNAVAILABLE = Reply.own(451, "4.4.1", "no upstream is available")
SLOW_UPDATES = 20
"""the DSN about the outcome of more recipients is made off the event loop"""
DELAY_NOTICE_SHARE = 0.25
"""an RFC 3461 NOTIFY=DELAY is honoured once this share of a message's life has passed without delivery"""

_FAILED: frozenset[State] = frozenset({"bounced", "expired", "suppressed"})
"""RFC 3461: its sender is to hear of it"""
Bounces = Callable[[Job, Sequence[RecipientUpdate], Sequence[RecipientUpdate]], NewMessage | None]
"""The DSN to queue about (ended, deferred) recipients of a message; None: there is none."""


class Moment(NamedTuple):
    """When it is judged: `now` (seconds since the epoch), the same as `steady`, and `chance` (0..1) for the
    jitter."""

    now: float
    steady: float
    chance: float


def conclude(job: Job, lane: Lane, moment: Moment) -> None:
    """Turn every recipient still pending into an update: ended, or deferred with its next step."""
    _conclude(job, lane, moment, _expired_reply(job))


def put_off(job: Job, lane: Lane, moment: Moment) -> None:
    """`conclude` after a fault of the relay's own: it looks neither at the content nor at a reply, so what is wrong
    with one message can't keep it from its end."""
    for pending in job.pending.values():
        pending.last, pending.unsupported_everywhere = str(TROUBLE), False
    _conclude(job, lane, moment, EXPIRED_REPLY)


def _conclude(job: Job, lane: Lane, moment: Moment, expired_reply: str) -> None:
    match job.withdrawn(moment.steady):
        case "superseded":
            _end_all(job, "superseded", f"superseded by {job.superseded_by}")
        case "expired":
            _end_all(job, "expired", expired_reply)
        case "stopped":
            # Recipients whose outcome is known to be "not sent" go back to the store unchanged. Only the unknown ones
            # get an update.
            for position in [at for at, pending in job.pending.items() if pending.is_unknown]:
                job.updates.append(_unknown(job, job.pending.pop(position), lane, moment))
        case None:
            for pending in job.pending.values():
                job.updates.append(_pending(job, pending, lane, moment))
            job.pending.clear()


def _expired_reply(job: Job) -> str:
    """With what kept it from being sent, where that is known."""
    last = next((pending.last for pending in job.pending.values() if pending.last is not None), None)
    return EXPIRED_REPLY if last is None else f"{EXPIRED_REPLY}; before: {last}"


def _pending(job: Job, pending: Pending, lane: Lane, moment: Moment) -> RecipientUpdate:
    position, step = pending.open.position, pending.open.step
    if pending.last is not None and pending.unsupported_everywhere:
        return RecipientUpdate(position, "bounced", upstream=pending.upstream, reply=pending.last, step=step)
    due = min(retry_at(moment.now, lane.retry_s, step, moment.chance), job.queued.expires_at)
    if pending.repeat is not None and pending.repeat.until > moment.now:
        due = min(due, pending.repeat.until)  # from then on it may go elsewhere
    return RecipientUpdate(
        position,
        "deferred",
        upstream=pending.upstream,
        reply=pending.last or str(UNAVAILABLE),
        next_at=due,
        step=step + 1,
        delay_notified=pending.open.delay_notified or _is_late(job, pending, moment.now),
        repeat=pending.repeat,
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


def _unknown(job: Job, pending: Pending, lane: Lane, moment: Moment) -> RecipientUpdate:
    """An upstream may have it. The next start goes on with the next upstream at once; where there is but one, at the
    ladder's next step."""
    step, due, names = pending.open.step, moment.now, job.queued.upstreams or lane.upstreams
    if len(names) == 1:
        due = min(retry_at(due, lane.retry_s, step, moment.chance), job.queued.expires_at)
    following = names.index(pending.upstream) + 1 if pending.upstream in names else step + 1
    return RecipientUpdate(
        pending.open.position,
        "queued",
        upstream=pending.upstream,
        reply=pending.last,
        next_at=due,
        # A round begins with the upstream that its step points to.
        step=step + ((following - step) % len(names) or len(names)),
        delay_notified=pending.open.delay_notified,
        repeat=pending.repeat,
    )


def _end_all(job: Job, state: State, reply: str) -> None:
    for pending in job.pending.values():
        job.updates.append(RecipientUpdate(pending.open.position, state, reply=reply, step=pending.open.step))
    job.pending.clear()


def settlement(job: Job, dsn: NewMessage | None) -> Settlement:
    """Everything that the job has gathered, ready for the store; the job starts afresh."""
    settled = Settlement(
        job.queued.id,
        updates=tuple(job.updates),
        # Attempts of a race are judged in another order than they are numbered in. The store counts on from the last.
        attempts=tuple(sorted(job.attempts, key=lambda attempt: attempt.n)),
        timings_ms=dict(job.timings_ms),
        bounces=() if dsn is None else (dsn,),
        note=f"superseded by {job.superseded_by}" if job.superseded_by is not None else job.note,
        went_unsigned=job.went_unsigned,
        only_bytes=len(job.queued.content) if len(job.queued.envelope.recipients) == 1 else None,
    )
    job.updates, job.attempts, job.note = [], [], None
    return settled


def has_slow_dsn(job: Job) -> bool:
    """Would making the job's DSN hold up the event loop?"""
    about = sum(one.state in (*_FAILED, "deferred") or one.position in job.relayed for one in job.updates)
    return about > SLOW_UPDATES or (about > 0 and has_large_head(job.queued.content))


def notification(job: Job, bounces: Bounces) -> NewMessage | None:
    """The DSN about what the job has gathered so far. It may run on a thread, while the job stands still."""
    already = {one.position: one.delay_notified for one in job.queued.due}
    deferred = [
        one for one in job.updates if one.state == "deferred" and one.delay_notified and not already[one.position]
    ]
    ended = [
        one for one in job.updates if one.state in _FAILED or (one.state == "sent" and one.position in job.relayed)
    ]
    return bounces(job, ended, deferred) if ended or deferred else None
