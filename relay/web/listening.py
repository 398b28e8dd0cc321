"""The sockets of an HTTP service: listens on them, and serves an application, to those that its guard lets pass."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from aiohttp import web

from relay.web import BACKLOG
from relay.web.connections import MAX_CONNECTIONS, Connection, ConnectionLimit
from relay.web.errors import add_headers, error_of, errors_as_json
from relay.web.guard import SEND, Denial, Guard

STOP_WITHIN_S = 2.0
_DENIALS: dict[Denial, tuple[int, str]] = {
    "token": (401, "a token is required"),
    "operator": (
        401,
        "without http.token this is for root and the relay's own user only; run it as one of them, or set http.token",
    ),
    "host": (403, "the Host header names another server"),
    "origin": (403, "the request comes from another site"),
    "content type": (415, "the body must be application/json"),
    "read only": (403, "this token may read, and change nothing"),
}
_SEND_TYPES = "the body must be application/json or message/rfc822"
_CHALLENGES: dict[Denial, str] = {
    "token": 'Basic realm="otp-relay", charset="UTF-8"',
    "operator": 'Local realm="otp-relay"',  # no scheme for which a browser would ask its user for a password
}

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Bounds(NamedTuple):
    """What clients may use."""

    answer_within_s: float
    """from the end of a request's head to the handler's response"""
    body_bytes: int
    """of a request whose handler sets no limit itself"""
    connections: int = MAX_CONNECTIONS


class HttpListener:
    """`start` it on bound sockets, `stop` it."""

    def __init__(
        self, routes: Sequence[web.RouteDef], bounds: Bounds, guard: Guard | None = None, endless: str | None = None
    ) -> None:
        """`guard` None: every request passes. `endless`: the path whose response may take any time."""
        self._guard = guard
        self._endless = endless
        self._answer_within_s = bounds.answer_within_s
        self._limit = ConnectionLimit(bounds.connections)
        self._servers: list[asyncio.Server] = []
        app = web.Application(middlewares=[errors_as_json, self._admitted], client_max_size=bounds.body_bytes)
        app.add_routes(routes)
        app.on_response_prepare.append(add_headers)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=STOP_WITHIN_S)

    async def start(self, sockets: Sequence[socket.socket], tls: ssl.SSLContext | None = None) -> None:
        """Listen on bound sockets (`intake.sockets.bind`); the caller releases them after `stop`. `tls` None: in
        clear."""
        loop = asyncio.get_running_loop()
        await self._runner.setup()
        for each in sockets:
            create = loop.create_unix_server if each.family == socket.AF_UNIX else loop.create_server
            self._servers.append(await create(self._connection, sock=each, backlog=BACKLOG, ssl=tls))

    def close(self) -> None:
        """Take no more connections."""
        for server in self._servers:
            server.close()

    async def stop(self) -> None:
        """Stop listening, and finish the responses under way within a short deadline."""
        self.close()
        await self._runner.cleanup()

    def _connection(self) -> asyncio.Protocol:
        server = self._runner.server
        assert server is not None, "the runner is set up"
        return Connection(server, self._limit)

    @web.middleware
    async def _admitted(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Answer what the guard lets pass, within a deadline."""
        connection = request.protocol
        assert isinstance(connection, Connection), "made by `_connection`"
        connection.request_begins()
        if self._guard is not None:
            denial = await self._guard.denies(request.method, request.path, request.headers, connection.peer)
            if denial is not None:
                return _denied(request.path, denial, presented="Authorization" in request.headers)
            connection.may_change = self._guard.may_change(request.headers)
        if request.path == self._endless:
            return await handler(request)
        async with asyncio.timeout(self._answer_within_s):
            return await handler(request)


def _denied(path: str, denial: Denial, *, presented: bool) -> web.Response:
    """`presented`: the request has an Authorization header."""
    status, text = _DENIALS[denial]
    if denial == "token" and presented:
        text = "this token isn't known, or isn't for this"
    if denial == "content type" and path == SEND:
        text = _SEND_TYPES
    response = error_of(path)(status, text)
    if denial in _CHALLENGES:
        response.headers["WWW-Authenticate"] = _CHALLENGES[denial]
    return response
