"""What an upstream's word means for a recipient and for the upstream: pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from relay.mail.reply import Reply
from relay.upstream.account import ACCOUNT_CODES
from relay.upstream.gate import EXPIRED, NOT_STORED, OUTRUN, SUPERSEDED
from relay.upstream.results import UNWRITABLE, Phase, Result

JITTER = 0.2
"""a retry comes up to this share later than its ladder says, so that what failed together doesn't return together"""

_OPENING: frozenset[Phase] = frozenset({"connect", "greeting", "ehlo", "tls", "auth"})
_UNFIT = re.compile(r"5\.(?:3\.4|6\.[37]|5\.4)$")
# SES: "554 Message rejected: Email address is not verified", SendGrid: "550 The from address does not match a verified
# Sender Identity", Postmark, Brevo and Mailgun alike.
_SENDER_UNVERIFIED = re.compile(
    r"not (?:yet )?verified|unverified|verified sender|sender (?:identity|address) (?:is )?not|not authenticated"
    r"|authentication (?:is )?required|unauthorized ip|account (?:is )?(?:suspended|disabled|not active)"
    r"|credits exceeded",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Delivered:
    reply: Reply


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Not here, not now: another upstream at once, or the next step of the ladder."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class Unfit:
    """This upstream can never carry it; if none can, it is the recipient's end."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class Ended:
    """The recipient's end: a bounce."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class Unknown:
    """It left, and what became of it can't be known."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The relay's own decision, before the final dot."""

    why: Literal["expired", "superseded", "outrun", "unstored"]


Verdict = Delivered | Elsewhere | Unfit | Ended | Unknown | Withdrawn

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
            return _WITHDRAWALS.get(reply, Elsewhere(reply))
        case "deferred":
            return Elsewhere(reply)
        case "refused":
            if result.phase in _OPENING or speaks_of_us(reply):
                return Elsewhere(reply)
            if result.phase == "mail":
                unfit = _UNFIT.match(reply.enhanced or "") or reply.code in (552, 555) or reply == UNWRITABLE
                return Unfit(reply) if unfit else Elsewhere(reply)
            return Ended(reply)


def speaks_of_us(reply: Reply) -> bool:
    """A 5yz about the account or its senders condemns the upstream, not the mail."""
    return reply.code in ACCOUNT_CODES or _SENDER_UNVERIFIED.search(reply.text) is not None


def retry_at(now: float, ladder_s: Sequence[float], step: int, chance: float) -> float:
    """When the ladder's `step` (from 0; the last repeats) is due. `chance`: 0..1, where in the jitter it falls."""
    return now + ladder_s[min(step, len(ladder_s) - 1)] * (1.0 + JITTER * chance)
