"""Suppressed recipients: ended before a round begins; and bad addresses that an upstream's replies tell of."""

from __future__ import annotations

from relay.config.model import COPY_RULE, Lane
from relay.delivery.message import Job
from relay.mail.reply import Reply
from relay.policy.suppression import BadAddress, Suppressions, bad_address_code, reply_text
from relay.store.model import RecipientUpdate
from relay.upstream.results import Result


def end_suppressed(job: Job, lane: Lane, suppressions: Suppressions, now: float) -> None:
    """Turn each pending recipient that gets no mail of this lane into an update. `now`: seconds since the epoch."""
    if not suppressions.entries or job.queued.rule == COPY_RULE:
        return  # the operator has named the archive: each of its bounces is to be seen
    for position, pending in list(job.pending.items()):
        reason = suppressions.why(pending.open.recipient.address, lane, now)
        if reason is not None:
            reply = str(Reply(550, reply_text(reason)))
            job.updates.append(RecipientUpdate(position, "suppressed", reply=reply, step=pending.open.step))
            del job.pending[position]


def note_bad_address(job: Job, lane: str, upstream: str, result: Result, at: float) -> None:
    """Keep a refused recipient whose address is bad, for the time when its outcome is durable. A reply to the content
    says nothing of one address, and one of the relay's own nothing that an upstream knows."""
    if job.queued.rule == COPY_RULE or result.outcome != "refused" or result.phase != "rcpt" or result.reply.is_own:
        return
    code = bad_address_code(result.reply.enhanced)
    if code is not None:
        address = job.queued.envelope.recipients[result.position].address
        job.bad_addresses.append(BadAddress(lane, address, code, upstream, at))
