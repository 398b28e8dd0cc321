"""A transaction under way: driven by the replies as they come in.

No task is woken between the envelope and the last reply. A session may carry several: each begins once the content of
the one before has left (RFC 2920, RFC 3030).
"""

from __future__ import annotations

import asyncio
import re
import time
from typing import Protocol

from relay.clock import steady
from relay.mail.reply import Reply
from relay.upstream.attempt import Terms
from relay.upstream.gate import EXPIRED, STOPPED, Gate
from relay.upstream.load import Parts
from relay.upstream.results import LOST, TIMED_OUT, TROUBLE
from relay.upstream.smtp.outgoing import Outgoing
from relay.upstream.smtp.report import TransactionReport
from relay.upstream.smtp.transaction import Transaction
from relay.upstream.smtp.wire import Timer, Wire

_ABOUT_PIPELINING = re.compile("pipelin|synchroni", re.IGNORECASE)
CLOSES_WITHIN_S = 2.0
"""grace for a server that sent 421"""
BAD_SEQUENCE = 503
BEGINS_WITHIN_S = 2.0
"""for the first reply to a transaction behind another, which goes elsewhere then: the content before it is answered
slowly, or the server threw away what it had read ahead"""


class Line(Protocol):
    """The pipeline, as its flights see it."""

    @property
    def wire(self) -> Wire: ...

    def before(self, flight: Flight) -> bytes:
        """What is to be written before the flight's first bytes, which leave now."""

    @property
    def outstanding(self) -> int:
        """Replies that are due, for all of its flights."""

    def content_has_left(self) -> None:
        """The last flight's content was written."""

    def flight_over(self, flight: Flight) -> None:
        """Each recipient of the flight has its result. Called just before its `over` is done."""


