"""Which messages supersede each other. Pure."""

from __future__ import annotations

import hashlib

from relay.mail.envelope import Envelope
from relay.routing.router import Route


def supersede_key(route: Route, envelope: Envelope) -> str | None:
    """The same for messages of one rule to one recipient. Messages with several recipients never supersede."""
    if len(envelope.recipients) != 1:
        return None
    named = f"{route.lane}\n{route.rule or ''}\n{envelope.recipients[0].address.casefold()}"
    return hashlib.blake2b(named.encode(), digest_size=16).hexdigest()
