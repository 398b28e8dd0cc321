"""A transaction under way: driven by the replies as they come in.

No task is woken between the envelope and the last reply.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple

from relay.clock import steady
from relay.mail.reply import Reply
from relay.upstream.base import Parts, Terms
from relay.upstream.gate import EXPIRED, STOPPED, Gate
from relay.upstream.results import LOST, TIMED_OUT, TROUBLE, Result
from relay.upstream.smtp.outgoing import Outgoing
from relay.upstream.smtp.transaction import Transaction
from relay.upstream.smtp.wire import Wire

CLOSES_WITHIN_S = 2.0
"""grace for a server that sent 421"""


class TransactionReport(NamedTuple):
    """How a transaction went."""

    results: tuple[Result, ...]
    ended_at: float
    """time.monotonic; the three phases before it are all of the transaction"""
    answered: int = 0
    """replies that came: 0 on a lost session says that it was dead before"""
    timed_out: bool = False
    """the upstream left a command unanswered"""
    envelope_ms: float = 0.0
    """until the upstream was ready for the content"""
    gate_ms: float = 0.0
    """the content waited for its commit"""
    data_ms: float = 0.0
    codes: tuple[int, ...] = ()
    lost: bool = False
    """the connection broke off, or what came over it was no SMTP"""
    dsn: bool = False
    """the upstream took over the DSN parameters (RFC 3461), and with them the duty to report"""


class Flight:
    """One transaction over a wire; the gate's Carrier. `over` is done when each recipient has its result."""

    def __init__(
        self, transaction: Transaction, parts: Parts, gate: Gate, terms: Terms, wire: Wire, on_over: Callable[[], None]
    ) -> None:
        """`on_over` is called just before `over` is done."""
        self.transaction = transaction
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.error: Exception | None = None
        """an exception of `parts`"""
        self._parts = parts
        self._gate = gate
        self._terms = terms
        self._wire = wire
        self._on_over = on_over
        self._began_at = self._ended_at = time.monotonic()
        self._envelope_at: float | None = None
        """when the upstream was ready for the content"""
        self._waits_since: float | None = None
        """when it came to the closed gate first"""
        self._content_at: float | None = None
        """when the content began to leave"""
        self._timed_out = False
        self._lost = False
        self._codes: list[int] = []

    def begin(self) -> None:
        self._terms.progress.asked = True
        self._wire.write(self.transaction.begin(), self._content_if_due())
        self._check()

    def receive(self, reply: Reply) -> None:
        """The next reply came."""
        self._codes.append(reply.code)
        out = self._apply(reply)
        self._terms.progress.answered = self.transaction.envelope_answered
        self._wire.write(out, self._content_if_due())
        self._check()

    def proceed(self) -> None:
        """The gate's state changed (Carrier)."""
        if self.transaction.done:
            return
        if self.transaction.outstanding or self._wire.reader.idle:
            self._wire.write(b"", self._content_if_due())
        else:
            # Part of a reply that nothing asked for: the reply to the content would begin with it.
            self.transaction.desynchronised()
        self._check()

    def stop(self) -> None:
        """The relay ends (Carrier)."""
        self._end_unanswered(STOPPED)

    def connection_lost(self) -> None:
        if not self.transaction.done:
            self._lost = True
        self._end_unanswered(LOST)

    def desynchronised(self) -> None:
        """What came is no reply."""
        if not self.transaction.done:
            self.transaction.desynchronised(whole=not self._wire.unsent)
            self._finish()

    def timed_out(self) -> None:
        """The time for the envelope, or for the reply to the content, is over."""
        transaction = self.transaction
        if transaction.done:
            return
        if not transaction.content_sent and steady() >= self._gate.deadline:
            # The message has expired: that says nothing about the upstream.
            self._gate.shut(EXPIRED)
            transaction.abandon(self._gate.reason())
        elif transaction.outstanding:
            self._timed_out = True
            transaction.connection_lost(TIMED_OUT, whole=not self._wire.unsent)
        else:
            # The upstream waits for us: the message isn't stored yet.
            transaction.connection_lost(TROUBLE)
        self._finish()

    def report(self, *, dsn: bool) -> TransactionReport:
        left = self._content_at or self._ended_at
        ready = self._waits_since or self._envelope_at or left
        if self._content_at is None and self._envelope_at is None:
            ready = left  # with BDAT it came to the gate before any reply
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
        )

    def _apply(self, reply: Reply) -> bytes:
        """The reply's effect; returns what is to be written because of it."""
        transaction, last = self.transaction, self.transaction.outstanding == 1
        if reply.positive and self._wire.unsent and transaction.expects == "DOT":
            # It accepts a content that hasn't left.
            transaction.desynchronised(whole=False)
            return b""
        out = transaction.receive(reply)
        if transaction.closing_reply is reply:
            self._wire.set_timer(CLOSES_WITHIN_S)
        reader = self._wire.reader
        if last and not reader.idle:
            if not transaction.done:
                # More is here already: it can't answer what would only now be sent.
                transaction.desynchronised()
                return b""
            if transaction.mode.chunked and not reader.begins_421:
                transaction.downgrade_to_ambiguous()
        return out

    def _content_if_due(self) -> Outgoing | None:
        transaction = self.transaction
        if not transaction.wants_content:
            return None
        if self._envelope_at is None and not transaction.mode.chunked:
            self._envelope_at = time.monotonic()
        if not transaction.outstanding and self._wire.has_unread():
            transaction.desynchronised()
            return None
        match self._gate.ask(self, steady()):
            case "wait":
                self._waits_since = self._waits_since or time.monotonic()
                return None
            case "shut":
                transaction.abandon(self._gate.reason())
                return None
            case "go":
                return self._content()

    def _content(self) -> Outgoing | None:
        try:
            parts = self._parts()
        except Exception as error:  # noqa: BLE001 - `transact` raises it: the caller here is the gate or the loop
            self.error = error
            self._gate.reopen()
            self.transaction.abandon(TROUBLE)
            return None
        self._content_at = time.monotonic()
        self._terms.progress.content_sent = True
        self._wire.set_timer(self._terms.final_s)
        return self.transaction.send_content(parts)

    def _end_unanswered(self, reason: Reply) -> None:
        if not self.transaction.done:
            self.transaction.connection_lost(reason, whole=not self._wire.unsent)
            self._finish()

    def _check(self) -> None:
        if self.transaction.done and not self.over.done():
            self._finish()

    def _finish(self) -> None:
        self._wire.cancel_timer()
        self._ended_at = time.monotonic()
        self._gate.ended(self)
        self._on_over()
        if not self.over.done():
            self.over.set_result(None)
