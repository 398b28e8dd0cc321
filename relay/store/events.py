"""What happened to recipients, as values: events of the relay and of ESPs."""

from __future__ import annotations

from typing import Literal, NamedTuple

Source = Literal["relay", "esp"]

_PERMANENT = {"bounced": True, "deferred": False}
"""what an event of the relay's own says of another try"""


class MailEvent(NamedTuple):
    """Something that happened to one recipient of a message."""

    id: str
    """the same wherever and whenever it is read"""
    message_id: str
    """the relay's id of the message"""
    position: int
    """of the recipient in its message"""
    at: float
    """seconds since the epoch, by the relay's clock or the ESP's"""
    kind: str
    source: Source
    upstream: str | None = None
    permanent: bool | None = None
    """of a failure: whether another try is useless; None: not known, or no failure"""
    reason: str | None = None
    """one line, redacted: a reply, or the ESP's reason"""


def relay_event(
    message_id: str, position: int, at: float, kind: str, upstream: str | None, reason: str | None
) -> MailEvent:
    """An event of the relay's own, as a message file has it."""
    event_id = identify("relay", message_id, str(position), kind, repr(at))
    return MailEvent(event_id, message_id, position, at, kind, "relay", upstream, _PERMANENT.get(kind), reason)


def identify(*parts: str) -> str:
    """An id for an event that these parts tell from all others: `evt_` and 24 hexadecimal digits."""
    from hashlib import blake2b  # here, for the commands that read: it loads OpenSSL

    return "evt_" + blake2b("\n".join(parts).encode("utf-8", "replace"), digest_size=12).hexdigest()
