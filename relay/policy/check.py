"""The policy: is a message accepted, or refused with which reply. It is asked before a message, at its final dot and
once its lane is known. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from relay.mail.envelope import Envelope
from relay.mail.reply import Reply
from relay.policy.suppression import Suppressions, reply_text

if TYPE_CHECKING:
    from relay.config.model import Lane

FULL = Reply(452, "4.3.1 no room for more mail now; try again")
UNWRITABLE = Reply(451, "4.3.0 the store can't be written now; try again")

StoreFailure = Literal["full", "unwritable"]


class PolicyFacts(NamedTuple):
    """What the relay knows at this moment."""

    limits_reached: Sequence[str] = ()
    """the queue's limits that are reached"""
    store_failure: StoreFailure | None = None
    """why a message could not be stored a moment ago"""
    free_bytes: int | None = None
    """of the store's disk"""
    size_bytes: int = 0
    """of the message's content"""


class Accept(NamedTuple):
    """The message goes on to its lane."""


class Refuse(NamedTuple):
    """The client gets `reply`; `reason` is the label of `relay_messages_rejected_total`."""

    reply: Reply
    reason: Literal["busy", "limit", "policy", "sender", "suppressed"]
    retry_after_s: int | None = None
    """how long the client is to wait, where that is known"""


Decision = Accept | Refuse


def check(facts: PolicyFacts) -> Decision:
    """Decide about a message whose content has come in. Only a content that is larger than the disk's free space is
    refused: a queue that filled meanwhile, or a write that failed, must not turn a code away so late."""
    too_large = facts.free_bytes is not None and facts.size_bytes > facts.free_bytes
    return Refuse(FULL, "busy") if too_large else Accept()


def check_recipients(envelope: Envelope, lane: Lane, suppressions: Suppressions, now: float) -> Decision:
    """Decide about a message of that lane: it is refused where each recipient is suppressed. Where only some are, it is
    accepted, and they end before its first try. `now`: seconds since the epoch."""
    first: str | None = None
    for recipient in envelope.recipients:
        reason = suppressions.why(recipient.address, lane, now)
        if reason is None:
            return Accept()
        first = first or reason
    return Accept() if first is None else Refuse(Reply(550, reply_text(first)), "suppressed")


def check_capacity(facts: PolicyFacts) -> Decision:
    """Decide whether any message can be taken now. It is asked at MAIL, at DATA and by `/readyz`."""
    if facts.limits_reached or facts.store_failure == "full":
        return Refuse(FULL, "busy")
    if facts.store_failure == "unwritable":
        return Refuse(UNWRITABLE, "busy")
    return Accept()
