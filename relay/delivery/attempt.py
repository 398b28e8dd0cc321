"""One attempt at one upstream, for some recipients of a job."""

from __future__ import annotations

from collections.abc import Sequence

from relay.config.model import Lane
from relay.delivery.message import Job
from relay.delivery.redirect import RedirectedLoad, for_each
from relay.mail.envelope import Recipient
from relay.mail.recode import Form
from relay.store.model import OpenRecipient
from relay.upstream.attempt import Progress, Report, Terms
from relay.upstream.base import Upstream
from relay.upstream.load import Load


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
    report = await upstream.send(load_of(job, due), job.gate, terms)
    return report if job.redirect is None else for_each(report, due)


def load_of(job: Job, due: Sequence[OpenRecipient] | None = None) -> Load:
    """What an attempt at some recipients of the job carries; None: at all that are pending."""
    load = _JobLoad(job, [one.open for one in job.pending.values()] if due is None else due)
    return load if job.redirect is None or not load.recipients else RedirectedLoad(load, job.redirect)


class _JobLoad:
    """A job, for some of its recipients (`relay.upstream.base.Load`)."""

    __slots__ = (
        *("_job", "accepted_at", "envelope", "finished", "finished_now", "is_part", "memo", "message_id", "original"),
        *("recipients", "redirected_to", "repeat_key", "signed"),
    )

    def __init__(self, job: Job, due: Sequence[OpenRecipient]) -> None:
        self.message_id = job.queued.id
        self.envelope = job.queued.envelope
        self.recipients: Sequence[tuple[int, Recipient]] = [(one.position, one.recipient) for one in due]
        self.original = job.queued.content
        self.accepted_at = job.final_dot
        self.signed = job.signed
        self.finished = job.finished
        self.finished_now = job.finished_now
        self.memo = job.memo
        self.is_part = job.queued.is_part
        self.redirected_to: str | None = None
        keys = {None if (known := job.pending[one.position].repeat) is None else known.key for one in due}
        self.repeat_key = keys.pop() if len(keys) == 1 else None
        self._job = job

    async def content(self, form: Form) -> bytes:
        return (await self._job.rendition(form)).content
