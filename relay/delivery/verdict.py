"""Classify an upstream's reply: what becomes of the recipient. Pure."""

from __future__ import annotations

import re
from enum import Enum, auto

from relay.mail.reply import Reply
from relay.upstream.account import is_account_error
from relay.upstream.gate import EXPIRED, LOST_RACE, NOT_STORED, SUPERSEDED
from relay.upstream.results import UNWRITABLE, Phase, Result

_OPENING: frozenset[Phase] = frozenset({"connect", "greeting", "ehlo", "tls", "auth"})
_UNSUPPORTED = re.compile(r"5\.(?:3\.4|6\.[137]|5\.4)$")


class Verdict(Enum):
    DELIVERED = auto()
    TRY_NEXT = auto()
    """not delivered here and now: the next upstream at once, or the next step of the ladder"""
    UNSUPPORTED = auto()
    """this upstream can never carry the message; if none can, it bounces"""
    PERMANENT_FAILURE = auto()
    """no upstream would deliver it: it bounces"""
    UNKNOWN = auto()
    """the content was sent, and its outcome can't be known"""
    EXPIRED = auto()
    SUPERSEDED = auto()
    WITHDRAWN = auto()
    """the relay itself stopped the attempt before the final dot; it means nothing for the recipient"""


_WITHDRAWALS = {
    EXPIRED: Verdict.EXPIRED,
    SUPERSEDED: Verdict.SUPERSEDED,
    LOST_RACE: Verdict.WITHDRAWN,
    NOT_STORED: Verdict.WITHDRAWN,
}


def judge(result: Result) -> Verdict:
    """What `result` means for its recipient, as far as this upstream is concerned (docs/reference.md, SMTP service)."""
    reply = result.reply
    match result.outcome:
        case "sent":
            return Verdict.DELIVERED
        case "ambiguous":
            return Verdict.UNKNOWN
        case "abandoned":
            return _WITHDRAWALS.get(reply, Verdict.TRY_NEXT)
        case "deferred":
            return Verdict.TRY_NEXT
        case "refused":
            if result.phase in _OPENING or is_account_error(reply):
                return Verdict.TRY_NEXT
            if result.phase == "mail":
                return Verdict.UNSUPPORTED if _is_unsupported(reply) else Verdict.TRY_NEXT
            return Verdict.PERMANENT_FAILURE


def _is_unsupported(reply: Reply) -> bool:
    return _UNSUPPORTED.match(reply.enhanced or "") is not None or reply.code in (552, 555) or reply == UNWRITABLE
