"""The response to one HTTP request, as it comes: read by h11, bounded."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import h11

from relay.providers.api import Answer

MAX_BODY_BYTES = 262_144
MAX_INTERIM = 10
"""1xx responses to one request"""

End = Literal["answered", "lost", "timed out", "garbled", "stopped"]


class Reading:
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

    async def wait(self, within_s: float, stop: asyncio.Event | None) -> None:
        """Return when the response was read, the connection ended, `stop` is set, or the time is over."""
        stopping = None if stop is None else asyncio.ensure_future(stop.wait())
        waited: set[asyncio.Future[Any]] = {self.over} if stopping is None else {self.over, stopping}
        try:
            await asyncio.wait(waited, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if stopping is not None:
                stopping.cancel()

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
