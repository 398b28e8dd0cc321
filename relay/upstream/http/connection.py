"""One open connection to an HTTP API: one request after the other (HTTP/1.1, RFC 9112), read by h11.

What the body's last byte means is known here. A request counts as handed over once nothing of it waits in this process
or, unsent, in the kernel: a server that stopped reading before that can't have taken the mail.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import time
from contextlib import suppress
from typing import Any, Literal, NamedTuple

import h11

from relay.providers.api import Answer
from relay.upstream.flow import FlowLimit
from relay.upstream.sessions.kept import KeptSession, Opening

MAX_HEAD_BYTES = 32_768
"""of a response"""
MAX_BODY_BYTES = 262_144
MAX_INTERIM = 10
"""1xx responses to one request"""
PIECE_BYTES = 65_536
"""a body is written in such pieces, each once the one before has gone to the kernel"""
UNSENT_BYTES = 16_384
"""the kernel takes more only when no more than this waits to be sent"""
_SIOCOUTQNSD = 0x894B
"""Linux: bytes in the send queue that were never sent"""
CLOSE_WITHIN_S = 2.0

End = Literal["answered", "lost", "timed out", "garbled", "stopped"]


class Exchange(NamedTuple):
    """How a request went."""

    end: End
    answer: Answer | None
    """None: no response came whose status could be read"""
    is_complete: bool
    """the whole request was handed over, so the server may have it"""
    left_at: float
    """time.monotonic: when the last byte was written, or writing ended"""
    ended_at: float


class HttpConnection(KeptSession):
    """Call `exchange` when the connection is `usable`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, began_at: float) -> None:
        super().__init__(Opening(began_at=began_at))
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._flow: FlowLimit | None = None
        self._writable: asyncio.Future[None] | None = None
        """while the transport holds bytes that the kernel didn't take"""
        self._lost_unsent = False
        """the connection ended while the transport held bytes of the request"""
        self._reading: _Reading | None = None
        self._timer: asyncio.TimerHandle | None = None

    # KeptSession

    @property
    def usable(self) -> bool:
        transport = self._transport
        return self.state == "idle" and transport is not None and not transport.is_closing()

    @property
    def is_open(self) -> bool:
        transport = self._transport
        return self.state not in ("quitting", "closed") and transport is not None and not transport.is_closing()

    @property
    def has_room(self) -> bool:
        return False

    @property
    def depth(self) -> int:
        return int(self.state == "busy")

    def transport_info(self, name: str) -> Any:
        return None if self._transport is None else self._transport.get_extra_info(name)

    def reset(self) -> None:
        """HTTP has nothing like NOOP that costs the provider nothing."""
        self.quit()

    def quit(self) -> None:
        if self.state != "idle":
            self.abort()
            return
        self.state = "quitting"
        self._close()

    def abort(self) -> None:
        if self.state in ("busy", "idle"):
            self.state = "quitting"  # closed by us, which teaches nothing about the upstream
        if self._transport is not None:
            self._transport.abort()

    # the exchange

    async def exchange(
        self, head: h11.Request, body: bytes, *, deadline: float, final_s: float, stop: asyncio.Event | None = None
    ) -> Exchange:
        """Send a request and read the response. `deadline` (time.monotonic): for all that precedes the last byte;
        `final_s`: seconds for the answer behind it; `stop` ends the wait for it as a lost connection would.

        Never raises for what the server does. A cancellation closes the connection.
        """
        reading = self._reading = _Reading(self._protocol, self._loop)
        self.state = "busy"
        self.transactions += 1
        is_complete, left_at = False, time.monotonic()
        try:
            if await self._write(head, body, reading, deadline):
                is_complete, left_at = True, time.monotonic()
                await self._answered(reading, time.monotonic() + final_s, stop)
                is_complete = not self._has_unsent()
        except BaseException:
            self.abort()
            raise
        finally:
            self._reading = None
        end = reading.end or ("stopped" if stop is not None and stop.is_set() else "timed out")
        self._after(reading, is_reusable=is_complete and end == "answered")
        return Exchange(end, reading.answer(), is_complete, left_at, time.monotonic())

    async def _write(self, head: h11.Request, body: bytes, reading: _Reading, deadline: float) -> bool:
        """False: the response, the end of the connection or the deadline came before the last byte was written."""
        transport = self._transport
        first = self._protocol.send(head)
        self._protocol.send(h11.Data(data=body))  # the framing is Content-Length's: the bytes are the body's own
        self._protocol.send(h11.EndOfMessage())
        if transport is None or transport.is_closing() or first is None:
            reading.ended("lost")
            return False
        if self._flow is not None:
            self._flow.content_leaves(len(body))
        if len(body) <= PIECE_BYTES:
            transport.write(first + body)
            return True
        transport.write(first)
        view = memoryview(body)
        for at in range(0, len(body), PIECE_BYTES):
            if not await self._may_write(reading, deadline):
                return False
            transport.write(view[at : at + PIECE_BYTES])
        return True

    async def _may_write(self, reading: _Reading, deadline: float) -> bool:
        """Wait until the kernel has taken all that was written."""
        while self._writable is not None and not reading.over.done():
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                break
            await asyncio.wait((self._writable, reading.over), timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        return self._writable is None and not reading.over.done() and not reading.has_status

    async def _answered(self, reading: _Reading, until: float, stop: asyncio.Event | None) -> None:
        """Return when the response was read, the connection ended, or the time is over."""
        left_s = max(0.0, until - time.monotonic())
        if stop is None:
            await asyncio.wait((reading.over,), timeout=left_s)
            return
        stopping = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait((reading.over, stopping), timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()

    def _has_unsent(self) -> bool:
        """Whether bytes of the request never left this machine."""
        if self._writable is not None or self._lost_unsent:
            return True
        connection = self.transport_info("socket")
        if connection is None or self.state == "closed":
            return False
        with suppress(OSError, ValueError):
            raw = fcntl.ioctl(connection.fileno(), _SIOCOUTQNSD, struct.pack("i", 0))
            return bool(struct.unpack("i", raw)[0])
        return False

    def _after(self, reading: _Reading, *, is_reusable: bool) -> None:
        """Keep the connection for the next request, or close it."""
        if self._flow is not None:
            self._flow.all_answered()
        keeps = is_reusable and reading.is_whole and self.state == "busy"
        if keeps and self._protocol.our_state is h11.DONE and self._protocol.their_state is h11.DONE:
            with suppress(h11.ProtocolError):
                self._protocol.start_next_cycle()
                if not self._protocol.trailing_data[0]:
                    self.state, self.idle_since = "idle", time.monotonic()
                    return
        if self.state == "busy":
            self.state = "quitting"
            if is_reusable:
                self._close()  # the server asked for it
            elif self._transport is not None:
                self._transport.abort()

    def _close(self) -> None:
        """TLS says good-bye; a server that doesn't answer it is left."""
        if self._transport is not None:
            self._timer = self._loop.call_later(CLOSE_WITHIN_S, self._transport.abort)
            self._transport.close()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]
        transport.set_write_buffer_limits(high=0)  # type: ignore[attr-defined]

    def opened(self, opening: Opening, *, express: bool) -> None:
        """The connection is open and, where it is to be, secure."""
        self.opening, self.idle_since = opening, time.monotonic()
        connection: socket.socket | None = self.transport_info("socket")
        if connection is not None and hasattr(socket, "TCP_NOTSENT_LOWAT"):
            with suppress(OSError):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        if express and self._transport is not None:
            self._flow = FlowLimit(self._transport)

    def data_received(self, data: bytes) -> None:
        reading = self._reading
        if reading is not None:
            reading.feed(data)
            return
        # Such as a 408 before the server closes an idle connection. No such connection is used again.
        self.note_idle_end()
        if self.state == "idle":
            self.state = "quitting"
        if self._transport is not None:
            self._transport.abort()

    def eof_received(self) -> bool:
        if self._reading is not None:
            self._reading.feed(b"")
        else:
            self.note_idle_end()
            if self.state == "idle":
                self.state = "quitting"
        return False  # close

    def pause_writing(self) -> None:
        if self._writable is None:
            self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.note_idle_end()
        self._lost_unsent = self._writable is not None
        self.state = "closed"
        if self._timer is not None:
            self._timer.cancel()
        if self._reading is not None:
            self._reading.ended("lost")
        if self.on_closed is not None:
            self.on_closed(self)


class _Reading:
    """The response to one request, as it comes."""

    def __init__(self, protocol: h11.Connection, loop: asyncio.AbstractEventLoop) -> None:
        self.over: asyncio.Future[None] = loop.create_future()
        self.end: End | None = None
        self.is_whole = False
        """the response was read to its end"""
        self._protocol = protocol
        self._response: h11.Response | None = None
        self._body = bytearray()
        self._interim = 0

    @property
    def has_status(self) -> bool:
        return self._response is not None

    def feed(self, data: bytes) -> None:
        """Bytes of the server's; none: it sends no more."""
        if self.over.done():
            return
        try:
            self._protocol.receive_data(data)
            while not self.over.done():
                event = self._protocol.next_event()
                if event in (h11.NEED_DATA, h11.PAUSED):
                    return
                self._take(event)
        except h11.RemoteProtocolError:
            # A server that ends before its response is no worse than a lost connection.
            self.ended("lost" if not data else "garbled")

    def _take(self, event: object) -> None:
        match event:
            case h11.Response():
                self._response = event
            case h11.InformationalResponse():
                self._interim += 1
                if self._interim > MAX_INTERIM:
                    self.ended("garbled")
            case h11.Data():
                self._body += event.data
                if len(self._body) > MAX_BODY_BYTES:
                    self.ended("answered")
            case h11.EndOfMessage():
                self.is_whole = True
                self.ended("answered")
            case h11.ConnectionClosed():
                self.ended("lost")

    def ended(self, end: End) -> None:
        if not self.over.done():
            self.end = end
            self.over.set_result(None)

    def answer(self) -> Answer | None:
        """What came, if that has a status. An incomplete body, or one in a coding that wasn't asked for, is None."""
        response = self._response
        if response is None:
            return None
        headers: dict[str, str] = {}
        for name, value in response.headers:
            key, text = name.decode("latin-1"), value.decode("latin-1")
            headers[key] = f"{headers[key]}, {text}" if key in headers else text
        is_plain = headers.get("content-encoding", "identity").strip().lower() in ("", "identity")
        return Answer(response.status_code, headers, bytes(self._body) if self.is_whole and is_plain else None)
