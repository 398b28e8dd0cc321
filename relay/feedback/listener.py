"""The HTTP listener for webhooks only (`webhooks.address`)."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence

from aiohttp import web

from relay.web import BACKLOG
from relay.web.backend import Webhook
from relay.web.connections import ANSWER_WITHIN_S, Connection, ConnectionLimit
from relay.web.errors import add_headers, errors_as_json
from relay.web.webhooks import MAX_BODY_BYTES, routes

STOP_WITHIN_S = 2.0
MAX_CONNECTIONS = 256


class WebhookListener:
    """`start` it on bound sockets, `stop` it."""

    def __init__(self, webhooks: Callable[[], Mapping[str, Webhook]]) -> None:
        app = web.Application(middlewares=[errors_as_json, _within_a_deadline], client_max_size=MAX_BODY_BYTES)
        app.add_routes(routes(webhooks))
        app.on_response_prepare.append(add_headers)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=STOP_WITHIN_S)
        self._limit = ConnectionLimit(MAX_CONNECTIONS)
        self._servers: list[asyncio.Server] = []

    async def start(self, sockets: Sequence[socket.socket], tls: ssl.SSLContext | None) -> None:
        """Listen. `tls` None: in clear."""
        loop = asyncio.get_running_loop()
        await self._runner.setup()
        for each in sockets:
            if each.family == socket.AF_UNIX:
                server = await loop.create_unix_server(self._connection, sock=each, backlog=BACKLOG, ssl=tls)
            else:
                server = await loop.create_server(self._connection, sock=each, backlog=BACKLOG, ssl=tls)
            self._servers.append(server)

    async def stop(self) -> None:
        """Stop listening, and finish the responses under way within a short deadline."""
        for server in self._servers:
            server.close()
        await self._runner.cleanup()

    def _connection(self) -> asyncio.Protocol:
        server = self._runner.server
        assert server is not None, "the runner is set up"
        return Connection(server, self._limit)


@web.middleware
async def _within_a_deadline(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    connection = request.protocol
    assert isinstance(connection, Connection), "made by `_connection`"
    connection.request_begins()
    async with asyncio.timeout(ANSWER_WITHIN_S):
        return await handler(request)
