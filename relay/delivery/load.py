"""A job as an upstream is handed it, for some of its recipients."""

from __future__ import annotations

from collections.abc import Sequence

from relay.delivery.message import Job
from relay.mail.envelope import Recipient
from relay.mail.recode import Form
from relay.store.model import OpenRecipient


class JobLoad:
    """`relay.upstream.base.Load` of a job."""

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
