"""What the SMTP service hands on and asks for: the submission, the two ways to say no, the listeners for its events."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal, NamedTuple, Protocol

from relay.config.model import Listener
from relay.intake.spool import Large
from relay.mail.envelope import Envelope
from relay.mail.reply import Reply

Reason = Literal[
    "address", "allow", "auth", "busy", "connections", "policy", "proxy", "recipients", "sequence", "size", "store",
    "syntax", "timeout", "tls",
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
    protocol: SmtpProtocol
    listener: Listener
    receive_s: float
    """from the DATA command to the final dot"""
    final_dot: float
    """time.monotonic at the final dot (uvloop's own clock counts whole milliseconds)"""
    user: str | None
    """who authenticated, where the listener verifies that"""


class Refused(Exception):
    """The relay won't take it, and says so with `reply`."""

    def __init__(self, reply: Reply, reason: Reason = "policy") -> None:
        super().__init__(reply.code)
        self.reply = reply
        self.reason: Reason = reason


class CannotListen(OSError):
    """A listener can't be put in service (its address, its certificate, its users file); one line for an operator."""

    def __init__(self, text: str, key: str = "address", listener: int = 0) -> None:
        """`key`: of a listener in the configuration. `listener`: its position there."""
        super().__init__(text)
        self.key = key
        self.listener = listener


class Receipt(NamedTuple):
    """A submission that is durable."""

    id: str
    express: bool
    """it is a code: who sent it goes before those that bring bulk mail"""


Accept = Callable[[Submission], Awaitable[Receipt]]
"""Stores a submission and returns once it is durable. Raises Refused; anything else is trouble of ours (451)."""

Admit = Callable[[], Reply | None]
"""Asked before MAIL and before DATA: None, or why not now (452 4.3.1). A 421 ends the session."""


def always() -> None:
    """The `Admit` that never says no."""


class Observer(Protocol):
    """Hears what happens at the door. Called on the loop: return at once."""

    def connected(self) -> None:
        """A client was let in, or is about to hear why not."""

    def disconnected(self) -> None:
        """Its session ended: one for each `connected`."""

    def rejected(self, reason: Reason) -> None:
        """Something was refused: a connection, a command, a message."""


class Silent:
    """The observer that does nothing."""

    def connected(self) -> None: ...

    def disconnected(self) -> None: ...

    def rejected(self, reason: Reason) -> None: ...
