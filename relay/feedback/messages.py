"""Messages between the main process and the feedback process, as JSON. Neither believes the other's to be well formed:
what the public reaches may have taken over the feedback process."""

from __future__ import annotations

from typing import Any

from relay.mail.mailbox_provider import KNOWN_PROVIDERS
from relay.store.events import Effect

# Requests of the main process.
START, RELOAD, PING, WEBHOOK, STOP = "start", "reload", "ping", "webhook", "stop"
"""`start`, `reload`: `Settings`. `webhook`: [upstream, headers] with the body attached; the reply is [status, text]"""
TAKE_COUNTS = "take_counts"
"""the reply is what `counts` would say now"""
ERASE = "erase"
"""an address to forget; the reply is how many rows had it"""
NUDGE = "nudge"
"""a notification of the main process: there are new events in a message file"""
# Requests of the feedback process.
EFFECTS = "effects"
"""a list of `store.events.Effect`; the reply has the places of those that need not come again"""
# Notifications of the feedback process.
COUNTS, RECORDED, PROVIDER = "counts", "recorded", "provider"
"""`counts`: what the metrics have gained; `recorded`: there are new events in the events file; `provider`: a domain and
its mailbox provider"""

_MOST_TEXT = 2_000
_LONGEST_DOMAIN = 255
_MOST_POSITION = 1_000_000
_LATEST = 1e11
"""seconds since the epoch"""


def read_effect(given: Any) -> Effect | None:
    """An effect out of JSON. None: it isn't well formed, or no store could take its values."""
    match given:
        case [
            "end" | "suppress" | "suppress_unnamed" as action,
            str() as message_id,
            int() as position,
            str() as upstream,
            int() | float() as at,
            str() as lane,
            str() | None as cause,
            str() | None as address,
            str() | None as reason,
        ]:
            texts = (message_id, upstream, lane, cause, address, reason)
            if all(map(_is_text, texts)) and 0 <= position <= _MOST_POSITION and 0 <= at <= _LATEST:
                return Effect(action, message_id, int(position), upstream, float(at), lane, cause, address, reason)
    return None


def read_provider(given: Any) -> tuple[str, str]:
    """A domain and its provider out of JSON. Raises ValueError."""
    match given:
        case [str() as domain, str() as provider] if provider in KNOWN_PROVIDERS and len(domain) <= _LONGEST_DOMAIN:
            return domain, provider
    raise ValueError("no domain with its mailbox provider")


def _is_text(value: str | None) -> bool:
    """UTF-8 can hold it, and it isn't long."""
    return value is None or (len(value) <= _MOST_TEXT and value.encode("utf-8", "ignore").decode() == value)
