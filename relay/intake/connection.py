"""One client's connection: lines and contents in, replies out, TLS, and a deadline for every wait.

Nothing cancels a session's task: a client that disconnects is noticed at the session's next wait. aiosmtpd reads line
by line through a StreamReader and cancels the handler at a client's FIN, so it isn't used here.
"""

from __future__ import annotations

import asyncio
import time
from asyncio import sslproto
from collections.abc import Callable, Coroutine
from ssl import SSLContext
from typing import Any, cast

from relay.intake.deadline import Deadline
from relay.intake.framing import DotDecoder, LineBuffer
from relay.intake.pace import Pace
from relay.intake.quickack import SMALL_READ_BYTES, acknowledge

_MAX_WAITING_BYTES = 65_536
"""Pipelined input that is kept while a command runs. Past it the client waits: TCP's window closes."""
_CLOSE_S = 10.0
"""How long the last replies of a closed connection may take to leave."""
_LINGER_S = 2.0
"""How long a client that still sends may take to read its last reply."""
_TLS_CLOSE_S = 5


class ClientDisconnected(Exception):
    """The client has closed the connection or its half of it, and all that it sent has been read."""


class TimedOut(Exception):
    """The client took too long."""


class ShuttingDown(Exception):
    """The service shuts down, and this session has no message under way."""


