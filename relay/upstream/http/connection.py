"""One open connection to an HTTP API: one request after the other (HTTP/1.1, RFC 9112)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, NamedTuple, cast

import h11

from relay import __version__
from relay.config.access import Endpoint
from relay.providers.api import Answer
from relay.upstream.flow import FlowLimit
from relay.upstream.http.reading import End, Reading
from relay.upstream.http.writing import Writing
from relay.upstream.sessions.kept import KeptSession, Opening

MAX_HEAD_BYTES = 32_768
"""of a response"""
CLOSE_WITHIN_S = 2.0
LIVES_S = 600.0
"""Its server may have moved: the name is looked up anew. SparkPost asks for 15 minutes at most."""


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


def request_head(
    where: Endpoint, method: str, target: str, fields: Iterable[tuple[str, str]], size_bytes: int
) -> h11.Request:
    """A request's head. `fields`: its own header fields; `size_bytes`: of its body."""
    headers = [
        ("Host", where.authority),
        *fields,
        ("Content-Length", str(size_bytes)),
        ("Accept-Encoding", "identity"),
        ("User-Agent", f"otp-relay/{__version__}"),
    ]
    return h11.Request(method=method, target=target, headers=headers)


class HttpConnection(KeptSession):
    """Call `exchange` when the connection is `usable`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, began_at: float) -> None:
        super().__init__(Opening(began_at=began_at))
        self.lives_s = LIVES_S
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._flow: FlowLimit | None = None
        self._writing: Writing | None = None
        self._reading: Reading | None = None
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
        reading = self._reading = Reading(self._protocol, self._loop)
        self.state = "busy"
        self.transactions += 1
        is_complete, left_at = False, time.monotonic()
        try:
            if await self._write(head, body, reading, deadline):
                left_at = time.monotonic()
                await reading.wait(final_s, stop)
                is_complete = self._writing is not None and not self._writing.has_unsent()
        except BaseException:
            self.abort()
            raise
        finally:
            self._reading = None
        end = reading.end or ("stopped" if stop is not None and stop.is_set() else "timed out")
        self._after(reading, is_reusable=is_complete and end == "answered")
        return Exchange(end, reading.answer(), is_complete, left_at, time.monotonic())

    async def _write(self, head: h11.Request, body: bytes, reading: Reading, deadline: float) -> bool:
        """False: the response, the end of the connection or the deadline came before the last byte was written."""
        first = self._protocol.send(head)
        self._protocol.send(h11.Data(data=body))  # the framing is Content-Length's: the bytes are the body's own
        self._protocol.send(h11.EndOfMessage())
        if self._writing is None or not self.is_open:
            reading.ended("lost")
            return False
        if self._flow is not None:
            self._flow.content_leaves(len(body))
        return await self._writing.write(first or b"", body, reading.over, lambda: reading.has_status, deadline)

    def _after(self, reading: Reading, *, is_reusable: bool) -> None:
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
        # uvloop's are no subclasses of asyncio.Transport.
        self._transport = cast(asyncio.Transport, transport)
        self._writing = Writing(self._transport)

    def opened(self, opening: Opening, *, express: bool) -> None:
        """The connection is open and, where it is to be, secure."""
        self.opening, self.idle_since = opening, time.monotonic()
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
        if self._writing is not None:
            self._writing.pause()

    def resume_writing(self) -> None:
        if self._writing is not None:
            self._writing.resume()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.note_idle_end()
        if self._writing is not None:
            self._writing.lost()
        self.state = "closed"
        if self._timer is not None:
            self._timer.cancel()
        if self._reading is not None:
            self._reading.ended("lost")
        if self.on_closed is not None:
            self.on_closed(self)
