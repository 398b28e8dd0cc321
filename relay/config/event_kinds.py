"""The kinds of events. The commands use them, too, so nothing here imports pydantic."""

from __future__ import annotations

from typing import Literal, get_args

EventKind = Literal[
    "accepted",
    "sent",
    "deferred",
    "bounced",
    "expired",
    "superseded",
    "suppressed",
    "limited",
    "held",
    "ambiguous",
    "processed",
    "delivered",
    "rejected",
    "failed",
    "complained",
    "unsubscribed",
    "opened",
    "clicked",
]
"""what happens to a recipient, as the relay or an ESP says it"""
EVENT_KINDS: frozenset[str] = frozenset(get_args(EventKind))
