"""One open, authenticated connection to an upstream, and the transactions on it.

aiosmtplib opens and secures it (see `connect`); from then on the transport belongs to this protocol. A transaction is
driven by the replies as they come in: no task is woken between the envelope and the last reply.
"""

from __future__ import annotations

import asyncio
import select
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from relay.clock import steady
from relay.mail.reply import Reply
from relay.upstream.base import Parts, Terms
from relay.upstream.gate import EXPIRED, STOPPED, Gate
from relay.upstream.results import LOST, TIMED_OUT, TROUBLE, Result
from relay.upstream.smtp.capabilities import Capabilities
from relay.upstream.smtp.commands import Mail, commands, unfit, writable
from relay.upstream.smtp.outgoing import Outgoing
from relay.upstream.smtp.replies import ProtocolError, ReplyReader
from relay.upstream.smtp.transaction import Transaction, Way

RESET_WITHIN_S = 10.0
QUIT_WITHIN_S = 5.0
CLOSES_WITHIN_S = 2.0
"""who said 421"""
_ONE_WRITE_BYTES = 65_536
"""content up to this goes out in one write with what frames it"""

State = Literal["idle", "busy", "resetting", "quitting", "closed"]


@dataclass(frozen=True, slots=True)
class Opening:
    """What opening the session cost, in milliseconds, one behind the other from `began_at` (time.monotonic) on."""

    connect: float = 0.0
    tls: float = 0.0
    auth: float = 0.0
    began_at: float = 0.0

    def ends(self) -> Iterator[tuple[Literal["connect", "tls", "auth"], float]]:
        """Each phase with when it ended (time.monotonic)."""
        connected = self.began_at + self.connect / 1000.0
        secured = connected + self.tls / 1000.0
        yield "connect", connected
        yield "tls", secured
        yield "auth", secured + self.auth / 1000.0


class TransactionReport(NamedTuple):
    """How a transaction went."""

    results: tuple[Result, ...]
    answered: int
    """replies that came: 0 on a lost session says that it was dead before"""
    timed_out: bool
    """the upstream left something unanswered"""
    envelope_ms: float
    """until the content could leave, as far as the upstream goes"""
    gate_ms: float
    """the content waited for its commit"""
    data_ms: float
    ended_at: float
    """time.monotonic; the three phases before it are all of the transaction"""
    codes: tuple[int, ...] = ()
    lost: bool = False
    """the connection broke off, or what came over it was no SMTP"""
    dsn: bool = False
    """the upstream took over the DSN parameters (RFC 3461), and with them the duty to report"""


