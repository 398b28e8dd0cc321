"""How a try at an upstream ended, as values: per recipient, and for the session itself."""

from __future__ import annotations

from typing import Literal, NamedTuple

from relay.mail.reply import Reply

Phase = Literal["connect", "greeting", "ehlo", "tls", "auth", "mail", "rcpt", "data", "dot", "session"]
"""`session`: one that was in use, or might have been"""
Outcome = Literal["sent", "deferred", "refused", "ambiguous", "abandoned"]


class Result(NamedTuple):
    """What one recipient was told. `abandoned`: never reached the final dot, and nothing was said about it."""

    position: int
    outcome: Outcome
    reply: Reply
    phase: Phase


class OpenFailed(Exception):
    """No session could be had: the upstream is unreachable, unsafe, or refuses us."""

    def __init__(self, phase: Phase, reply: Reply, *, said: bool = False) -> None:
        """`said`: the reply is the upstream's own, not our word for what went wrong."""
        self.phase: Phase = phase
        self.reply = reply
        self.said = said
        super().__init__(self.reason)

    @property
    def reason(self) -> str:
        """What may be logged and shown to anybody: `connect: connection refused`, or `auth: 535 5.7.8`. An upstream may
        quote a credential or a code: of what it said, only the code and the enhanced code."""
        if self.said:
            return f"{self.phase}: {self.reply.code} {self.reply.enhanced or ''}".rstrip()
        return f"{self.phase}: {self.reply.words}"


LOST = Reply.own(451, "4.4.2", "connection lost")
TIMED_OUT = Reply.own(451, "4.4.1", "no answer in time")
GARBLED = Reply.own(451, "4.5.0", "the upstream's answer can't be read")
UNWRITABLE = Reply.own(553, "5.1.3", "an address that can't stand in a command")
"""said on the upstream's behalf, which isn't asked"""
TROUBLE = Reply.own(451, "4.3.0", "internal error")