class Connection(asyncio.Protocol):
    """The transport's side for the event loop, and reads, writes and TLS for a session."""

    def __init__(self, serve: Callable[[Connection], Coroutine[Any, Any, None]], pace: Pace) -> None:
        """`serve` becomes a task that lasts as long as the session. `pace` is shared by all connections."""
        self.loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport | None = None
        self.content_began = self.final_dot = 0.0
        """when the reply to the last DATA was written, and when its content ended (time.monotonic)"""
        self._serve = serve
        self._pace = pace
        self._task: asyncio.Task[None] | None = None
        self._input = LineBuffer()
        self._output = bytearray()
        self._decoder: DotDecoder | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        """while too many replies wait for the client: done once it has read some; else None"""
        self._deadline = Deadline(self.loop, self._expired)
        self._ended = False
        self._closing = False
        self._reading = True
        self._shutting_down = False

    # Called by the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A new connection; after `start_tls` the same one inside TLS."""
        self.transport = cast(asyncio.Transport, transport)
        if self._task is None:
            self._task = self.loop.create_task(self._serve(self), name="intake session")

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        if self._decoder is None:
            self._input.feed(data)
            if len(self._input) > _MAX_WAITING_BYTES and self._reading and self.transport is not None:
                self._reading = False
                self.transport.pause_reading()
        else:
            rest = self._decoder.feed(data)
            if rest is None:
                if len(data) < SMALL_READ_BYTES and self.transport is not None:
                    acknowledge(self.transport)
                delay_s = self._pace.count(len(data)) if self._decoder.body.large else 0.0
                if delay_s > 0.0 and self.transport is not None:
                    self.transport.pause_reading()
                    self.loop.call_later(delay_s, self._resume)
                return
            self.final_dot = time.monotonic()
            self._decoder = None
            self._input.feed(rest)
        self._wake()

    def eof_received(self) -> bool:
        """True keeps the other direction open: what was sent before a FIN is still answered (TLS can't do that)."""
        self._ended = True
        self._wake()
        return not self._closing and self.transport is not None and self.transport.get_extra_info("sslcontext") is None

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 (the cause changes nothing)
        self.transport = None
        self._ended = True
        self._deadline.cancel()
        self.resume_writing()
        self._wake()

    def pause_writing(self) -> None:
        self._writable = self.loop.create_future()

    def resume_writing(self) -> None:
        if self._writable is not None:
            self._writable.set_result(None)
            self._writable = None

    # Called by the session.

    def write(self, reply: bytes) -> None:
        """Queue a reply. It leaves with the others once the client's input is used up."""
        self._output += reply

    def flush(self) -> None:
        """Send the queued replies now."""
        if self._output and self.transport is not None:
            self.transport.write(bytes(self._output))
            self._output.clear()

    async def read_line(self, timeout_s: float, *, limit_bytes: int | None = None, idle: bool = False) -> bytes:
        """The next line without its CRLF, all of it within `timeout_s`; `limit_bytes` None: what its verb may have.

        Raises BadLine, ClientDisconnected, TimedOut, and ShuttingDown where the session is `idle`.
        """
        deadline = None
        while (line := self._input.read_line(limit_bytes)) is None:
            if idle and self._shutting_down:
                raise ShuttingDown
            if deadline is None:
                deadline = self.loop.time() + timeout_s
            if self._input and self.transport is not None:
                acknowledge(self.transport)
            await self._wait(deadline)
        return line

    async def read_content(self, decoder: DotDecoder, timeout_s: float) -> None:
        """Feed the decoder up to the end of DATA. Raises ClientDisconnected, TimedOut."""
        self.content_began = time.monotonic()
        rest = decoder.feed(self._input.read())
        if rest is not None:
            self.final_dot = time.monotonic()
            self._input.feed(rest)
            return
        self.flush()
        self.content_began = time.monotonic()
        deadline = self.loop.time() + timeout_s
        self._decoder = decoder
        try:
            while self._decoder is not None:
                await self._wait(deadline)
        finally:
            self._decoder = None

    async def read_bytes(self, size_bytes: int, deadline: float) -> bytes:
        """Between one and `size_bytes` bytes, by the loop's time `deadline`. Raises ClientDisconnected, TimedOut."""
        while not self._input:
            await self._wait(deadline)
        return self._input.read(size_bytes)

    async def start_tls(self, context: SSLContext, timeout_s: float, *, drop_input: bool = False) -> None:
        """Put TLS around the connection; input that was already read begins the handshake, or is dropped.

        Raises ClientDisconnected, OSError.
        """
        if drop_input:
            self._input.clear()
        plain = self.transport
        if plain is None or self._ended:
            raise ClientDisconnected
        self.flush()
        early = self._input.read()
        done: asyncio.Future[None] = self.loop.create_future()
        # loop.start_tls can't be given bytes that have been read.
        tls = sslproto.SSLProtocol(
            self.loop, self, context, done, server_side=True,
            ssl_handshake_timeout=timeout_s, ssl_shutdown_timeout=_TLS_CLOSE_S,  # type: ignore[arg-type]
        )  # fmt: skip
        plain.set_protocol(tls)
        tls.connection_made(plain)
        while early:
            space = tls.get_buffer(len(early))
            size = min(len(space), len(early))
            space[:size] = early[:size]
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
            raise ClientDisconnected

    def close(self, *, linger: bool = False) -> None:
        """Send the queued replies and close. A client that doesn't read them is cut off a little later.

        `linger`: the client may still be sending. A socket closed over unread input resets the connection, and the
        last reply is lost with it. So only this half is closed, and input is dropped until the client closes its own.
        """
        transport = self.transport
        if transport is None:
            return
        self.flush()
        self._closing = True
        self._input.clear()
        if not self._reading:
            transport.resume_reading()
        if linger and not self._ended and transport.can_write_eof():
            transport.write_eof()
        else:
            transport.close()
        self._deadline.set(self.loop.time() + (_LINGER_S if linger else _CLOSE_S))

    # Called by the server.

    def begin_shutdown(self) -> None:
        """End the session where it is idle, else as soon as it is."""
        self._shutting_down = True
        self._wake()

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    # Inside.

    def _resume(self) -> None:
        if self._reading and self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    async def _wait(self, deadline: float) -> None:
        """Until more input has come, or a little earlier. Raises ClientDisconnected, TimedOut."""
        self.flush()
        waiter = self._writable
        if waiter is None:
            if self._ended:
                raise ClientDisconnected
            if not self._reading and self.transport is not None:
                self._reading = True
                self.transport.resume_reading()
            self._waiter = waiter = self.loop.create_future()
        self._deadline.set(deadline)
        try:
            await waiter
        finally:
            self._waiter = None
            self._deadline.clear()

    def _expired(self) -> None:
        """Let the wait for input time out. A client that doesn't read its replies, or doesn't close, is cut off."""
        if self._waiter is None:
            self.abort()
        elif not self._waiter.done():
            self._waiter.set_exception(TimedOut())

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
