"""One open, authenticated connection to an upstream, and the transactions on it, one after the other.

aiosmtplib opens and secures the connection (see `connect`); from then on its transport belongs to this protocol.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from relay.clock import steady
from relay.mail.reply import Reply
from relay.upstream.base import Parts, Terms
from relay.upstream.gate import Gate
from relay.upstream.results import Result
from relay.upstream.smtp.capabilities import Capabilities
from relay.upstream.smtp.commands import Mail, commands, unfit
from relay.upstream.smtp.flight import Flight, TransactionReport
from relay.upstream.smtp.replies import ProtocolError
from relay.upstream.smtp.transaction import EnvelopeMode, Transaction
from relay.upstream.smtp.wire import Wire

RESET_WITHIN_S = 10.0
QUIT_WITHIN_S = 5.0

State = Literal["idle", "busy", "resetting", "quitting", "closed"]


@dataclass(frozen=True, slots=True)
class Opening:
    """What opening the session took, in milliseconds, one phase behind the other from `began_at` (time.monotonic)."""

    connect: float = 0.0
    tls: float = 0.0
    auth: float = 0.0
    began_at: float = 0.0

    def ends(self) -> Iterator[tuple[Literal["connect", "tls", "auth"], float]]:
        """Each phase with its end (time.monotonic)."""
        connected = self.began_at + self.connect / 1000.0
        secured = connected + self.tls / 1000.0
        yield "connect", connected
        yield "tls", secured
        yield "auth", secured + self.auth / 1000.0


class Session(asyncio.Protocol):
    """Carries one transaction at a time: call `transact` only when `state` is idle. `on_free` is called when the
    session is idle again after a RSET, `on_closed` once when it is gone; both from the event loop, never inside of
    `transact`."""

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
        self.transactions = 0
        """begun so far"""
        self.state: State = "idle"
        self.closed_idle_after_s: float | None = None
        """when the upstream closed the session while it was idle: after how long"""
        self.on_free: Callable[[Session], None] | None = None
        self.on_closed: Callable[[Session], None] | None = None
        self._mode = EnvelopeMode.of(capabilities)
        self._wire = Wire(transport, loop, self._timed_out)
        self._flight: Flight | None = None
        transport.set_protocol(self)

    async def transact(
        self, mail: Mail, parts: Parts, gate: Gate, *, deadline: float, terms: Terms
    ) -> TransactionReport:
        """Hand the mail over. `deadline` (time.monotonic): of all that precedes the final dot.

        Never raises for what the upstream does: the report says it. The session is closed after a cancellation, and
        after an exception of `parts`, which is raised again. After any other exception the caller must close it.
        """
        misfit = unfit(mail, self.capabilities)
        if misfit is not None:
            results = tuple(Result(position, "refused", misfit, "mail") for position, _ in mail.recipients)
            return TransactionReport(results, time.monotonic())
        withdrawn = gate.refusal(steady())
        if withdrawn is not None:
            results = tuple(Result(position, "abandoned", withdrawn, "mail") for position, _ in mail.recipients)
            return TransactionReport(results, time.monotonic())
        written = commands(mail, self.capabilities)
        if not written.rcpts:
            return TransactionReport(written.refused, time.monotonic())
        transaction = Transaction(written.mail, written.rcpts, self._mode)
        flight = Flight(transaction, parts, gate, terms, self._wire, self._transaction_over)
        await self._carry(flight, deadline)
        if flight.error is not None:
            raise flight.error
        report = flight.report(dsn=self.capabilities.dsn)
        return report._replace(results=(*report.results, *written.refused)) if written.refused else report

    async def _carry(self, flight: Flight, deadline: float) -> None:
        self.transactions += 1
        if not self.usable or self._wire.has_unread():
            # It ended between its hand-over and now, or something that nothing asked for is on its way in.
            self._note_idle_end()
            self.state = "closed" if self.state == "closed" else "quitting"
            self.abort()
            flight.connection_lost()
            return
        self._flight, self.state = flight, "busy"
        self._wire.set_timer(deadline - time.monotonic())
        try:
            flight.begin()
            await flight.over
        except asyncio.CancelledError:
            self.abort()
            raise

    @property
    def usable(self) -> bool:
        """Idle, open, and no part of a reply is buffered."""
        return self.state == "idle" and self._wire.reader.idle and not self._wire.is_closing

    def transport_info(self, name: str) -> Any:
        """What the transport knows of the connection, as `ssl_object` (asyncio.BaseTransport.get_extra_info)."""
        return self._wire.transport.get_extra_info(name)

    def reset(self) -> None:
        """Send RSET on an idle session: one round trip that changes nothing. `on_free` when it was answered."""
        self.state = "resetting"
        self._wire.set_timer(RESET_WITHIN_S)
        self._wire.write(b"RSET\r\n")

    def quit(self) -> None:
        """Send QUIT (RFC 5321 4.1.1.10) and close; never waits."""
        if self.state not in ("idle", "resetting") or self._wire.is_closing:
            self.abort()
            return
        self.state = "quitting"
        self._wire.set_timer(QUIT_WITHIN_S)
        self._wire.write(b"QUIT\r\n")

    def abort(self) -> None:
        """Close at once, whatever is under way."""
        self._wire.cancel_timer()
        if self.state != "closed":
            self._wire.transport.abort()

    def _close(self) -> None:
        """Close once what was written has left. A peer that reads no more doesn't keep the session open."""
        self._wire.set_timer(QUIT_WITHIN_S)
        self._wire.transport.close()

    # asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        try:
            for reply in self._wire.reader.feed(data):
                self._received(reply)
                if self._wire.is_closing:
                    return  # however many more there are
        except ProtocolError:
            if self._flight is not None:
                self._flight.desynchronised()
            self._wire.transport.abort()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._note_idle_end()
        self.state = "closed"
        self._wire.cancel_timer()
        if self._flight is not None:
            self._flight.connection_lost()
        if self.on_closed is not None:
            self.on_closed(self)

    def pause_writing(self) -> None:
        self._wire.pause(True)

    def resume_writing(self) -> None:
        self._wire.pause(False)

    def _received(self, reply: Reply) -> None:
        if self._flight is not None:
            self._flight.receive(reply)
        elif self.state == "resetting":
            self._reset_answered(reply)
        else:
            # Nothing was asked: 421 before closing, or replies out of step. Neither session is used again.
            self._note_idle_end()
            self._close()

    def _reset_answered(self, reply: Reply) -> None:
        self._wire.cancel_timer()
        if not reply.positive:
            self._close()
            return
        self._become_idle()
        if self.on_free is not None:
            self.on_free(self)

    def _transaction_over(self) -> None:
        """What becomes of the session."""
        flight, self._flight = self._flight, None
        unsent, self._wire.unsent = self._wire.unsent, None
        if flight is None or self.state != "busy":
            return
        if flight.transaction.broken or unsent:
            self.state = "quitting"
            self._wire.transport.abort()
        elif flight.transaction.needs_reset:
            self.reset()  # the result doesn't wait for it: the session comes back by `on_free`
        else:
            self._become_idle()

    def _become_idle(self) -> None:
        if not self._wire.reader.idle:
            # Closed by us: this teaches nothing about how long the upstream keeps idle sessions.
            self.state = "quitting"
            self._close()
            return
        self.state = "idle"
        self.idle_since = time.monotonic()

    def _note_idle_end(self) -> None:
        if self.state == "idle":
            self.closed_idle_after_s = time.monotonic() - self.idle_since

    def _timed_out(self) -> None:
        if self._flight is not None:
            self._flight.timed_out()
        self._wire.transport.abort()
