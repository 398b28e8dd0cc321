"""A load in the form that a session can carry: re-encoded before it is signed, so that our signature holds there."""

from __future__ import annotations

import math
import time

from relay.mail.recode import Form, Unencodable, has_utf8_head
from relay.upstream.load import Finish, Load, Parts
from relay.upstream.smtp.capabilities import Capabilities
from relay.upstream.smtp.commands import Mail


async def fitted(load: Load, capabilities: Capabilities, finish: Finish) -> tuple[Mail, Parts, Form]:
    """The load as it is to be sent, its signed content, and the form. Where no form fits it is left as it is, and
    `unfit` says why."""
    form: Form = "as it is"
    mail = _mail(load, await load.content(form))
    if mail.eightbit and not capabilities.eightbitmime:
        form = "7bit"
    elif mail.utf8_head and not capabilities.smtputf8:
        form = "ASCII head"
    if form != "as it is":
        try:
            content = await load.content(form)
        except Unencodable:
            form = "as it is"
        else:
            mail = mail._replace(size_bytes=len(content), eightbit=not content.isascii(), utf8_head=False)
    return mail, await load.signed(form, finish), form


def _mail(load: Load, content: bytes) -> Mail:
    eightbit = not content.isascii()
    return Mail(
        load.envelope,
        load.recipients,
        len(content),
        eightbit=eightbit,
        utf8_head=eightbit and load.envelope.smtputf8 and has_utf8_head(content),
        deliver_by_s=_deliver_by_s(load),
    )


def _deliver_by_s(load: Load) -> int | None:
    """What is left of the app's DELIVERBY, whole seconds (RFC 2852 4.1.3: each hop passes on what remains)."""
    by = load.envelope.deliver_by
    if by is None:
        return None
    left = by.seconds - math.ceil(time.monotonic() - load.accepted_at)
    return max(left, 1) if by.mode == "R" else left
