"""The bytes of one client's connection: lines and DATA in, replies out, TLS, every wait with a deadline.

aiosmtpd's SMTP is the base, but its reading isn't used: it goes line by line through a StreamReader, and a client's
FIN cancels whatever is running. Here nothing is ever cancelled: a client that has gone is noticed at the next wait.
"""

from __future__ import annotations

import asyncio
import math
import time
from asyncio import sslproto
from ssl import SSLContext
from typing import AnyStr, cast

from aiosmtpd.smtp import SMTP

from relay.intake import replies
from relay.intake.framing import DotDecoder, line_limit
from relay.intake.pace import Pace
from relay.mail.reply import Reply

_MAX_WAITING_BYTES = 65_536
"""Pipelined input held while a command runs; past it the client is made to wait (TCP's window does that)."""
_LEAVE_S = 10.0
"""How long a closed connection's last replies may take to leave."""
_LINGER_S = 2.0
"""How long a client that was shown the door may take to read why."""
_TLS_CLOSE_S = 5


class Hangup(Exception):
    """The client is gone, or has said its last word."""


class TimedOut(Exception):
    """The client took too long."""


class WoundUp(Exception):
    """The service is shutting down and this session has nothing under way."""


class BadLine(Exception):
    """A command line that can't be one; it has been skipped."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.code)
        self.reply = reply


class Wire(SMTP):
    """See the module. The owner implements `_handle_client`, a task of its own that lives as long as the session."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        # Not aiosmtpd's own: it inspects every method by name for each connection, which takes longer than a mail.
        super(SMTP, self).__init__(None, loop=loop)  # type: ignore[arg-type]
        self.loop = loop
        self.transport: asyncio.Transport | None = None
        self.final_dot = 0.0
        """`time.monotonic` when the end of the last DATA came in"""
        self.pace = Pace()
        """of large contents; the owner's, shared by all sessions"""
        self._buffer = bytearray()
        self._skipping = False
        self._out = bytearray()
        self._decoder: DotDecoder | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._unread: asyncio.Future[None] | None = None
        """there while the client lets too many replies wait"""
        self._ended = False
        self._closing = False
        self._reading = True
        self._deadline = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._handler_coroutine = None

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A connection, or, after `secure`, the same one inside TLS."""
        self.transport = cast(asyncio.Transport, transport)
        if self._handler_coroutine is None:
            self._handler_coroutine = self.loop.create_task(self._handle_client(), name="intake session")

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        if self._decoder is None:
            self._buffer += data
            if len(self._buffer) > _MAX_WAITING_BYTES and self._reading and self.transport is not None:
                self._reading = False
                self.transport.pause_reading()
        else:
            behind = self._decoder.feed(data)
            if behind is None:
                if self._decoder.body.large:
                    self._rest(self.pace.took(len(data)))
                return
            self.final_dot = time.monotonic()
            self._decoder = None
            self._buffer += behind
        self._wake()

    def _rest(self, delay_s: float) -> None:
        """Read nothing for so long."""
        if delay_s > 0.0 and self.transport is not None:
            self.transport.pause_reading()
            self.loop.call_later(delay_s, self._go_on)

    def _go_on(self) -> None:
        if self._reading and self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def eof_received(self) -> bool:
        """True keeps the other direction open: what was sent before a FIN is still answered (TLS can't do that)."""
        self._ended = True
        self._wake()
        return not self._closing and self.transport is not None and self.transport.get_extra_info("sslcontext") is None

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 (what ended it changes nothing)
        self.transport = None
        self._ended = True
        self._disarm()
        self.resume_writing()
        self._wake()

    def pause_writing(self) -> None:
        self._unread = self.loop.create_future()

    def resume_writing(self) -> None:
        if self._unread is not None:
            self._unread.set_result(None)
            self._unread = None

    def _wake(self, error: Exception | None = None) -> None:
        waiter = self._waiter
        if waiter is None or waiter.done():
            return
        if error is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(error)

    # What the session calls.

    def say(self, reply: Reply) -> None:
        """Queue a reply. It leaves with all the others when the client's input is used up."""
        self._out += replies.encode(reply)

    def say_lines(self, lines: bytes) -> None:
        self._out += lines

    async def push(self, status: AnyStr) -> None:
        """For the methods of aiosmtpd that are used as they are."""
        self._out += (status.encode() if isinstance(status, str) else status) + b"\r\n"

    def flush(self) -> None:
        """Let what was said leave now, for the next input may wait."""
        self._send()

    async def read_line(self, timeout_s: float, *, limit_bytes: int | None = None, idle: bool = False) -> bytes:
        """The next line without its CRLF, all of it within `timeout_s`; `limit_bytes` None: what its verb may have.

        Raises BadLine, Hangup, TimedOut, and WoundUp where the session is `idle`.
        """
        deadline = None
        while (line := self._take_line(limit_bytes)) is None:
            if idle and self.winding_up:
                raise WoundUp
            if deadline is None:
                deadline = self.loop.time() + timeout_s
            await self._wait(deadline)
        return line

    async def read_data(self, decoder: DotDecoder, timeout_s: float) -> None:
        """Feed the decoder up to the end of DATA. Raises Hangup, TimedOut."""
        behind = decoder.feed(bytes(self._buffer))
        self._buffer.clear()
        if behind is not None:
            self.final_dot = time.monotonic()
            self._buffer += behind
            return
        deadline = self.loop.time() + timeout_s
        self._decoder = decoder
        try:
            while self._decoder is not None:
                await self._wait(deadline)
        finally:
            self._decoder = None

    async def read_raw(self, size_bytes: int, deadline: float) -> bytes:
        """Between one and `size_bytes` bytes, by the loop's time `deadline`. Raises Hangup, TimedOut."""
        while not self._buffer:
            await self._wait(deadline)
        data = bytes(self._buffer[:size_bytes])
        del self._buffer[:size_bytes]
        return data

    async def secure(self, context: SSLContext, timeout_s: float) -> None:
        """Put TLS around the connection; what was already read is its beginning. Raises Hangup, OSError."""
        plain = self.transport
        if plain is None or self._ended:
            raise Hangup
        self._send()
        early = bytes(self._buffer)
        self._buffer.clear()
        done: asyncio.Future[None] = self.loop.create_future()
        # As aiosmtpd does it. loop.start_tls can't be given bytes that have been read.
        tls = sslproto.SSLProtocol(
            self.loop, self, context, done, server_side=True,
            ssl_handshake_timeout=timeout_s, ssl_shutdown_timeout=_TLS_CLOSE_S,  # type: ignore[arg-type]
        )  # fmt: skip
        plain.set_protocol(tls)
        tls.connection_made(plain)
        while early:
            room = tls.get_buffer(len(early))
            size = min(len(room), len(early))
            room[:size] = early[:size]
            tls.buffer_updated(size)
            early = early[size:]
        if not self._reading:
            self._reading = True
            plain.resume_reading()
        try:
            await done
        finally:
            if self.transport is plain:
                plain.abort()
        if self.transport is plain:
            raise Hangup

    def drop_input(self) -> None:
        """Forget what the client sent ahead."""
        self._buffer.clear()
        self._skipping = False

    def wind_up(self) -> None:
        """The service is shutting down: an idle session ends now, others when they come to rest."""
        self._wake()

    @property
    def winding_up(self) -> bool:
        raise NotImplementedError

    def close(self, *, linger: bool = False) -> None:
        """Send what was said and close. Whoever doesn't read it is cut off a little later.

        `linger`: the client may still be sending, and a socket closed over unread input resets the connection, which
        takes the last reply with it. So only our half is closed, and what comes is dropped until the client's is.
        """
        transport = self.transport
        if transport is None:
            return
        self._send()
        self._closing = True
        self.drop_input()
        if not self._reading:
            transport.resume_reading()
        if linger and not self._ended and transport.can_write_eof():
            transport.write_eof()
        else:
            transport.close()
        self._disarm()
        self._timer = self.loop.call_later(_LINGER_S if linger else _LEAVE_S, transport.abort)

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def _take_line(self, limit_bytes: int | None) -> bytes | None:
        """A line from the buffer, None when there is none yet. The outcome never depends on how segments fell."""
        buffer = self._buffer
        end = buffer.find(b"\r\n")
        if self._skipping:
            if end < 0:
                del buffer[: len(buffer) - buffer.endswith(b"\r")]
                return None
            del buffer[: end + 2]
            self._skipping = False
            end = buffer.find(b"\r\n")
        so_far = buffer if end < 0 else buffer[:end]
        limit = line_limit(so_far) if limit_bytes is None else limit_bytes
        # A bare LF spoils the line at once, for a client that ends its lines so would wait for ever.
        if so_far.find(b"\n", 0, limit + 1) >= 0:
            problem = replies.BARE_LF
        elif len(so_far) - (end < 0 and so_far.endswith(b"\r")) > limit:
            problem = replies.LINE_TOO_LONG
        elif end < 0:
            return None
        else:
            del buffer[: end + 2]
            if b"\0" in so_far:
                raise BadLine(replies.NUL)
            if b"\r" in so_far:
                raise BadLine(replies.BARE_CR)
            return bytes(so_far)
        self._skipping = True
        raise BadLine(problem)

    def _send(self) -> None:
        if self._out and self.transport is not None:
            self.transport.write(bytes(self._out))
            self._out.clear()

    async def _wait(self, deadline: float) -> None:
        """Until something came in, perhaps a little earlier. Raises Hangup, TimedOut."""
        self._send()
        if self._unread is not None:
            # Past the deadline `_tick` finds nobody to tell, and cuts the client off.
            self._arm(deadline)
            await self._unread
            self._deadline = math.inf
            return
        if self._ended:
            raise Hangup
        if not self._reading and self.transport is not None:
            self._reading = True
            self.transport.resume_reading()
        self._arm(deadline)
        self._waiter = self.loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
            self._deadline = math.inf

    # One timer a connection: it stays as it is while the deadline moves on, and looks again when it fires.

    def _arm(self, deadline: float) -> None:
        self._deadline = deadline
        if self._timer is not None:
            if self._timer.when() <= deadline:
                return
            self._timer.cancel()
        # uvloop makes no timer, but a handle without `when`, of what is nearer than half a millisecond.
        self._timer = self.loop.call_at(max(deadline, self.loop.time() + 0.001), self._tick)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        self._timer = None
        if self._deadline == math.inf:
            return
        if self.loop.time() < self._deadline:
            self._arm(self._deadline)
        elif self._waiter is not None:
            self._wake(TimedOut())
        else:
            self.abort()