class Session(asyncio.Protocol):
    """Single use at a time: `transact` only when `state` is idle. `on_free` is called when it is idle again behind a
    RSET, `on_closed` once when it is gone; both from the event loop, never from inside `transact`."""

    def __init__(
        self,
        transport: asyncio.Transport,
        capabilities: Capabilities,
        opening: Opening,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.capabilities = capabilities
        self.opening = opening
        self.idle_since = time.monotonic()
        self.sent = 0
        """transactions begun"""
        self.state: State = "idle"
        self.closed_idle_after_s: float | None = None
        """when the upstream closed it while it was idle: after how long"""
        self.on_free: Callable[[Session], None] | None = None
        self.on_closed: Callable[[Session], None] | None = None
        self._transport = transport
        self._loop = loop
        self._way = Way.of(capabilities)
        self._poll = _reading(transport)
        self._reader = ReplyReader()
        self._timer: asyncio.TimerHandle | None = None
        self._flight: _Flight | None = None
        self._paused = False
        transport.set_protocol(self)

    async def transact(self, mail: Mail, parts: Parts, gate: Gate, *, before: float, terms: Terms) -> TransactionReport:
        """Hand the mail over. `before`: deadline (time.monotonic) of all that precedes the final dot.

        Never raises for what the upstream does: the report says it. The session is closed after a cancellation, and
        after an exception of `parts`, which is raised again. After any other exception the caller must close it.
        """
        misfit = unfit(mail, self.capabilities)
        if misfit is not None:
            refused = tuple(Result(position, "refused", misfit, "mail") for position, _ in mail.recipients)
            return _unbegun(refused)
        withdrawn = gate.refusal(steady())
        if withdrawn is not None:
            abandoned = tuple(Result(position, "abandoned", withdrawn, "mail") for position, _ in mail.recipients)
            return _unbegun(abandoned)
        try:
            mail_from, rcpts = commands(mail, self.capabilities)
        except ValueError:
            return await self._without_unwritable(mail, parts, gate, before=before, terms=terms)
        flight = _Flight(Transaction(mail_from, rcpts, self._way), parts, gate, terms, self._loop)
        self.sent += 1
        if not self.usable or self._has_unread():
            # It ended between its hand-over and now, or something is on its way in that nobody asked for.
            self._give_up(flight)
            return flight.report(dsn=False)
        self._flight, self.state = flight, "busy"
        self._set_timer(before - time.monotonic())
        terms.progress.asked = True
        try:
            self._write(flight.transaction.begin(), self._content_if_due(flight))
            self._check(flight)
            await flight.over
        except asyncio.CancelledError:
            self.abort()
            raise
        if flight.error is not None:
            raise flight.error
        return flight.report(dsn=self.capabilities.dsn)

    async def _without_unwritable(
        self, mail: Mail, parts: Parts, gate: Gate, *, before: float, terms: Terms
    ) -> TransactionReport:
        written, refused = writable(mail)
        if not refused:
            raise ValueError("commands that can't be written")
        if not written.recipients:
            return _unbegun(refused)
        report = await self.transact(written, parts, gate, before=before, terms=terms)
        return report._replace(results=(*report.results, *refused))

    @property
    def usable(self) -> bool:
        """Idle, open, and nothing half-said is on its way in."""
        return self.state == "idle" and self._reader.idle and not self._transport.is_closing()

    def _has_unread(self) -> bool:
        """Whether bytes, or the end, wait to be read: what came before a command left is no answer to it."""
        return self._poll is not None and not self._transport.is_closing() and bool(self._poll.poll(0))

    def proceed(self) -> None:
        """The gate moved (Carrier)."""
        flight = self._flight
        if flight is not None and not flight.transaction.done:
            if flight.transaction.outstanding or self._reader.idle:
                self._write(b"", self._content_if_due(flight))
            else:
                # Half a reply that nobody asked for: the content's would begin with it.
                flight.transaction.garble()
            self._check(flight)

    def stop(self, gate: Gate) -> None:
        """The relay ends (Carrier)."""
        flight = self._flight
        if flight is not None and flight.gate is gate and not flight.transaction.done:
            flight.transaction.lose(STOPPED, whole=not flight.unsent)
            self._finish(flight)

    def transport_info(self, name: str) -> Any:
        """What the transport knows of the connection, as `ssl_object` (asyncio.BaseTransport.get_extra_info)."""
        return self._transport.get_extra_info(name)

    def reset(self) -> None:
        """RSET on an idle session: one round trip that changes nothing. `on_free` when it was answered."""
        self.state = "resetting"
        self._set_timer(RESET_WITHIN_S)
        self._write(b"RSET\r\n")

    def quit(self) -> None:
        """Take leave (RFC 5321 4.1.1.10) and close; never waits."""
        if self.state not in ("idle", "resetting") or self._transport.is_closing():
            self.abort()
            return
        self.state = "quitting"
        self._set_timer(QUIT_WITHIN_S)
        self._write(b"QUIT\r\n")

    def abort(self) -> None:
        """Close at once, whatever is under way."""
        self._cancel_timer()
        if self.state != "closed":
            self._transport.abort()

    def _close(self) -> None:
        """Close once what was written has left. A peer that reads nothing more doesn't keep it open."""
        self._set_timer(QUIT_WITHIN_S)
        self._transport.close()

    # asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        try:
            for reply in self._reader.feed(data):
                self._take(reply)
                if self._transport.is_closing():
                    return  # however many more there are
        except ProtocolError:
            self._garbled()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if self.state == "idle":
            self.closed_idle_after_s = time.monotonic() - self.idle_since
        self.state = "closed"
        self._cancel_timer()
        flight = self._flight
        if flight is not None and not flight.transaction.done:
            flight.lost = True
            flight.transaction.lose(LOST, whole=not flight.unsent)
            self._finish(flight)
        if self.on_closed is not None:
            self.on_closed(self)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._flight is not None:
            self._pump(self._flight)

    # the way of a transaction

    def _take(self, reply: Reply) -> None:
        match self.state:
            case "busy" if self._flight is not None and not self._flight.transaction.done:
                flight = self._flight
                flight.codes.append(reply.code)
                out = self._paired(flight, reply)
                flight.terms.progress.answered = flight.transaction.envelope_answered
                self._write(out, self._content_if_due(flight))
                self._check(flight)
            case "resetting":
                self._reset_answered(reply)
            case _:
                # Nobody asked: 421 before closing, or a stream out of step. Neither is used again.
                if self.state == "idle":
                    self.closed_idle_after_s = time.monotonic() - self.idle_since
                self._close()

    def _paired(self, flight: _Flight, reply: Reply) -> bytes:
        """What is to be written because of the reply, if that can be what was asked for."""
        transaction, last = flight.transaction, flight.transaction.outstanding == 1
        if reply.positive and flight.unsent and transaction.awaits == "DOT":
            # It accepts a content that hasn't left.
            transaction.garble(whole=False)
            return b""
        out = transaction.receive(reply)
        if transaction.goodbye is reply:
            self._set_timer(CLOSES_WITHIN_S)
        if last and not self._reader.idle:
            if not transaction.done:
                # More is here already: no answer to what would only now be sent.
                transaction.garble()
                return b""
            if self._way.chunked and not self._reader.says_goodbye:
                transaction.doubt()
        return out

    def _content_if_due(self, flight: _Flight) -> Outgoing | None:
        transaction = flight.transaction
        if not transaction.wants_content:
            return None
        if flight.envelope_at is None and not self._way.chunked:
            flight.envelope_at = time.monotonic()
        if not transaction.outstanding and self._has_unread():
            transaction.garble()
            return None
        match flight.gate.ask(self, steady()):
            case "wait":
                flight.waits_since = flight.waits_since or time.monotonic()
                return None
            case "shut":
                transaction.withdraw(flight.gate.reason())
                return None
            case "go":
                return self._content(flight)

    def _content(self, flight: _Flight) -> Outgoing | None:
        try:
            parts = flight.parts()
        except Exception as error:  # noqa: BLE001 - the owner's, and raised to it: here somebody else may be calling
            flight.error = error
            flight.gate.reopen()
            flight.transaction.withdraw(TROUBLE)
            return None
        flight.content_at = time.monotonic()
        flight.terms.progress.content_sent = True
        self._set_timer(flight.terms.final_s)
        return flight.transaction.send_content(parts)

    def _write(self, out: bytes, content: Outgoing | None = None) -> None:
        if self._transport.is_closing():
            return
        if content is None:
            if out:
                self._transport.write(out)
        elif content.size_bytes <= _ONE_WRITE_BYTES:
            self._transport.write(b"".join((out, *content)))
        elif self._flight is not None:
            if out:
                self._transport.write(out)
            self._flight.unsent = content
            self._pump(self._flight)

    def _pump(self, flight: _Flight) -> None:
        """Large content leaves in pieces, as fast as the upstream takes it."""
        while flight.unsent and not self._paused and not self._transport.is_closing():
            self._transport.write(flight.unsent.take())

    def _check(self, flight: _Flight) -> None:
        if flight.transaction.done and not flight.over.done():
            self._finish(flight)

    def _finish(self, flight: _Flight) -> None:
        """The transaction is over: what becomes of the session, and the waiting owner is told."""
        self._cancel_timer()
        self._flight = None
        transaction = flight.transaction
        flight.ended_at = time.monotonic()
        if self.state == "busy":
            if transaction.broken or flight.unsent:
                self.state = "quitting"
                self._transport.abort()
            elif transaction.needs_reset:
                # Off the way of the result: the session comes back by on_free.
                self.reset()
            else:
                self._idle()
        if not flight.over.done():
            flight.over.set_result(None)

    def _reset_answered(self, reply: Reply) -> None:
        self._cancel_timer()
        if not reply.positive:
            self._close()
            return
        self._idle()
        if self.on_free is not None:
            self.on_free(self)

    def _idle(self) -> None:
        if not self._reader.idle:
            # Closed by us: that is no idle session which the upstream ended.
            self.state = "quitting"
            self._close()
            return
        self.state = "idle"
        self.idle_since = time.monotonic()

    def _garbled(self) -> None:
        flight = self._flight
        if flight is not None and not flight.transaction.done:
            flight.transaction.garble(whole=not flight.unsent)
            self._finish(flight)
        self._transport.abort()

    def _timed_out(self) -> None:
        flight = self._flight
        if flight is not None and not flight.transaction.done:
            transaction = flight.transaction
            if not transaction.content_sent and steady() >= flight.gate.deadline:
                # The message's time is up, not the upstream's.
                flight.gate.shut(EXPIRED)
                transaction.withdraw(flight.gate.reason())
            elif transaction.outstanding:
                flight.timed_out = True
                transaction.lose(TIMED_OUT, whole=not flight.unsent)
            else:
                # It waits for us: the message isn't stored yet.
                transaction.lose(TROUBLE)
            self._finish(flight)
        self._transport.abort()

    def _give_up(self, flight: _Flight) -> None:
        if self.state == "idle":
            self.closed_idle_after_s = time.monotonic() - self.idle_since
        self.state = "closed" if self.state == "closed" else "quitting"
        self.abort()
        flight.lost = True
        flight.transaction.lose(LOST)
        flight.ended_at = time.monotonic()

    def _set_timer(self, delay_s: float) -> None:
        self._cancel_timer()
        self._timer = self._loop.call_later(delay_s, self._timed_out)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _unbegun(results: tuple[Result, ...]) -> TransactionReport:
    """Of a transaction of which nothing left."""
    return TransactionReport(
        results, 0, timed_out=False, envelope_ms=0.0, gate_ms=0.0, data_ms=0.0, ended_at=time.monotonic()
    )


class _Flight:
    """A transaction under way."""

    __slots__ = (
        "began_at",
        "codes",
        "content_at",
        "ended_at",
        "envelope_at",
        "error",
        "gate",
        "lost",
        "over",
        "parts",
        "terms",
        "timed_out",
        "transaction",
        "unsent",
        "waits_since",
    )

    def __init__(
        self,
        transaction: Transaction,
        parts: Parts,
        gate: Gate,
        terms: Terms,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.transaction = transaction
        self.parts = parts
        self.gate = gate
        self.terms = terms
        self.over: asyncio.Future[None] = loop.create_future()
        self.began_at = self.ended_at = time.monotonic()
        self.envelope_at: float | None = None
        """when the upstream was ready for the content"""
        self.content_at: float | None = None
        """when the content began to leave"""
        self.waits_since: float | None = None
        """when it stood before the closed gate first"""
        self.error: Exception | None = None
        """what `parts` raised"""
        self.timed_out = False
        self.lost = False
        self.codes: list[int] = []
        self.unsent: Outgoing | None = None

    def report(self, *, dsn: bool) -> TransactionReport:
        left = self.content_at or self.ended_at
        ready = self.waits_since or self.envelope_at or left
        if self.content_at is None and self.envelope_at is None:
            ready = left  # with BDAT it stood at the gate before anything was answered
        return TransactionReport(
            self.transaction.results,
            self.transaction.answered,
            self.timed_out,
            envelope_ms=(ready - self.began_at) * 1000.0,
            gate_ms=(left - ready) * 1000.0,
            data_ms=(self.ended_at - left) * 1000.0,
            ended_at=self.ended_at,
            codes=tuple(self.codes),
            lost=self.lost or self.transaction.garbled,
            dsn=dsn,
        )


def _reading(transport: asyncio.Transport) -> select.poll | None:
    """To ask whether something is there to be read; None for a transport without a socket."""
    connection = transport.get_extra_info("socket")
    if connection is None or connection.fileno() < 0:
        return None
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return poll
