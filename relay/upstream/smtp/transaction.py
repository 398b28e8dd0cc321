"""One message to one upstream, as a pure state machine: no socket, no clock.

Three ways, by what the upstream announced:

- CHUNKING and PIPELINING: MAIL, RCPT and `BDAT n LAST` with the content, nothing waited for (RFC 3030);
- PIPELINING: MAIL, RCPT and DATA in one write, the content behind 354 (RFC 2920);
- neither: command by command.

Replies are paired with commands strictly in the order sent. The owner asks `wants_content` and calls
`send_content` only when the message may leave for good: from then on a loss is ambiguous.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from relay.mail.reply import Reply
from relay.upstream.results import GARBLED, Outcome, Phase, Result
from relay.upstream.smtp.capabilities import Capabilities
from relay.upstream.smtp.outgoing import Outgoing

_Awaited = Literal["MAIL", "RCPT", "DATA", "DOT", "NOTHING"]


@dataclass(frozen=True, slots=True)
class Way:
    """How the envelope travels."""

    pipelined: bool
    chunked: bool

    @classmethod
    def of(cls, capabilities: Capabilities) -> Way:
        return cls(pipelined=capabilities.pipelining, chunked=capabilities.chunking)


class Transaction:
    """Bytes out by `begin`, `receive` and `send_content`; `done` when every recipient has its Result."""

    def __init__(self, mail: bytes, recipients: Sequence[tuple[int, bytes]], way: Way) -> None:
        """`mail`: the MAIL command; `recipients`: (position, RCPT command) pairs; see `commands.envelope`."""
        self._mail = mail
        self._way = way
        self._commands: deque[bytes] = deque(command for _, command in recipients)
        self._positions = [position for position, _ in recipients]
        self._awaited: deque[_Awaited] = deque()
        self._asked = 0
        """recipients whose RCPT was answered"""
        self.answered = 0
        """replies taken in"""
        self._accepted: list[int] = []
        self._results: dict[int, Result] = {}
        self._go_ahead = False
        """DATA was answered 354"""
        self._failed: tuple[Reply, Phase] | None = None
        self.goodbye: Reply | None = None
        """421 to an envelope whose content is under way as well"""
        self.content_sent = False
        self.wants_content = False
        """the content may be sent now, by `send_content`"""
        self.done = False
        self.needs_reset = False
        """the upstream may still hold an envelope: RSET before the next MAIL"""
        self.broken = False
        """the session can't be used again"""
        self.garbled = False
        """what came was not what can come"""

    @property
    def results(self) -> tuple[Result, ...]:
        return tuple(self._results[position] for position in self._positions if position in self._results)

    @property
    def outstanding(self) -> int:
        """Commands (the content counting as one) that have left and wait for their reply."""
        return len(self._awaited)

    @property
    def awaits(self) -> str:
        """What the next reply answers: MAIL, RCPT, DATA, DOT (the content), NOTHING (an empty one); '': none is due."""
        return self._awaited[0] if self._awaited else ""

    @property
    def envelope_answered(self) -> bool:
        """MAIL and every RCPT have their reply."""
        return self.answered > len(self._positions) or self.done

    def begin(self) -> bytes:
        """The first flight."""
        if not self._way.pipelined:
            self._awaited.append("MAIL")
            return self._mail
        self._awaited.append("MAIL")
        self._awaited.extend("RCPT" for _ in self._positions)
        flight = self._mail + b"".join(self._commands)
        self._commands.clear()
        if self._way.chunked:
            self.wants_content = True
            return flight
        self._awaited.append("DATA")
        return flight + b"DATA\r\n"

    def send_content(self, parts: Sequence[bytes]) -> Outgoing:
        """The content as it travels, with what frames it. `parts` each begin a line and together end in CRLF
        (mail.message.normalise). From here on a loss of the connection is ambiguous."""
        self.wants_content = False
        self.content_sent = True
        self._awaited.append("DOT")
        return Outgoing(parts, is_chunked=self._way.chunked)

    def receive(self, reply: Reply) -> bytes:
        """Take the next reply; returns what is to be written because of it (often nothing)."""
        if not self._awaited:
            self.garble()
            return b""
        awaited = self._awaited.popleft()
        self.answered += 1
        if reply.code == 421:
            # RFC 5321 3.8: the upstream is closing. What it says holds for this step; nothing more will come.
            self.broken = True
        match awaited:
            case "MAIL":
                out = self._mail_answered(reply)
            case "RCPT":
                out = self._rcpt_answered(reply)
            case "DATA":
                out = self._data_answered(reply)
            case "DOT":
                self._dot_answered(reply)
                out = b""
            case "NOTHING":
                out = b""
        if self.broken and not self.done:
            if not self.content_sent or not self._awaited or len(self._results) == len(self._positions):
                self.lose(reply)
                return b""
            # The rest should be silence. Who goes on all the same is heard: they may have accepted it.
            self.goodbye = self.goodbye or reply
        if not self._awaited and not self.wants_content and not out:
            self.done = True
        return out

    def lose(self, reply: Reply, *, whole: bool = True) -> None:
        """The session ended: everyone without a Result gets one, `reply` being the reason. `whole`: what was sent of
        the content includes its end; without that nobody can have accepted it."""
        # Who answers the envelope with 421 is closing, and reads no further.
        reply = self.goodbye or reply
        closing = self.broken and reply.code == 421
        if self._failed is not None:
            reason, failed_at = self._failed
            self._fail_rest(reason, failed_at)
        elif self.content_sent and whole and not closing:
            # BDAT flies with its envelope: those whose RCPT wasn't answered yet may have been accepted as well.
            for position in self._positions:
                self._results.setdefault(position, Result(position, "ambiguous", reply, "dot"))
        else:
            phase: Phase = "data" if self._go_ahead else ("rcpt" if self._accepted else "mail")
            told: Outcome = _outcome(reply) if closing else "abandoned"
            for position in self._positions:
                self._results.setdefault(position, Result(position, told, reply, phase))
        self.broken = True
        self.wants_content = False
        self.done = True

    def garble(self, *, whole: bool = True) -> None:
        """What comes can't be paired with what was sent, or is no reply at all. Unless 354 proved that the pairs were
        right, what recipients were told by RCPT is worth nothing either. `whole`: see `lose`."""
        self.garbled = True
        if not self._go_ahead:
            for position in [at for at, result in self._results.items() if result.phase == "rcpt"]:
                del self._results[position]
        self.lose(GARBLED, whole=whole)

    def doubt(self) -> None:
        """More replies came than commands were sent, and BDAT has no 354: one of them may have been meant for another,
        and `sent` not be true."""
        for position, result in self._results.items():
            if result.outcome == "sent":
                self._results[position] = Result(position, "ambiguous", GARBLED, "dot")
        self.broken = True

    def withdraw(self, reason: Reply) -> None:
        """Give up before the final dot. Behind 354 there is no way back but to close the session."""
        for position in self._positions:
            self._results.setdefault(position, Result(position, "abandoned", reason, "data"))
        self.broken = True
        self.wants_content = False
        self.done = True

    def _mail_answered(self, reply: Reply) -> bytes:
        if not reply.positive:
            self._failed = (_expected(reply), "mail")
            self._fail_rest(_expected(reply), "mail")
            if not self._way.pipelined:
                self._commands.clear()
            elif self._way.chunked and not self.content_sent:
                self.wants_content = False
            return b""
        return b"" if self._way.pipelined else self._next_rcpt()

    def _next_rcpt(self) -> bytes:
        self._awaited.append("RCPT")
        return self._commands.popleft()

    def _rcpt_answered(self, reply: Reply) -> bytes:
        position = self._positions[self._asked]
        self._asked += 1
        if reply.positive:
            self._accepted.append(position)
        elif self._failed is None:
            self._results[position] = Result(position, _outcome(reply), _expected(reply), "rcpt")
        if self._asked < len(self._positions):
            return b"" if self._way.pipelined else self._next_rcpt()
        if self._way.pipelined and not self._way.chunked:
            return b""
        if not self._accepted or self._failed is not None:
            self.needs_reset = not self.content_sent and self._failed is None
            self.wants_content = False
            return b""
        if self._way.chunked:
            self.wants_content = not self.content_sent
            return b""
        self._awaited.append("DATA")
        return b"DATA\r\n"

    def _data_answered(self, reply: Reply) -> bytes:
        if reply.code == 354:
            if self._accepted and self._failed is None:
                self._go_ahead = True
                self.wants_content = True
                return b""
            # RFC 2920 3.1: DATA was taken though nobody was: an empty message to nobody ends it.
            self._awaited.append("NOTHING")
            return b".\r\n"
        if reply.positive or 300 <= reply.code < 400:
            self.garble()
            return b""
        self._fail_rest(reply, "data")
        self.needs_reset = self._failed is None
        return b""

    def _dot_answered(self, reply: Reply) -> None:
        # RFC 3030 4.2: after a failed BDAT the envelope stands until RSET.
        self.needs_reset = self._way.chunked and not reply.positive
        if self._failed is not None:
            return
        if 300 <= reply.code < 400:
            self.garble()
            return
        outcome = _outcome(reply)
        for position in self._accepted:
            self._results[position] = Result(position, outcome, reply, "dot")

    def _fail_rest(self, reply: Reply, phase: Phase) -> None:
        outcome = _outcome(reply)
        for position in self._positions:
            self._results.setdefault(position, Result(position, outcome, reply, phase))


def _outcome(reply: Reply) -> Outcome:
    if reply.positive:
        return "sent"
    return "refused" if reply.permanent else "deferred"


def _expected(reply: Reply) -> Reply:
    """A 3yz where none belongs says nothing that could be relied on: an error of the upstream's, for now."""
    return GARBLED if 300 <= reply.code < 400 else reply
