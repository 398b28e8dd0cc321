"""One open, authenticated connection to an upstream, and the transactions on it.

They follow each other. Where the upstream announced PIPELINING, the next one may begin once the content of the one
before has left, before its reply came. Replies are paired with commands strictly in the order sent.

aiosmtplib opens and secures the connection (see `connect`); from then on its transport belongs to this protocol.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from relay.clock import steady
from relay.upstream.attempt import Terms
from relay.upstream.gate import Gate
from relay.upstream.load import Parts
from relay.upstream.results import Result
from relay.upstream.sessions.kept import KeptSession, Opening
from relay.upstream.smtp.capabilities import Capabilities
from relay.upstream.smtp.commands import Mail, commands, unfit
from relay.upstream.smtp.flight import Flight
from relay.upstream.smtp.pipeline import Pipeline
from relay.upstream.smtp.replies import ProtocolError
from relay.upstream.smtp.report import TransactionReport
from relay.upstream.smtp.transaction import EnvelopeMode, Transaction
from relay.upstream.smtp.wire import Timer, Wire

CLOSING = 421
RESET_WITHIN_S = 10.0
QUIT_WITHIN_S = 5.0


class Session(KeptSession):
    """Call `transact` when the session is `usable` or `has_room`. `on_free` is called when it is idle again after a
    RSET, `on_room` when another transaction may begin behind one under way, `on_closed` once when it is gone; the
    first and the last from the event loop, never inside of `transact`."""

    def __init__(
        self,
        transport: asyncio.Transport,
        capabilities: Capabilities,
        opening: Opening,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(opening)
        self.capabilities = capabilities
        self._mode = EnvelopeMode.of(capabilities)
        self._wire = Wire(transport, loop)
        self._timer = Timer(loop)
        """for the reply to RSET and to QUIT; transactions have their own"""
        self.pipeline = Pipeline(self._wire, self._mode, self)
        self.pipeline.reads_ahead = lambda: self.reads_ahead()
        transport.set_protocol(self)

    async def transact(
        self, mail: Mail, parts: Parts, gate: Gate, *, deadline: float, terms: Terms, in_one_write: bool = False
    ) -> TransactionReport:
        """Hand the mail over. `deadline` (time.monotonic): of all that precedes the final dot. `in_one_write`: see
        `Flight`.

        Never raises for what the upstream does: the report says it. After a cancellation, and after an exception of
        `parts`, which is raised again, the session takes nothing more and closes when the others on it are over.
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
        flight = Flight(transaction, parts, gate, terms, self.pipeline, in_one_write=in_one_write)
        await self._carry(flight, deadline)
        if flight.error is not None:
            raise flight.error
        report = flight.report(dsn=self.capabilities.dsn)
        return report._replace(results=(*report.results, *written.refused)) if written.refused else report

    async def _carry(self, flight: Flight, deadline: float) -> None:
        self.transactions += 1
        if not self.has_room and (not self.usable or self._wire.has_unread()):
            # It ended between its hand-over and now, or something that nothing asked for is on its way in.
            if not self.pipeline:
                self.note_idle_end()
                self.state = "closed" if self.state == "closed" else "quitting"
                self.abort()
            flight.connection_lost()
            return
        self.state = "busy"
        self._timer.cancel()
        try:
            self.pipeline.begin(flight, deadline)
            await flight.over
        except (Exception, asyncio.CancelledError) as error:
            # Cancelled, or a fault of ours. Others may be under way: only what has left needs the connection's end.
            if flight.transaction.content_sent or not isinstance(error, asyncio.CancelledError):
                self.abort()
            else:
                flight.stop()
            raise

    @property
    def usable(self) -> bool:
        """Idle, open, and no part of a reply is buffered."""
        return self.state == "idle" and self._wire.reader.idle and not self._wire.is_closing

    @property
    def is_open(self) -> bool:
        """It carries mail, or can."""
        return self.state not in ("quitting", "closed") and not self._wire.is_closing

    @property
    def has_room(self) -> bool:
        """Another transaction may begin behind those under way."""
        return self.state == "busy" and self.pipeline.has_room

    @property
    def depth(self) -> int:
        return self.pipeline.depth

    def transport_info(self, name: str) -> Any:
        return self._wire.transport.get_extra_info(name)

    def reset(self) -> None:
        """Send RSET on an idle session: one round trip that changes nothing. `on_free` when it was answered."""
        self.state = "resetting"
        self._timer.set(RESET_WITHIN_S, self.abort)
        self._wire.write(self.pipeline.reset())

    def quit(self) -> None:
        """Send QUIT (RFC 5321 4.1.1.10) and close; never waits."""
        if self.state not in ("idle", "resetting") or self._wire.is_closing:
            self.abort()
            return
        self.state = "quitting"
        self._timer.set(QUIT_WITHIN_S, self.abort)
        self._wire.write(b"QUIT\r\n")

    def abort(self) -> None:
        """Close at once, whatever is under way."""
        self._timer.cancel()
        if self.state in ("busy", "idle") and not self._wire.is_closing:
            self.state = "quitting"  # closed by us, which teaches nothing about the upstream
        if self.state != "closed":
            self._wire.transport.abort()

    def _close(self) -> None:
        """Close once what was written has left. A peer that reads no more doesn't keep the session open."""
        self._timer.set(QUIT_WITHIN_S, self.abort)
        self._wire.transport.close()

    # asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        try:
            for reply in self._wire.reader.feed(data):
                if self.pipeline:
                    self.pipeline.receive(reply)
                else:
                    # The answer to QUIT; else nothing was asked: 421 before closing, or replies out of step. No such
                    # session is used again.
                    self.note_idle_end()
                    self.is_out_of_step |= reply.code != CLOSING and self.state != "quitting"
                    self._close()
                if self._wire.is_closing:
                    return  # however many more there are
        except ProtocolError:
            self.pipeline.desynchronised()
            self._wire.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.note_idle_end()
        by_upstream, self.state = self.state in ("idle", "busy", "resetting"), "closed"
        self._timer.cancel()
        self.pipeline.connection_lost(by_upstream=by_upstream)
        if self.on_closed is not None:
            self.on_closed(self)

    def pause_writing(self) -> None:
        self._wire.pause(True)

    def resume_writing(self) -> None:
        content_waited = bool(self._wire.unsent)
        self._wire.pause(False)
        if content_waited and not self._wire.unsent:
            self.pipeline.content_has_left()

    # PipelineOwner

    def on_pipeline_room(self) -> None:
        if self.on_room is not None:
            self.on_room(self)

    def on_empty(self, *, needs_reset: bool) -> None:
        was = self.state
        self._wire.all_answered()
        if was not in ("busy", "resetting"):
            return
        if needs_reset:
            self.reset()  # the result doesn't wait for it: the session comes back by `on_free`
        elif not self._wire.reader.idle:
            # Closed by us: this teaches nothing about how long the upstream keeps idle sessions.
            self.state = "quitting"
            self._close()
        else:
            self._timer.cancel()
            self.state, self.idle_since = "idle", time.monotonic()
            if was == "resetting" and self.on_free is not None:
                self.on_free(self)

    def on_broken(self) -> None:
        if self.state in ("busy", "resetting"):
            self.state = "quitting"
            self._wire.transport.abort()
