"""The results of an attempt at an upstream, as values: one for each recipient, or the failure to connect."""

from __future__ import annotations

from typing import Literal, NamedTuple

from relay.mail.outcome import Outcome
from relay.mail.reply import Reply

Phase = Literal["connect", "greeting", "ehlo", "tls", "auth", "mail", "rcpt", "data", "dot", "session"]
"""`session`: while one was in use, or could have been"""


class Result(NamedTuple):
    """What became of one recipient. `abandoned`: the final dot was never sent, and no reply was about the recipient."""

    position: int
    outcome: Outcome
    reply: Reply
    phase: Phase


class OpenFailed(Exception):
    """There is no connection: the upstream is unreachable, unsafe, or refuses us."""

    def __init__(self, phase: Phase, reply: Reply, *, from_upstream: bool = False) -> None:
        """`from_upstream`: the reply is the upstream's own, not the relay's description of what went wrong."""
        self.phase: Phase = phase
        self.reply = reply
        self.from_upstream = from_upstream
        super().__init__(self.reason)

    @property
    def reason(self) -> str:
        """Text that may be logged and shown: `connect: connection refused`, or `auth: 535 5.7.8`. An upstream's reply
        may quote a credential or a one-time code, so only its reply codes are shown."""
        if self.from_upstream:
            return f"{self.phase}: {self.reply.code} {self.reply.enhanced or ''}".rstrip()
        return f"{self.phase}: {self.reply.explanation}"


LOST = Reply.own(451, "4.4.2", "connection lost")
TIMED_OUT = Reply.own(451, "4.4.1", "no answer in time")
GARBLED = Reply.own(451, "4.5.0", "the upstream's answer can't be read")
UNWRITABLE = Reply.own(553, "5.1.3", "an address that can't stand in a command")
"""in the place of the upstream, which isn't asked"""
TROUBLE = Reply.own(451, "4.3.0", "internal error")
