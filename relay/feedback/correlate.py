"""Find the recipient that an ESP's event is about: by the relay's id, the ESP's id, the Message-ID, or by address and
time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, NamedTuple

from relay.providers.webhook import EspEvent
from relay.store.sqlite.locate import Located, is_to, recipients_of, to_address
from relay.store.sqlite.reader import Reader

LOOKED_BACK_S = 4 * 86400.0
"""how long after its acceptance a message is recognised by its recipient; ESPs try for three days"""
MOST_CANDIDATES = 500
"""messages to one address that are looked at"""

Miss = Literal["unknown", "another recipient"]
"""`unknown`: no message of the relay's; `another recipient`: the message didn't go to that address"""


class Upstream(NamedTuple):
    """What tells the mail of an upstream from other mail."""

    name: str
    esp_id: Callable[[str], str | None] | None
    """the ESP's id in its reply to the final dot"""
    keeps_message_id: bool


def locate(readers: Sequence[Reader], event: EspEvent, upstream: Upstream, now: float) -> Located | Miss:
    """The recipient that the event is about. Blocks; raises StoreError."""
    if event.relay_id is not None:
        return _by_relay_id(readers, event, event.relay_id)
    if event.recipient is None:
        return "unknown"
    at = min(event.at or now, now)
    look = partial(to_address, address=event.recipient, after=at - LOOKED_BACK_S, before=at, limit=MOST_CANDIDATES)
    candidates = [one for reader in readers for one in reader.ask(look)]
    candidates.sort(key=lambda one: one.accepted_at, reverse=True)
    return _choose(candidates, event, upstream) or "unknown"


def _by_relay_id(readers: Sequence[Reader], event: EspEvent, relay_id: str) -> Located | Miss:
    for reader in readers:
        found = reader.ask(partial(recipients_of, message_id=relay_id))
        if found:
            return _recipient(reader, found, event.recipient)
    return "unknown"


def _recipient(reader: Reader, among: Sequence[Located], address: str | None) -> Located | Miss:
    if address is None:
        return among[0] if len(among) == 1 else "unknown"
    for one in among:
        if reader.ask(partial(is_to, one=one, address=address)):
            return one
    return "another recipient"


def _choose(candidates: Sequence[Located], event: EspEvent, upstream: Upstream) -> Located | None:
    """The best of the messages to the event's recipient, newest first."""
    ids = [(one, _esp_id(one, upstream)) for one in candidates]
    if event.esp_id is not None:
        for one, esp_id in ids:
            if esp_id == event.esp_id:
                return one
    if event.message_id is not None:
        for one in candidates:
            if one.header_id == event.message_id:
                return one
    # An id of the event that differs from the message's own says that it is about another message.
    return next((one for one, esp_id in ids if _may_be(one, esp_id, event, upstream)), None)


def _esp_id(one: Located, upstream: Upstream) -> str | None:
    if upstream.esp_id is None or one.upstream != upstream.name or one.reply is None:
        return None
    return upstream.esp_id(one.reply)


def _may_be(one: Located, esp_id: str | None, event: EspEvent, upstream: Upstream) -> bool:
    """Was it sent by this upstream, without an id that the event contradicts?"""
    if one.upstream != upstream.name or one.sent_at is None:
        return False
    if event.esp_id is not None and esp_id is not None:
        return False
    return event.message_id is None or not upstream.keeps_message_id
