"""A message as an upstream is handed it: the forms it can take, each signed when it is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from relay.delivery.message import Job
from relay.mail.envelope import Envelope, Recipient
from relay.mail.transfer import Form
from relay.store.model import OpenRecipient
from relay.upstream.base import Parts

LARGE_BYTES = 256_000
"""from here on a content is looked through, re-encoded and signed off the loop"""


class JobLoad:
    """A job, for some of its recipients (`relay.upstream.base.Load`)."""

    __slots__ = ("_job", "accepted_at", "envelope", "message_id", "original", "recipients")

    def __init__(self, job: Job, due: Sequence[OpenRecipient]) -> None:
        self.message_id = job.queued.id
        self.envelope: Envelope = job.queued.envelope
        self.recipients: Sequence[tuple[int, Recipient]] = [(one.position, one.recipient) for one in due]
        self.original = job.queued.content
        self.accepted_at = job.final_dot
        self._job = job

    async def content(self, form: Form) -> bytes:
        job = self._job
        large = len(self.original) >= LARGE_BYTES and not job.has(form)
        made = await asyncio.to_thread(job.form, form) if large or job.is_toilsome(form) else job.form(form)
        return made.content

    async def signed(self, form: Form, unsigned: frozenset[str]) -> Parts:
        job = self._job
        parts = partial(job.parts, unsigned, form)
        # What isn't stored yet is being signed already.
        if len(job.form(form).content) >= LARGE_BYTES and (form != "as it is" or job.stored.is_set()):
            await asyncio.to_thread(parts)
        return parts
