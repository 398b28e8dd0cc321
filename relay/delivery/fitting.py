"""A message as the upstream at hand can carry it: re-encoded before it is signed, so that our signature holds there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from relay.delivery.job import Job
from relay.mail.transfer import Form, Unencodable, has_utf8_head
from relay.store.base import OpenRecipient
from relay.upstream.capabilities import Capabilities
from relay.upstream.transaction import Load

LARGE_BYTES = 256_000
"""from here on it is re-encoded off the loop"""


def load_of(job: Job, due: Sequence[OpenRecipient], deliver_by_s: int | None) -> Load:
    """What there is to carry, before it is known what the upstream takes."""
    envelope, content = job.queued.envelope, job.form("as it is").content
    eightbit = not content.isascii()
    return Load(
        envelope,
        [(one.position, one.recipient) for one in due],
        len(content),
        eightbit=eightbit,
        utf8_head=eightbit and envelope.smtputf8 and has_utf8_head(content),
        deliver_by_s=deliver_by_s,
    )


async def fitted(job: Job, load: Load, capabilities: Capabilities) -> tuple[Load, Form]:
    """The load in the form to send; as it was where it can't be had in a fitting one, which `unfit` then says."""
    if load.eightbit and not capabilities.eightbitmime:
        form: Form = "7bit"
    elif load.utf8_head and not capabilities.smtputf8:
        form = "ASCII head"
    else:
        return load, "as it is"
    try:
        made = job.form(form) if load.size_bytes < LARGE_BYTES else await asyncio.to_thread(job.form, form)
    except Unencodable:
        return load, "as it is"
    content = made.content
    return load._replace(size_bytes=len(content), eightbit=not content.isascii(), utf8_head=False), form
