"""What an event means for the recipient, where that is the same for all ESPs: its key, status and suppression."""

from __future__ import annotations

import hashlib
import re

from relay.providers.reading import identifier, line
from relay.providers.webhook import EspEvent, SuppressionCause

_STATUS = re.compile(r"(?<![\d.])([245]\.\d{1,3}\.\d{1,3})(?!\.?\d)", re.ASCII)
_REPLY = re.compile(r"(?<![\d.])([45])\d\d(?![\d.])", re.ASCII)
# RFC 3463 and IANA's registry: content and policy, the sender's address, the message's size, a loop, expiry, and
# trouble of the receiving system as a whole. None says that the mailbox is gone. 5.3.0 is sendmail's unknown user.
_NOT_THE_MAILBOX = re.compile(r"5\.(?:[67]\.\d+|1\.[78]|2\.3|3\.[1-9]\d*|4\.[67])|[24]\..*", re.ASCII)
_VAGUE = (None, "5.0.0")
_POLICY = re.compile(
    r"\b(?:spam\w*|unsolicited|black\s?list\w*|block\s?list\w*|dnsbl|rbl|blocked|reputation|polic(?:y|ies)|dmarc|dkim|spf"
    r"|virus|malware|phish\w*|rate limit\w*|expired|timed? ?out|too large|relay(?:ing)? (?:access )?denied)\b",
    re.IGNORECASE | re.ASCII,
)
_MAX_KEY = 200


def status_in(*texts: object) -> str | None:
    """The first enhanced status code (RFC 3463) in the texts, such as 5.1.1."""
    for text in texts:
        if isinstance(text, str) and (found := _STATUS.search(text[:2_000])) is not None:
            return found[1]
    return None


def is_permanent_reply(text: object) -> bool | None:
    """Whether an SMTP reply or status is permanent; None: it has neither code."""
    if status := status_in(text):
        return status.startswith("5")
    if isinstance(text, str) and (found := _REPLY.search(text[:2_000])) is not None:
        return found[1] == "5"
    return None


def bounce_cause(permanent: bool | None, status: str | None, text: str | None) -> SuppressionCause | None:
    """The suppression that follows from a bounce: only from a permanent one that doesn't blame something else.

    The status decides; where it says nothing, the text does.
    """
    if status in _VAGUE:
        blames_mailbox = text is None or _POLICY.search(text) is None
    else:
        blames_mailbox = _NOT_THE_MAILBOX.fullmatch(status) is None
    return "bounce" if permanent and blames_mailbox else None


def identified(event: EspEvent, identity: str | None, *more: object) -> EspEvent:
    """The event with its key: the ESP's id of it, if it has one, and a digest.

    The digest keeps apart what one id covers: several recipients of one SNS message, or what came later under the same
    id. Where the ESP has no id, `more` and the message's ids stand for it.
    """
    facts = [event.kind, event.recipient, event.at, event.permanent]
    if identity is None:
        facts += [event.relay_id, event.esp_id, event.message_id, event.reason, *map(identifier, more)]
    digest = hashlib.sha256(repr(facts).encode("utf-8", "backslashreplace")).hexdigest()
    short = line(identity, _MAX_KEY - 17) if identity is not None else None
    return event._replace(key=f"{short}.{digest[:16]}" if short else digest)
