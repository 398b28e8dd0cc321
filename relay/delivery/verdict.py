"""Classify an upstream's reply: what becomes of the recipient. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from relay.mail.reply import Reply
from relay.upstream.account import is_account_error
from relay.upstream.gate import EXPIRED, NOT_STORED, OUTRUN, SUPERSEDED
from relay.upstream.results import UNWRITABLE, Phase, Result

JITTER = 0.2
"""a retry comes up to this share later than its ladder says, so that what failed together doesn't return together"""

_OPENING: frozenset[Phase] = frozenset({"connect", "greeting", "ehlo", "tls", "auth"})
_UNSUPPORTED = re.compile(r"5\.(?:3\.4|6\.[37]|5\.4)$")


@dataclass(frozen=True, slots=True)
class Delivered:
    reply: Reply


@dataclass(frozen=True, slots=True)
class TryNext:
    """This upstream doesn't take it now: the next upstream at once, or the next step of the ladder."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class Unsupported:
    """This upstream can never carry the message. If none can, it bounces."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class PermanentFailure:
    """No upstream would deliver it: it bounces."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class Unknown:
    """The content was sent, and its outcome can't be known."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The relay itself decided against it, before the final dot."""

    why: Literal["expired", "superseded", "outrun", "unstored"]


Verdict = Delivered | TryNext | Unsupported | PermanentFailure | Unknown | Withdrawn

_WITHDRAWALS: dict[Reply, Withdrawn] = {
    EXPIRED: Withdrawn("expired"),
    SUPERSEDED: Withdrawn("superseded"),
    OUTRUN: Withdrawn("outrun"),
    NOT_STORED: Withdrawn("unstored"),
}


def judge(result: Result) -> Verdict:
    """What becomes of a recipient after `result`, as far as this upstream is concerned (contract, section 7)."""
    reply = result.reply
    match result.outcome:
        case "sent":
            return Delivered(reply)
        case "ambiguous":
            return Unknown(reply)
        case "abandoned":
            return _WITHDRAWALS.get(reply, TryNext(reply))
        case "deferred":
            return TryNext(reply)
        case "refused":
            if result.phase in _OPENING or is_account_error(reply):
                return TryNext(reply)
            if result.phase == "mail":
                return Unsupported(reply) if _is_unsupported(reply) else TryNext(reply)
            return PermanentFailure(reply)


def _is_unsupported(reply: Reply) -> bool:
    return _UNSUPPORTED.match(reply.enhanced or "") is not None or reply.code in (552, 555) or reply == UNWRITABLE


def retry_at(now: float, ladder_s: Sequence[float], step: int, chance: float) -> float:
    """When the ladder's `step` (from 0; the last repeats) is due. `chance`: 0..1, where in the jitter it falls."""
    return now + ladder_s[min(step, len(ladder_s) - 1)] * (1.0 + JITTER * chance)
