"""Values and protocols of the SMTP service: the submission, its receipt or refusal, and what the service calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from relay.config.model import Limits, Listener
from relay.intake.spool import Large
from relay.mail.envelope import Envelope
from relay.mail.reply import Reply

Reason = Literal[
    "address", "allow", "auth", "busy", "connections", "idempotency", "limit", "policy", "proxy", "recipients",
    "sender", "sequence", "size", "store", "suppressed", "syntax", "timeout", "tls",
]  # fmt: skip
"""Why something was refused: the label of `relay_messages_rejected_total`, so a closed list."""

SmtpProtocol = Literal["SMTP", "ESMTP", "ESMTPS", "ESMTPA", "ESMTPSA"]
"""RFC 3848."""


class Submission(NamedTuple):
    """One message as an app submitted it."""

    envelope: Envelope
    content: bytes | Large
    """unstuffed, without the final dot; otherwise as received"""
    client: str
    """the peer's IP (a mapped one as IPv4; behind PROXY the source), or `unix`"""
    helo: str
    """as given, unprintable characters replaced"""
    protocol: SmtpProtocol | Literal["HTTP"]
    listener: Listener
    receive_s: float
    """from the 354 having been written to the final dot having been read; a content that came with DATA took none"""
    final_dot: float
    """time.monotonic at the final dot (uvloop's own clock counts whole milliseconds)"""
    user: str | None
    """the user that logged in, where the listener verifies that"""
    user_senders: tuple[str, ...] = ()
    """patterns of the addresses that the user may send as; none: all"""
    lane: str | None = None
    """the lane that the request names, and that no rule changes then"""
    idempotency_key: str | None = None
    """of the request; None: the message's X-Relay-Idempotency-Key, if it has one"""
    was_admitted: bool = True
    """the queue had room for it when it began; False: it may repeat an earlier request, so that is yet to be asked"""


@dataclass(slots=True)
class Settings:
    """What a reload replaces. Sessions read it anew for each command."""

    limits: Limits
    hostname: str


class Refused(Exception):
    """The relay doesn't accept the message; the client gets `reply`."""

    def __init__(self, reply: Reply, reason: Reason = "policy", *, retry_after_s: int | None = None) -> None:
        """`retry_after_s`: how long the client is to wait, where that is known."""
        super().__init__(reply.code)
        self.reply = reply
        self.reason: Reason = reason
        self.retry_after_s = retry_after_s


class CannotListen(OSError):
    """A listener's address, certificate or users file can't be used; the text is one line for an operator."""

    def __init__(self, text: str, key: str = "address", listener: int = 0) -> None:
        """`key`: the listener's key in the configuration. `listener`: its position there."""
        super().__init__(text)
        self.key = key
        self.listener = listener


class Receipt(NamedTuple):
    """A submission that is durable."""

    id: str
    express: bool | None
    """its lane is express: its client goes before those that bring bulk mail. None: it was there already, and the lane
    isn't known"""


Submit = Callable[[Submission], Awaitable[Receipt]]
"""Stores a submission and returns once it is durable. Raises Refused; anything else is the relay's own fault (451)."""

Admit = Callable[[], Reply | None]
"""Asked at MAIL and at DATA: why no message may begin now, or None. A 421 ends the session."""


class Observer(Protocol):
    """Is called with each refusal, on the event loop: return at once."""

    def rejected(self, reason: Reason, client: str | None = None, listener: str | None = None) -> None:
        """A connection, a command or a message was refused. `client`: as in `Submission`. `listener`: its address."""
