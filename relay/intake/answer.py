"""What a command is answered, as a value. Pure."""

from __future__ import annotations

from typing import Literal, NamedTuple

from relay.intake.types import Reason
from relay.mail.reply import Reply


class Credentials(NamedTuple):
    """What a client logs in with."""

    user: str
    password: bytes


class Answer(NamedTuple):
    """A reply, and what the session does after it."""

    reply: Reply | None
    """None: it depends on what the session does now"""
    reason: Reason | None = None
    """why it is a refusal; None: it is none"""
    then: Literal["read on", "receive content", "start TLS", "close"] | Credentials = "read on"
    """credentials: verify them"""
    is_error: bool = False
    """a mistake of the client: a session may have only so many"""
    lines: tuple[str, ...] = ()
    """the reply's further lines"""


def refuse(reply: Reply, reason: Reason) -> Answer:
    """A refusal. RFC 5321 3.8: 421 closes the connection."""
    return Answer(reply, reason, "close" if reply.code == 421 else "read on", is_error=reason in ("syntax", "sequence"))
