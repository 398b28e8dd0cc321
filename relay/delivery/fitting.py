"""A message as the upstream at hand can carry it: re-encoded before it is signed, so that our signature holds there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from relay.delivery.message import Job
from relay.mail.transfer import Form, Unencodable, has_utf8_head
from relay.store.model import OpenRecipient, Queued
from relay.upstream.smtp.capabilities import Capabilities
from relay.upstream.smtp.transaction import Load

LARGE_BYTES = 256_000
"""from here on it is looked through, re-encoded and signed off the loop"""


async def load_of(job: Job, due: Sequence[OpenRecipient], deliver_by_s: int | None) -> Load:
    """What there is to carry, before it is known what the upstream takes."""
    envelope = job.queued.envelope
    content = (await _form(job, "as it is")).content
    eightbit = not content.isascii()
    return Load(
        envelope,
        [(one.position, one.recipient) for one in due],
        len(content),
        eightbit=eightbit,
        utf8_head=eightbit and envelope.smtputf8 and has_utf8_head(content),
        deliver_by_s=deliver_by_s,
    )


async def fitted(
    job: Job, load: Load, capabilities: Capabilities, unsigned: frozenset[str] = frozenset()
) -> tuple[Load, Form]:
    """The load in the form to send; as it was where it can't be had in a fitting one, which `unfit` then says. A large
    one is signed, too: `unsigned` are the headers left out."""
    form: Form = "as it is"
    if load.eightbit and not capabilities.eightbitmime:
        form = "7bit"
    elif load.utf8_head and not capabilities.smtputf8:
        form = "ASCII head"
    if form != "as it is":
        try:
            content = (await _form(job, form)).content
        except Unencodable:
            form = "as it is"
        else:
            load = load._replace(size_bytes=len(content), eightbit=not content.isascii(), utf8_head=False)
    # What isn't stored yet is being signed already.
    if load.size_bytes >= LARGE_BYTES and (form != "as it is" or job.stored.is_set()):
        await asyncio.to_thread(job.parts, unsigned, form)
    return load, form


async def _form(job: Job, form: Form) -> Queued:
    large = len(job.queued.content) >= LARGE_BYTES and not job.has(form)
    return await asyncio.to_thread(job.form, form) if large or job.is_toilsome(form) else job.form(form)
