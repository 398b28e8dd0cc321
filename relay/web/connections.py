"""HTTP connections: how many there may be, and how long each may keep the service waiting."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from http import HTTPStatus
from typing import cast

from aiohttp import web

from relay.logfmt import logfmt
from relay.web.local_user import SocketPeer
from relay.web.responses import HEADERS, error_response

MAX_CONNECTIONS = 64
HEAD_WITHIN_S = 10.0
"""from the connection, or from the first byte of a further request, to the end of the request's head"""
IDLE_FOR_S = 75.0
"""between two requests; longer than Prometheus waits"""
ANSWER_WITHIN_S = 60.0
"""from the end of a request's head to the end of the response: body, handler, and a client that reads slowly"""
READ_WITHIN_S = 2.0
"""After this time a client that hasn't sent its body, or read its response, may lose its place to a new connection."""
LINGER_S = 5.0
"""for the rest of an unwanted body: a client that is cut off may not see the response"""
TOO_MANY = (
    b"HTTP/1.1 503 Service Unavailable\r\nServer: otp-relay\r\nConnection: close\r\nRetry-After: 1\r\n"
    b"Content-Type: application/json; charset=utf-8\r\nContent-Length: 33\r\n\r\n"
    b'{"error": "too many connections"}'
)

MAX_LINE_BYTES = 65_536
"""of a request line: `/api/send` has an envelope's recipients in it"""

_log = logging.getLogger("relay.web")


class ConnectionLimit:
    """Admits up to `most` connections. When all places are taken, a new connection replaces the one that has waited
    longest for its client, so silent clients and slow readers shut nobody out."""

    def __init__(self, most: int = MAX_CONNECTIONS) -> None:
        self._most = most
        self._admitted: dict[Connection, None] = {}

    def admit(self, connection: Connection) -> bool:
        """False: every other connection has a request that the service works on."""
        if len(self._admitted) >= self._most:
            replaced = next((one for one in self._admitted if one.replaceable), None)
            if replaced is None:
                return False
            replaced.abort()
        self._admitted[connection] = None
        return True

    def waits(self, connection: Connection) -> None:
        """The connection begins to wait for its client: it is the last one to be replaced."""
        if connection in self._admitted:
            self._admitted[connection] = self._admitted.pop(connection)

    def remove(self, connection: Connection) -> None:
        self._admitted.pop(connection, None)


class Connection(web.RequestHandler):
    """One connection, with a deadline for each of its states. Without a place it is answered 503 and closed."""

    __slots__ = ("_admitted", "_answering", "_deadline", "_idle", "_limit", "_waits_since", "may_change", "peer")

    def __init__(self, server: web.Server, limit: ConnectionLimit) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # as AppRunner passes it
            keepalive_timeout=IDLE_FOR_S,
            lingering_time=LINGER_S,
            max_line_size=MAX_LINE_BYTES,
            auto_decompress=False,  # a webhook's proof is over the raw bytes, and a few kilobytes can become gigabytes
        )
        self._limit = limit
        self.may_change = True
        """the client of the request under way may change something (`Guard.may_change`)"""
        self._admitted = False
        self._idle = False
        """between two requests"""
        self._answering = False
        """from the end of a request's head to the end of the response"""
        self._waits_since: float | None = None
        """since when the client sends its body or reads its response (loop time)"""

    @property
    def replaceable(self) -> bool:
        """The service waits for the client."""
        if self._waits_since is not None:
            return self._loop.time() - self._waits_since >= READ_WITHIN_S
        return not self._answering

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._admitted = self._limit.admit(self)
        if not self._admitted:
            stream = cast(asyncio.Transport, transport)
            stream.write(TOO_MANY)
            stream.close()
            return
        self.peer = SocketPeer(transport)
        self._deadline = self._loop.call_later(HEAD_WITHIN_S, self.abort)
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if not self._admitted:
            return
        if self._idle:
            self._idle = False
            self._must_end_within(HEAD_WITHIN_S)
        super().data_received(data)

    def request_begins(self) -> None:
        """A request's head is complete."""
        self._answering, self._idle = True, False
        self._must_end_within(ANSWER_WITHIN_S)

    def goes_on(self) -> None:
        """The response is a stream, and something of it is about to be written: the client has time to read that."""
        self._must_end_within(ANSWER_WITHIN_S)

    @contextlib.contextmanager
    def receiving_body(self) -> Iterator[None]:
        """Within the block the client sends its body. Slow ones must not take all places."""
        self._waits_since = self._loop.time()
        self._limit.waits(self)
        try:
            yield
        finally:
            self._waits_since = None

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send a response; aiohttp calls this for each, its own HTTP errors included."""
        if isinstance(resp, web.HTTPException):  # raised by aiohttp outside of the application; its text quotes
            resp = _http_error(resp.status)
        self._waits_since = self._loop.time()
        self._limit.waits(self)
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            self._waits_since = None
            self._answering, self._idle = False, True
            self._limit.waits(self)
            self._must_end_within(IDLE_FOR_S)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - aiohttp's signature
    ) -> web.StreamResponse:
        """Answer what isn't HTTP, TLS for example. aiohttp's own response and log line quote it."""
        _log.debug(logfmt("http_unreadable", status=status, error=type(exc).__name__))
        if request.writer.output_size > 0:
            raise ConnectionError("a response is being sent; another can't follow")
        response = _http_error(status)
        response.force_close()
        return response

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._admitted:
            self._leave()
            super().connection_lost(exc)

    def abort(self) -> None:
        """Close the connection at once."""
        self._leave()
        if self.transport is not None:
            self.transport.abort()

    def _leave(self) -> None:
        self._deadline.cancel()
        self._limit.remove(self)

    def _must_end_within(self, seconds: float) -> None:
        if not self._deadline.cancelled():  # else the connection is gone
            self._deadline.cancel()
            self._deadline = self._loop.call_later(seconds, self.abort)


def _http_error(status: int) -> web.Response:
    text = "the request can't be read as HTTP" if status == HTTPStatus.BAD_REQUEST else HTTPStatus(status).phrase
    response = error_response(status, text)
    response.headers.update(HEADERS)  # the application adds them to its own responses only
    return response