class Flight:
    """One transaction of a session; the gate's Carrier. `over` is done when each recipient has its result."""

    def __init__(
        self,
        transaction: Transaction,
        parts: Parts,
        gate: Gate,
        terms: Terms,
        line: Line,
        *,
        in_one_write: bool = False,
    ) -> None:
        """`in_one_write`: where the content leaves behind the envelope (RFC 3030), both leave once the gate is open."""
        self.transaction = transaction
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.error: Exception | None = None
        """an exception of `parts`"""
        self._parts = parts
        self._gate = gate
        self._terms = terms
        self._line = line
        self._wire = line.wire
        self._timer = Timer(line.wire.loop)
        self._deadline = 0.0
        """time.monotonic: for all that precedes the end of the content"""
        self._outgoing: Outgoing | None = None
        """the content"""
        self._in_one_write = in_one_write
        self.is_behind = False
        """it began behind another transaction"""
        self.is_followed = False
        """another transaction began behind it"""
        self._blames_pipelining = False
        self._stalled = False
        """it began behind another, its content hasn't left, and no reply to it came"""
        self._comes_first = False
        self._held_up = False
        """the content before it wasn't answered in time"""
        self._has_left = False
        self._began_at = self._ended_at = time.monotonic()
        self._envelope_at: float | None = None
        """when the upstream was ready for the content"""
        self._waits_since: float | None = None
        """when it came to the closed gate first"""
        self._content_at: float | None = None
        """when the content began to leave"""
        self._timed_out = False
        self._lost = False
        self._upset = False
        """the upstream may have been upset by messages behind each other"""
        self._codes: list[int] = []

    @property
    def outstanding(self) -> int:
        """Replies that are due. One that was given up is owed them all the same."""
        return self.transaction.outstanding

    @property
    def is_unsent(self) -> bool:
        """Part of the content hasn't left."""
        return bool(self._outgoing)

    @property
    def has_left(self) -> bool:
        """The content has left, so that another transaction may begin behind it."""
        return self.transaction.content_sent and not self.is_unsent

    def begin(self, deadline: float, *, behind: bool = False) -> None:
        """Write the first bytes, or wait for the gate. `behind`: replies to another transaction come first."""
        self._deadline, self.is_behind = deadline, behind
        transaction = self.transaction
        self._in_one_write &= transaction.mode.chunked and not transaction.envelope_first
        self._timer.set(deadline - time.monotonic(), self.timed_out)
        self._begin_if_due()
        self._wrote()

    def comes_first(self) -> None:
        """The replies to the transactions before it are all there."""
        self._comes_first, self._terms.progress.behind = True, False
        if self._stalled:
            self._timer.set(min(BEGINS_WITHIN_S, self._deadline - time.monotonic()), self.timed_out)

    def receive(self, reply: Reply) -> None:
        """The next reply came."""
        self._codes.append(reply.code)
        if reply.code >= 400 and (self.is_behind or self.is_followed):
            self._blames_pipelining |= _ABOUT_PIPELINING.search(reply.text) is not None
        if self._stalled:
            self._stalled = False
            self._timer.set(self._deadline - time.monotonic(), self.timed_out)
        out = self._apply(reply)
        self._terms.progress.answered = self.transaction.envelope_answered
        self._wire.write(out, self._content_if_due())
        self._wrote()

    def proceed(self) -> None:
        """The gate's state changed (Carrier)."""
        if self.transaction.done:
            return
        if not self._line.outstanding and not self._wire.reader.idle:
            # Part of a reply that nothing asked for: the reply to the content would begin with it.
            self.transaction.desynchronised()
        elif self.transaction.has_begun:
            self._wire.write(b"", self._content_if_due())
        else:
            self._begin_if_due()
        self._wrote()

    def stop(self) -> None:
        """The relay ends (Carrier), or the attempt was cancelled."""
        if self.transaction.done:
            return
        if self.transaction.has_begun:
            self.transaction.connection_lost(STOPPED, whole=not self.is_unsent)
        else:
            self.transaction.abandon(STOPPED)
        self._finish()

    def upstream_closes(self, reply: Reply) -> None:
        """421 came to the transaction before it."""
        if not self.transaction.done:
            self.transaction.upstream_closes(reply)
            self._lost = self.transaction.done  # its content hasn't left
            self._timer.set(CLOSES_WITHIN_S, self.timed_out)
            self._wrote()

    def connection_lost(self, *, by_upstream: bool = True) -> None:
        """`by_upstream`: it closed the connection, or what came over it couldn't be read."""
        if not self.transaction.done:
            # An upstream that said 421 closes as it should.
            self._lost, self._upset = True, by_upstream and self.transaction.closing_reply is None
            self.transaction.connection_lost(LOST, whole=not self.is_unsent)
            self._finish()

    def desynchronised(self) -> None:
        """What came is no reply."""
        if not self.transaction.done:
            self.transaction.desynchronised(whole=not self.is_unsent)
            self._finish()

    def timed_out(self) -> None:
        """The time for the envelope, or for the reply to the content, is over."""
        transaction = self.transaction
        if transaction.done:
            return
        if self._stalled and time.monotonic() < self._deadline:
            self._lost = True
            self._upset, self._held_up = self._comes_first, not self._comes_first
            transaction.connection_lost(LOST)
        elif not transaction.content_sent and steady() >= self._gate.deadline:
            # The message has expired: that says nothing about the upstream.
            self._gate.shut(EXPIRED)
            transaction.abandon(self._gate.reason())
        elif transaction.outstanding:
            # One that waits for the replies to another says nothing about the upstream.
            # Nor does the silence of one that said 421.
            closing, alone = transaction.closing_reply is not None, self._line.outstanding == transaction.outstanding
            self._timed_out = not closing and (alone or transaction.content_sent)
            self._lost = closing and self.is_behind
            transaction.connection_lost(TIMED_OUT, whole=not self.is_unsent)
        elif transaction.has_begun:
            # The upstream waits for us: the message isn't stored yet.
            transaction.connection_lost(TROUBLE)
        else:
            transaction.abandon(TROUBLE)
        self._finish()

    def report(self, *, dsn: bool) -> TransactionReport:
        left = self._content_at or self._ended_at
        ready = self._waits_since or self._envelope_at or left
        if self._content_at is None and self._envelope_at is None:
            ready = left  # with BDAT it came to the gate before any reply
        refusal = next((code for code in self._codes if code >= 400), 0)  # later ones may follow from it
        transaction, among_others = self.transaction, self.is_behind or self.is_followed
        upset = self._upset or transaction.is_desynchronised or self._blames_pipelining
        return TransactionReport(
            self.transaction.results,
            self._ended_at,
            self.transaction.answered,
            self._timed_out,
            envelope_ms=(ready - self._began_at) * 1000.0,
            gate_ms=(left - ready) * 1000.0,
            data_ms=(self._ended_at - left) * 1000.0,
            codes=tuple(self._codes),
            lost=self._lost or self.transaction.is_desynchronised,
            dsn=dsn,
            behind=self.is_behind,
            out_of_step=transaction.is_downgraded
            or (among_others and upset)
            or (self.is_behind and refusal == BAD_SEQUENCE),
            held_up=self._held_up,
            blames_pipelining=self._blames_pipelining,
            shows_reading_ahead=transaction.envelope_first and transaction.content_sent,
        )

    def _apply(self, reply: Reply) -> bytes:
        """The reply's effect; returns what is to be written because of it."""
        transaction, last = self.transaction, self._line.outstanding == 1
        if reply.code < 400 and self.is_unsent and transaction.expects == "DOT":
            # It accepts a content that hasn't left.
            transaction.desynchronised(whole=False)
            return b""
        out = transaction.receive(reply)
        if transaction.closing_reply is reply:
            self._timer.set(CLOSES_WITHIN_S, self.timed_out)
        reader = self._wire.reader
        if last and not reader.idle:
            if not transaction.done:
                # More is here already: it can't answer what would only now be sent.
                transaction.desynchronised()
                return b""
            if transaction.mode.chunked and not reader.begins_421:
                transaction.downgrade_to_ambiguous()
        return out

    def _begin_if_due(self) -> None:
        """Write the first bytes, unless the content is to leave with them and can't yet."""
        if self._in_one_write and not self._may_go():
            return
        self._stalled = self.is_behind
        if self._stalled:
            self._timer.set(min(self._deadline - time.monotonic(), BEGINS_WITHIN_S), self.timed_out)
        self._terms.progress.asked, self._terms.progress.behind = True, self.is_behind
        before = self._line.before(self)
        self._wire.write(before + self.transaction.begin(), self._content_if_due())

    def _content_if_due(self) -> Outgoing | None:
        transaction = self.transaction
        if not transaction.wants_content:
            return None
        if self._envelope_at is None and (transaction.envelope_first or not transaction.mode.chunked):
            self._envelope_at = time.monotonic()
        if not self._may_go():
            return None
        try:
            parts = self._parts()
        except Exception as error:  # noqa: BLE001 - `transact` raises it: the caller here is the gate or the loop
            self.error = error
            self._gate.reopen()
            self.transaction.abandon(TROUBLE)
            return None
        self._content_at = time.monotonic()
        self._terms.progress.content_sent, self._stalled = True, False
        self._timer.set(self._terms.final_s, self.timed_out)
        self._outgoing = self.transaction.send_content(parts)
        return self._outgoing

    def _may_go(self) -> bool:
        """The gate lets the content through."""
        if not self._line.outstanding and self._wire.has_unread():
            self.transaction.desynchronised()
            return False
        match self._gate.ask(self, steady()):
            case "wait":
                self._waits_since = self._waits_since or time.monotonic()
                return False
            case "shut":
                self.transaction.abandon(self._gate.reason())
                return False
            case "go":
                return True

    def _wrote(self) -> None:
        """Something was written, or may have been."""
        left, self._has_left = self._has_left, self.has_left
        if self.transaction.done:
            if not self.over.done():
                self._finish()
        elif self._has_left and not left:
            self._line.content_has_left()

    def _finish(self) -> None:
        self._timer.cancel()
        self._ended_at = time.monotonic()
        try:
            self._gate.ended(self)
            self._line.flight_over(self)
        finally:
            # Whatever fails above, the attempt must not wait for ever.
            if not self.over.done():
                self.over.set_result(None)
