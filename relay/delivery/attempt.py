"""One attempt at one upstream, for some recipients of a job."""

from __future__ import annotations

from collections.abc import Sequence

from relay.config.model import Lane
from relay.delivery.message import Job
from relay.delivery.redirect import RedirectedLoad, for_each
from relay.mail.envelope import Recipient
from relay.mail.recode import Form
from relay.store.model import OpenRecipient
from relay.upstream.base import Progress, Report, Terms, Upstream


async def attempt(
    job: Job,
    upstream: Upstream,
    due: Sequence[OpenRecipient],
    lane: Lane,
    progress: Progress,
    *,
    own_session: bool = False,
) -> Report:
    """Hand `due` recipients over to the upstream, or all of them as one to the redirect address. Never raises for what
    happens there. `own_session`: see `Terms`."""
    terms = Terms(lane.attempt_s, lane.final_s, progress, own_session)
    load = _JobLoad(job, due)
    if job.redirect is None:
        return await upstream.send(load, job.gate, terms)
    return for_each(await upstream.send(RedirectedLoad(load, job.redirect), job.gate, terms), due)


class _JobLoad:
    """A job, for some of its recipients (`relay.upstream.base.Load`)."""

    __slots__ = ("_job", "accepted_at", "envelope", "message_id", "original", "recipients", "signed")

    def __init__(self, job: Job, due: Sequence[OpenRecipient]) -> None:
        self.message_id = job.queued.id
        self.envelope = job.queued.envelope
        self.recipients: Sequence[tuple[int, Recipient]] = [(one.position, one.recipient) for one in due]
        self.original = job.queued.content
        self.accepted_at = job.final_dot
        self.signed = job.signed
        self._job = job

    async def content(self, form: Form) -> bytes:
        return (await self._job.rendition(form)).content
