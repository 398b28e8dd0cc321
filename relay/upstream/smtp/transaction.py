"""One message to one upstream, as a pure state machine: no socket, no clock.

Three modes, by what the upstream announced:

- CHUNKING and PIPELINING: MAIL, RCPT and `BDAT n LAST` with the content in one flight (RFC 3030);
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

from relay.mail.outcome import Outcome
from relay.mail.reply import Reply
from relay.upstream.results import GARBLED, Phase, Result
from relay.upstream.smtp.capabilities import Capabilities
from relay.upstream.smtp.outgoing import Outgoing

_Expected = Literal["MAIL", "RCPT", "DATA", "DOT", "NOTHING"]


@dataclass(frozen=True, slots=True)
class EnvelopeMode:
    """How the envelope leaves: its commands together, and (only then) the content behind them without a 354."""

    pipelined: bool
    chunked: bool

    @classmethod
    def of(cls, capabilities: Capabilities) -> EnvelopeMode:
        return cls(capabilities.pipelining, capabilities.pipelining and capabilities.chunking)


class Transaction:
    """Bytes out by `begin`, `receive` and `send_content`; `done` when every recipient has its Result."""

    def __init__(self, mail: bytes, recipients: Sequence[tuple[int, bytes]], mode: EnvelopeMode) -> None:
        """`mail`: the MAIL command; `recipients`: (position, RCPT command) pairs. See `commands`."""
        self._mail = mail
        self.mode = mode
        self._commands: deque[bytes] = deque(command for _, command in recipients)
        self._positions = [position for position, _ in recipients]
        self._expected: deque[_Expected] = deque()
        self._rcpts_answered = 0
        self.answered = 0
        """replies received"""
        self._accepted: list[int] = []
        self._results: dict[int, Result] = {}
        self._go_ahead = False
        """DATA was answered 354"""
        self._mail_refusal: Reply | None = None
        self.closing_reply: Reply | None = None
        """421, to this transaction while its content was on its way, or to the one before it"""
        self.reply_421: Reply | None = None
        """the reply of an upstream that is closing (RFC 5321 3.8), to a command of this transaction"""
        self.has_begun = False
        """its first bytes were written"""
        self.content_sent = False
        self.envelope_first = False
        """with CHUNKING: the content leaves once the envelope was answered, not behind it"""
        self.is_downgraded = False
        """see `downgrade_to_ambiguous`"""
        self.wants_content = False
        """the content may be sent now, by `send_content`"""
        self.done = False
        self.needs_reset = False
        """the upstream may still hold an envelope: RSET before the next MAIL"""
        self.broken = False
        """the session can't be used again"""
        self.is_desynchronised = False
        """a reply came that answers no command, or is none"""

    @property
    def results(self) -> tuple[Result, ...]:
        return tuple(self._results[position] for position in self._positions if position in self._results)

    @property
    def outstanding(self) -> int:
        """Commands that wait for their reply; the content counts as one."""
        return len(self._expected)

    @property
    def expects(self) -> str:
        """What the next reply answers: MAIL, RCPT, DATA, DOT (the content), NOTHING (an empty content); '': no reply is
        due."""
        return self._expected[0] if self._expected else ""

    @property
    def envelope_answered(self) -> bool:
        """MAIL and each RCPT have their reply."""
        return self.answered > len(self._positions) or self.done

    def begin(self) -> bytes:
        """The first bytes to write."""
        self.has_begun = True
        self._expected.append("MAIL")
        if not self.mode.pipelined:
            return self._mail
        self._expected.extend("RCPT" for _ in self._positions)
        flight = self._mail + b"".join(self._commands)
        self._commands.clear()
        if self.mode.chunked:
            self.wants_content = not self.envelope_first
            return flight
        self._expected.append("DATA")
        return flight + b"DATA\r\n"

    def send_content(self, parts: Sequence[bytes]) -> Outgoing:
        """The content as it travels, with what frames it. `parts` each begin a line and together end in CRLF
        (mail.message.normalise). From now on a lost connection is ambiguous."""
        self.wants_content = False
        self.content_sent = True
        self._expected.append("DOT")
        return Outgoing(parts, is_chunked=self.mode.chunked)

    def receive(self, reply: Reply) -> bytes:
        """Apply the next reply. Returns what is to be written because of it, often nothing."""
        if not self._expected:
            self.desynchronised()
            return b""
        expected = self._expected.popleft()
        self.answered += 1
        if reply.code == 421:
            # The reply holds for this command.
            self.broken, self.reply_421 = True, reply
        match expected:
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
            if not self.content_sent or not self._expected or len(self._results) == len(self._positions):
                self.connection_lost(reply)
                return b""
            # After 421 the server should send nothing. Keep reading: a later 250 means it accepted the message.
            self.closing_reply = self.closing_reply or reply
        if not self._expected and not self.wants_content and not out:
            self.done = True
        return out

    def connection_lost(self, reply: Reply, *, whole: bool = True) -> None:
        """The session ended: each recipient without a result gets one, with `reply` as the reason. `whole`: the end of
        the content was sent, too. Without it no server can have accepted the message."""
        # A server that answers the envelope with 421 is closing, and reads no further.
        reply = self.closing_reply or reply
        closing = self.broken and reply.code == 421
        if self._mail_refusal is not None:
            self._fill(_outcome(self._mail_refusal), self._mail_refusal, "mail")
        elif self.content_sent and whole and not closing:
            # BDAT leaves with its envelope: recipients whose RCPT wasn't answered may have been accepted as well.
            self._fill("ambiguous", reply, "dot")
        else:
            phase: Phase = "data" if self._go_ahead else ("rcpt" if self._accepted else "mail")
            self._fill(_outcome(reply) if closing else "abandoned", reply, phase)
        self._break_off()

    def desynchronised(self, *, whole: bool = True) -> None:
        """Replies can't be paired with commands any more. Unless a 354 proved that the pairs were right, the replies to
        RCPT are worth nothing either. `whole`: see `connection_lost`."""
        self.is_desynchronised = True
        if not self._go_ahead:
            for position in [at for at, result in self._results.items() if result.phase == "rcpt"]:
                del self._results[position]
        self.connection_lost(GARBLED, whole=whole)

    def upstream_closes(self, reply: Reply) -> None:
        """421 came to the transaction before this one. The upstream reads no further, but what it still answers
        counts."""
        self.broken = True
        self.closing_reply = reply
        if not self.content_sent:
            self._fill("abandoned", reply, "mail")
            self._break_off()

    def downgrade_to_ambiguous(self) -> None:
        """More replies came than commands were sent. With BDAT there is no 354, so each of them may answer another
        command, and `sent` may be false."""
        for position, result in self._results.items():
            if result.outcome == "sent":
                self._results[position] = Result(position, "ambiguous", GARBLED, "dot")
        self.is_downgraded = True
        self.broken = True

    def abandon(self, reason: Reply) -> None:
        """Give up before the final dot. After a 354 only closing the session ends the transaction. One that hasn't
        begun leaves the session as it was."""
        if self.has_begun:
            self._fill("abandoned", reason, "data")
            self._break_off()
        else:
            self._fill("abandoned", reason, "mail")
            self.done = True

    def _break_off(self) -> None:
        self.broken = True
        self.wants_content = False
        self.done = True

    def _mail_answered(self, reply: Reply) -> bytes:
        if not reply.positive:
            self._mail_refusal = _usable(reply)
            self._fill(_outcome(reply), self._mail_refusal, "mail")
            if not self.mode.pipelined:
                self._commands.clear()
            self.wants_content = False
            return b""
        return b"" if self.mode.pipelined else self._next_rcpt()

    def _next_rcpt(self) -> bytes:
        self._expected.append("RCPT")
        return self._commands.popleft()

    def _rcpt_answered(self, reply: Reply) -> bytes:
        position = self._positions[self._rcpts_answered]
        self._rcpts_answered += 1
        if reply.positive:
            self._accepted.append(position)
        elif self._mail_refusal is None:
            self._results[position] = Result(position, _outcome(reply), _usable(reply), "rcpt")
        if self._rcpts_answered < len(self._positions):
            return b"" if self.mode.pipelined else self._next_rcpt()
        if self.mode.pipelined and not self.mode.chunked:
            return b""
        if not self._accepted or self._mail_refusal is not None:
            self.needs_reset = not self.content_sent and self._mail_refusal is None
            self.wants_content = False
            return b""
        if self.mode.chunked:
            self.wants_content |= self.envelope_first
            return b""
        self._expected.append("DATA")
        return b"DATA\r\n"

    def _data_answered(self, reply: Reply) -> bytes:
        if reply.code == 354:
            if self._accepted and self._mail_refusal is None:
                self._go_ahead = True
                self.wants_content = True
                return b""
            # RFC 2920 3.1: DATA was accepted without a recipient: an empty content ends it, and goes to no one.
            self._expected.append("NOTHING")
            return b".\r\n"
        if reply.positive or 300 <= reply.code < 400:
            self.desynchronised()
            return b""
        self._fill(_outcome(reply), reply, "data")
        self.needs_reset = self._mail_refusal is None
        return b""

    def _dot_answered(self, reply: Reply) -> None:
        # RFC 3030 4.2: after a failed BDAT the server keeps the envelope until RSET.
        self.needs_reset = self.mode.chunked and not reply.positive
        if self._mail_refusal is not None:
            return
        if 300 <= reply.code < 400:
            self.desynchronised()
            return
        outcome = _outcome(reply)
        for position in self._accepted:
            self._results[position] = Result(position, outcome, reply, "dot")

    def _fill(self, outcome: Outcome, reply: Reply, phase: Phase) -> None:
        """This result for each recipient that has none."""
        for position in self._positions:
            self._results.setdefault(position, Result(position, outcome, reply, phase))


def _outcome(reply: Reply) -> Outcome:
    if reply.positive:
        return "sent"
    return "refused" if reply.permanent else "deferred"


def _usable(reply: Reply) -> Reply:
    """A 3yz to MAIL or RCPT means nothing: it counts as a passing error of the upstream."""
    return GARBLED if 300 <= reply.code < 400 else reply
